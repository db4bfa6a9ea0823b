"""Files of every version ever released are read, and give the outputs stored beside them, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lobit.format import file_bytes, read_file
from lobit.format.file import VERSION
from lobit.runtime import load
from tests.golden import oracle

FILES = sorted(Path(__file__).parent.glob("*.lobit"))


def test_every_version_has_golden_files() -> None:
    assert {path.name.split("-")[0] for path in FILES} == {f"v{version}" for version in range(1, VERSION + 1)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_gives_its_outputs_in_the_oracle(path: Path) -> None:
    stored = np.load(path.with_suffix(".npz"))
    assert len(np.unique(stored["y"])) > len(stored["y"])  # outputs that depend on the input
    np.testing.assert_array_equal(oracle.run(read_file(path), stored["x"]), stored["y"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_golden_file_gives_its_outputs_in_the_engine(path: Path, threads: int) -> None:
    stored = np.load(path.with_suffix(".npz"))
    session = load(path, threads=threads)
    np.testing.assert_array_equal(session(stored["x"]), stored["y"])
    assert session(stored["x"][:0]).shape == (0, *stored["y"].shape[1:])


@pytest.mark.parametrize("path", [path for path in FILES if path.name.startswith(f"v{VERSION}-")], ids=lambda path: path.stem)
def test_a_golden_file_is_what_this_version_writes(path: Path) -> None:
    assert file_bytes(read_file(path)) == path.read_bytes()
