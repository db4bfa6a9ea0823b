"""Types of the native module (native/python/module.cpp)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

class Program:
    def __init__(self, memory_limit: int = 0) -> None: ...
    def input(self, name: str, shape: list[int], /) -> int: ...
    def chain(
        self, name: str, x: int, steps: list[tuple[int, NDArray[np.float32] | None]], code: tuple[int, int] | None, zero: int, /
    ) -> int: ...
    def threshold(
        self, name: str, x: int, code: tuple[int, int], zero: int, thresholds: NDArray[np.int32], direction: NDArray[np.int32], /
    ) -> int: ...
    def linear(self, name: str, x: int, code: tuple[int, int], weights: NDArray[np.int16], /) -> int: ...
    def conv2d(self, name: str, x: int, code: tuple[int, int], window: list[int], weights: NDArray[np.int16], /) -> int: ...
    def linear_f32(self, name: str, x: int, weights: NDArray[np.float32], bias: NDArray[np.float32] | None, /) -> int: ...
    def conv2d_f32(
        self, name: str, x: int, window: list[int], weights: NDArray[np.float32], bias: NDArray[np.float32] | None, /
    ) -> int: ...
    def max_pool2d(self, name: str, x: int, window: list[int], /) -> int: ...
    def avg_pool2d(self, name: str, x: int, window: list[int], divisor: int, /) -> int: ...
    def add(self, name: str, a: int, b: int, /) -> int: ...
    def flatten(self, name: str, x: int, /) -> int: ...
    def pad2d(self, name: str, x: int, padding: list[int], value: float, /) -> int: ...
    def concat(self, name: str, x: list[int], /) -> int: ...
    def resize2d(self, name: str, x: int, rows: Any, columns: Any, row_weights: Any, column_weights: Any, /) -> int: ...
    def finish(self, outputs: list[int], isa: int, prefer: int, /) -> None: ...
    def run(
        self,
        batch: int,
        threads: int,
        inputs: list[NDArray[np.float32]],
        outputs: list[NDArray[Any]],
        taps: list[tuple[int, NDArray[Any]]],
        seconds: NDArray[np.float64] | None,
        /,
    ) -> None: ...
    def stored(self, value: int, /) -> bool: ...
    def operators(self) -> list[dict[str, Any]]: ...

def kernels() -> list[dict[str, Any]]: ...
def isas() -> list[str]: ...
def has_isa(isa: int) -> bool: ...
def all_finite(x: NDArray[np.float32], /) -> bool: ...
def probe_limit(what: int, /) -> float: ...

class training:  # a module inside this one (native/python/training.cpp)
    @staticmethod
    def use_threads(parallel: int, /) -> None: ...
    @staticmethod
    def sign(x: int, out: int, count: int, columns: int, isa: int, threads: int, /) -> None: ...
    @staticmethod
    def inside(x: int, mask: int, count: int, columns: int, lo: float, hi: float, isa: int, threads: int, /) -> None: ...
    @staticmethod
    def masked(g: int, mask: int, out: int, count: int, columns: int, slope: float, isa: int, threads: int, /) -> None: ...
    @staticmethod
    def round(
        x: int,
        step: int,
        step_stride: int,
        out: int,
        count: int,
        columns: int,
        lo: float,
        hi: float,
        inside: int,
        isa: int,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def round_back(
        x: int,
        g: int,
        step: int,
        step_stride: int,
        out: int,
        sums: int,
        count: int,
        columns: int,
        lo: float,
        hi: float,
        isa: int,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def expand(
        codes: int,
        is_unsigned: bool,
        step: int,
        step_stride: int,
        out: int,
        count: int,
        columns: int,
        isa: int,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def scale_back(
        g: int, codes: int, is_unsigned: bool, step: int, step_stride: int, sums: int, count: int, columns: int, isa: int, threads: int, /
    ) -> None: ...
    @staticmethod
    def signs(mask: int, out: int, count: int, columns: int, isa: int, threads: int, /) -> None: ...
    @staticmethod
    def bytes(x: int, out: int, others: int, count: int, columns: int, lo: int, hi: int, isa: int, threads: int, /) -> None: ...
    @staticmethod
    def pixels(
        x: int,
        out: int,
        others: int,
        images: int,
        channels: int,
        height: int,
        width: int,
        above: int,
        before: int,
        lo: int,
        hi: int,
        zero: int,
        isa: int,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def planes(
        x: int,
        offset: int,
        step: int,
        step_stride: int,
        shift: int,
        out: int,
        images: int,
        pixels: int,
        channels: int,
        isa: int,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def lstm(
        backward: bool,
        rows: int,
        units: int,
        sigmoid: int,
        tanh: int,
        sums: int,
        gates: int,
        inside: int,
        new_inside: int,
        cells: int,
        c: int,
        tanh_c: int,
        h: int,
        out: int,
        isa: int,
        threads: int,
        /,
    ) -> None: ...
