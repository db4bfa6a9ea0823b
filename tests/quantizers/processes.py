"""Processes of a distributed run, forked from the test's own so that nothing is imported again."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def together(count: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What ``work(rank)`` returns in each of several processes that share a group."""
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                torch.set_num_threads(1)
                dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
                (folder / f"{rank}.pickle").write_bytes(pickle.dumps(work(rank)))
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(count)]
