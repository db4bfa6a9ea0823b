"""The peers of a packed file: its float network in PyTorch, and in ONNX Runtime in float32 and in int8, where they are installed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.errors import ConfigError, LobitError
from lobit.report.floatnet import FloatNet, clamp_first, pool_first

PEERS = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx")}
"""Packages by the name of a peer, and what each needs to run."""
INSTALL = {"torch": "pip install 'lobit[train]'", "onnxruntime": "pip install 'lobit[bench]'"}
MAX_ONNX = 1_900_000_000
"""Bytes of weights that one ONNX file can hold; it is a protocol buffer of less than 2 GiB."""

Arrays = Sequence[NDArray[np.float32]]
Call = Callable[[], Any]


@dataclass
class Peers:
    """The peers that could be made.

    Parameters
    ----------
    makers : dict of str to callable
        From a batch's inputs to a call that runs it; by ``torch_fp32``, ``ort_fp32``, ``ort_int8``.
    nbytes : dict of str to int
        What each holds: weights of PyTorch, files of ONNX.
    left_out : dict of str to str
        Why a peer is missing, and how to get it.
    """

    makers: dict[str, Callable[[Arrays], Call]] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def runners(self, x: Arrays) -> dict[str, Call]:
        """What to call for one batch of each."""
        return {name: make(x) for name, make in self.makers.items()}


def check_peers(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The peers that are asked for; all of them by default.

    Raises
    ------
    ConfigError
        For an unknown one.
    """
    names = tuple(PEERS) if wanted is None else tuple(wanted)
    if unknown := [name for name in names if name not in PEERS]:
        raise ConfigError(f"unknown peer {unknown[0]!r}; choose of {', '.join(PEERS)}, or none")
    return names


@contextlib.contextmanager
def peers(net: FloatNet, calibration: Arrays, *, wanted: Sequence[str] | None = None, threads: int = 1) -> Iterator[Peers]:
    """Make the peers of a float network; their files and thread settings last as long as the block.

    Parameters
    ----------
    net : FloatNet
    calibration : sequence of float32 ndarray
        A batch of inputs, for the ranges of int8; they matter to accuracy, not to speed.
    wanted : sequence of str, optional
        Of `PEERS`; all by default. One that is not installed is left out, and `Peers.left_out` says how to get it.
    threads : int
    """
    found = Peers()
    with contextlib.ExitStack() as stack:
        for name in check_peers(wanted):
            lacking = [package for package in PEERS[name] if importlib.util.find_spec(package) is None]
            if lacking:
                found.left_out[name] = f"{' and '.join(lacking)} not installed: {INSTALL[name]}"
            elif name == "torch":
                stack.enter_context(_torch(found, net, threads))
            elif net.nbytes > MAX_ONNX:
                found.left_out[name] = f"{net.nbytes} bytes of float weights are more than an ONNX file holds"
            else:
                _onnx(found, net, calibration, threads, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        yield found


@contextlib.contextmanager
def _torch(found: Peers, net: FloatNet, threads: int) -> Iterator[None]:
    import torch

    from lobit.report.torch_peer import FloatModule

    model = FloatModule(pool_first(net)).eval()

    def make(x: Arrays) -> Call:
        tensors = [torch.from_numpy(array) for array in x]

        def run() -> Any:
            with torch.inference_mode():
                return model(*tensors)

        return run

    found.makers["torch_fp32"] = make
    found.nbytes["torch_fp32"] = net.nbytes
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _onnx(found: Peers, net: FloatNet, calibration: Arrays, threads: int, folder: Path) -> None:
    from lobit.report.onnx_peer import write_onnx

    fp32, int8 = folder / "fp32.onnx", folder / "int8.onnx"
    write_onnx(clamp_first(net), fp32)
    _write_int8(fp32, int8, dict(zip(net.inputs, calibration, strict=True)))
    for name, path in {"ort_fp32": fp32, "ort_int8": int8}.items():
        found.makers[name] = _session_maker(path, tuple(net.inputs), threads)
        found.nbytes[name] = path.stat().st_size


def _session_maker(path: Path, inputs: Sequence[str], threads: int) -> Callable[[Arrays], Call]:
    def make(x: Arrays) -> Call:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name("N", len(x[0]))  # the batch is known, as it is where a net is deployed
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = dict(zip(inputs, x, strict=True))
        return lambda: session.run(None, feed)

    return make


def _write_int8(fp32: Path, int8: Path, batch: Mapping[str, NDArray[np.float32]]) -> None:
    """Static quantization: QDQ, int8 weights with a scale for each channel, uint8 activations."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Calibration(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """One batch."""

        def __init__(self) -> None:
            self._batches = iter([dict(batch)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    prepared = fp32.with_name("prepared.onnx")
    with _quiet():
        try:
            quant_pre_process(str(fp32), str(prepared))
            quantize_static(
                str(prepared),
                str(int8),
                Calibration(),
                quant_format=QuantFormat.QDQ,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                per_channel=True,
            )
        except Exception as error:  # whatever onnxruntime raises: it has no base class
            raise LobitError(f"ONNX Runtime cannot quantize the float network: {error}; leave it out with --peers torch") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's advice, which goes to the root logger and to standard output."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
