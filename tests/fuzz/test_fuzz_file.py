from __future__ import annotations

import random

from lobit.format import file_bytes
from tests.format.samples import mlp
from tests.fuzz.fuzz_file import fuzz
from tests.fuzz.mutate import mutate


def test_two_seconds_of_mutants_are_refused_or_run() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # fuzz names it in every failure too
    outcomes = fuzz(2.0, seed)
    assert outcomes["refused"] > 50
    assert outcomes.total() > outcomes["refused"], "no mutant passed the reader: the deeper checks were not reached"


def test_a_seed_repeats_its_mutants() -> None:
    data = file_bytes(mlp())
    first = [mutate(data, random.Random(7)) for _ in range(20)]
    assert first == [mutate(data, random.Random(7)) for _ in range(20)]
    assert first[0] != data
