"""C99 of a packed network, for microcontrollers and everything else with a C compiler."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobit.errors import ExportError, ShapeError
from lobit.format import Graph, check_graph, read_file
from lobit.targets.folder import check_folder, runtime_files, write_folder
from lobit.targets.lower import lower
from lobit.targets.readme import makefile, readme
from lobit.targets.source import make_source
from lobit.targets.text import check_identifier
from lobit.targets.vectors import make_test

MAX_CONSTANTS = 1 << 26
SAMPLES = 4


@dataclass(frozen=True, slots=True)
class CReport:
    """What an export to C wrote.

    Parameters
    ----------
    folder : Path
        Where.
    files : tuple of str
        Names of the files.
    weight_bytes : int
        Constants of the network: packed weights, thresholds, scales. Code comes on top; `make size` of the folder shows both.
    arena_bytes : int
        Memory that a run needs beside its input, its output and its stack.
    codes_input : bool
        Whether the network can be given codes (`<name>_run_codes`).
    compared : int
        Stored values that the generated test compares, beside the outputs.
    """

    folder: Path
    files: tuple[str, ...]
    weight_bytes: int
    arena_bytes: int
    codes_input: bool
    compared: int

    def __str__(self) -> str:
        entries = "floats or codes" if self.codes_input else "floats"
        return (
            f"{self.folder}: {len(self.files)} files\n"
            f"constants {self.weight_bytes} bytes, arena {self.arena_bytes} bytes; runs from {entries}\n"
            f"compare the outputs and {self.compared} stored values:\n"
            f"  make -C {shlex.quote(str(self.folder))} test"
        )


def export_c(
    network: Graph | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    name: str = "net",
    example: NDArray[np.float32] | Sequence[NDArray[np.float32]] | None = None,
) -> CReport:
    """Write a network as C99: static weights, one arena, no malloc, with test vectors and a Makefile.

    Parameters
    ----------
    network : Graph or path-like
        A graph, or the path of a `.lobit` file.
    folder : path-like
        Is made, or replaced where it holds an earlier export; anything else that stands there is refused. Written whole or not at all.
    name : str
        Prefix of the files and of everything that they define.
    example : float32 ndarray of shape (N, ...), or a sequence of them, optional
        Inputs of the test vectors; by default 4 samples, uniform in [0, 1).

    Returns
    -------
    CReport

    Raises
    ------
    ExportError
        For a layer that C cannot have (`linear_f32`, `conv2d_f32`), named, and for a folder that cannot be written; nothing is written then.
    FormatError
        For a file that is none.
    ConfigError
        For a name that C could not bear.
    ShapeError
        For an example that does not fit.

    Examples
    --------
    >>> report = export_c("digits.lobit", "digits-c", name="digits")  # doctest: +SKIP
    >>> report.arena_bytes, report.codes_input  # doctest: +SKIP
    (676, True)
    """
    check_identifier(name)
    target = check_folder(folder)
    graph = network if isinstance(network, Graph) else read_file(network)
    graph = graph if graph.types else check_graph(graph)
    if (size := sum(constant.nbytes for constant in graph.constants.values())) > MAX_CONSTANTS:
        raise ExportError(f"its constants have {size} bytes, the limit of C is {MAX_CONSTANTS}; run it from the .lobit file instead")
    program = lower(graph)
    inputs = _example(graph, example)
    source = make_source(program, name)
    test, compared = make_test(program, name, inputs)
    files = {
        f"{name}.h": source.header,
        f"{name}.c": source.body,
        f"{name}_test.c": test,
        "Makefile": makefile(name),
        "README.md": readme(program, source, name),
        **runtime_files(),
    }
    write_folder(target, files)
    return CReport(target, tuple(sorted(files)), source.weight_bytes, source.arena_bytes, source.codes_input is not None, compared)


def _example(graph: Graph, example: NDArray[np.float32] | Sequence[NDArray[np.float32]] | None) -> list[NDArray[np.float32]]:
    if example is None:
        rng = np.random.default_rng(0)
        return [rng.random((SAMPLES, *shape), dtype=np.float32) for shape in graph.inputs.values()]
    arrays = [example] if isinstance(example, np.ndarray) else list(example)
    if len(arrays) != len(graph.inputs) or any(not isinstance(a, np.ndarray) or a.ndim < 1 or len(a) < 1 for a in arrays):
        raise ShapeError(
            f"the example must be {len(graph.inputs)} float32 array(s) of at least one sample; {', '.join(graph.inputs)} in this order"
        )
    return arrays
