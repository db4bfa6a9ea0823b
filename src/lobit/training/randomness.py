"""All random numbers that a training step may draw, torch's, Python's and numpy's: seeded, kept in checkpoints, and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lobit.errors import ConfigError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers that start from ``seed`` in the block, and the caller's own afterwards."""
    former = random_states()
    try:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # a quantizer of the user's may draw from the global generator
        yield
    finally:
        restore_random_states(former)


def random_states() -> dict[str, Any]:
    """The states of the global generators, in types that ``torch.load(weights_only=True)`` reads; CUDA's only where CUDA is in use."""
    version, words, normal = random.getstate()
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    words_of = {
        name: torch.from_numpy(value.astype(np.int64)) if isinstance(value, np.ndarray) else value for name, value in numpy["state"].items()
    }
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, torch.tensor(words), normal],
        "numpy": {**numpy, "state": words_of},
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put back what `random_states` took.

    Raises
    ------
    ConfigError
        When they are not what it returned.
    """
    try:
        version, words, normal = states["python"]
        numpy, words_of = states["numpy"], states["numpy"]["state"]
        torch.set_rng_state(states["torch"])
        random.setstate((version, tuple(words.tolist()), normal))
        arrays = {name: value.numpy().astype(np.uint32) if isinstance(value, torch.Tensor) else value for name, value in words_of.items()}
        np.random.set_state({**numpy, "state": arrays})  # noqa: NPY002
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(states["cuda"])
    except Exception as error:  # whatever the generators say to states of another shape
        raise ConfigError(
            f"the random states of the checkpoint cannot be put back ({error}); it is damaged or not lobit's: start anew with --overwrite"
        ) from error
