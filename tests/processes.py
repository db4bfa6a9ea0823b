"""Processes of a distributed run, and what each of them found."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def forked(count: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What ``work(rank)`` returns in each of several forks that share a group. Nothing is imported again, but a fork cannot run a backward pass."""
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            _member(rank, count, work, folder)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return _found(codes, folder)


def spawned(count: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What a module's function ``work(rank)`` returns in each of several new processes that share a group."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_member, args=(rank, count, work, folder)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return _found([process.exitcode for process in processes], folder)


def _member(rank: int, count: int, work: Callable[[int], Any], folder: Path) -> None:
    status = 1
    try:
        torch.set_num_threads(1)
        meet = f"file://{folder}/meet"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=count, timeout=timedelta(seconds=60))
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(work(rank)))
        dist.barrier()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Without destructors: that of a data-parallel model holds the interpreter's lock while it waits for Gloo's thread, which may be waiting for the lock.
        os._exit(status)


def _found(codes: list[int | None], folder: Path) -> list[Any]:
    assert codes == [0] * len(codes)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(len(codes))]
