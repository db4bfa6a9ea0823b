"""The nets that a user would deploy instead: PyTorch fp32, ONNX Runtime fp32, and ONNX Runtime int8 (static QDQ, weights per channel)."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

CALIBRATION_BATCHES = 4


def mnist_mlp(width: int = 4096, seed: int = 0) -> nn.Module:
    """The float shape of the paper's MNIST net: three hidden layers with batch norm and ReLU; weights as PyTorch initializes them."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (784, width, width):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10)).eval()


def runners(model: nn.Module, x: NDArray[np.float32], threads: int, folder: Path) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """What to call for one batch of each peer, and the bytes of each ONNX file."""
    torch.set_num_threads(threads)
    batch = torch.from_numpy(x)
    float_file, int8_file = folder / "fp32.onnx", folder / "int8.onnx"
    _write_onnx(model, batch, float_file, int8_file)
    fp32, int8 = _session(float_file, threads), _session(int8_file, threads)

    def run_torch() -> object:
        with torch.inference_mode():
            return model(batch)

    return (
        {
            "torch_fp32": run_torch,
            "ort_fp32": lambda: fp32.run(None, {"x": x}),
            "ort_int8": lambda: int8.run(None, {"x": x}),
        },
        {"ort_fp32": float_file.stat().st_size, "ort_int8": int8_file.stat().st_size},
    )


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Batches of normal noise: ranges matter to accuracy, not to speed."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(1)
        self._batches = iter([{"x": rng.standard_normal(shape, np.float32)} for _ in range(CALIBRATION_BATCHES)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def _write_onnx(model: nn.Module, batch: torch.Tensor, float_file: Path, int8_file: Path) -> None:
    prepared = float_file.with_name("prepared.onnx")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger().setLevel(logging.ERROR)
        torch.onnx.export(model, (batch,), str(float_file), input_names=["x"], dynamo=False)
        quant_pre_process(str(float_file), str(prepared))
        quantize_static(
            str(prepared),
            str(int8_file),
            _Calibration(tuple(batch.shape)),
            quant_format=QuantFormat.QDQ,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            per_channel=True,
        )


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
