"""lobit implements Quantized Neural Networks (arXiv 1609.07061): networks of 1 to 8 bits, trained in PyTorch, exported to one file, run with the bits.

Importing it needs numpy alone; what needs PyTorch or another extra is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from lobit.bits import Alphabet, Bits, CodeType
from lobit.errors import ConfigError, ExportError, FormatError, LobitError, MissingExtraError, ShapeError
from lobit.extras import missing_extra

if TYPE_CHECKING:
    from lobit import capture, models, nn, optim, quantizers, recipes
    from lobit.capture import ExportReport, VerifyReport
    from lobit.convert import QuantizeReport, quantize_
    from lobit.nn import match_batch_norm, reestimate_batch_norm
    from lobit.quantizers import calibrate
    from lobit.report.bench import bench
    from lobit.report.evaluate import evaluate
    from lobit.report.summary import summary
    from lobit.runtime import Session, load
    from lobit.targets import export_c
    from lobit.training import TrainResult, train

    export, verify = capture.export, capture.verify

try:
    __version__ = version("lobit")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0.0.0"

_LAZY = {
    "ExportReport": "lobit.capture",
    "QuantizeReport": "lobit.convert",
    "Session": "lobit.runtime",
    "TrainResult": "lobit.training",
    "VerifyReport": "lobit.capture",
    "bench": "lobit.report.bench",
    "calibrate": "lobit.quantizers",
    "evaluate": "lobit.report.evaluate",
    "export": "lobit.capture",
    "export_c": "lobit.targets",
    "load": "lobit.runtime",
    "models": "lobit.models",
    "nn": "lobit.nn",
    "optim": "lobit.optim",
    "quantize_": "lobit.convert",
    "quantizers": "lobit.quantizers",
    "recipes": "lobit.recipes",
    "match_batch_norm": "lobit.nn",
    "reestimate_batch_norm": "lobit.nn",
    "summary": "lobit.report.summary",
    "train": "lobit.training",
    "verify": "lobit.capture",
}
"""Public names and the module that holds each; a name that is a module itself is imported whole."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lobit' has no attribute {name!r}")
    try:
        module = import_module(_LAZY[name])
    except ModuleNotFoundError as error:
        raise missing_extra(f"lobit.{name}", error) from error
    found = module if _LAZY[name] == f"lobit.{name}" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Alphabet",
    "Bits",
    "CodeType",
    "ConfigError",
    "ExportError",
    "ExportReport",
    "FormatError",
    "LobitError",
    "MissingExtraError",
    "QuantizeReport",
    "Session",
    "ShapeError",
    "TrainResult",
    "VerifyReport",
    "__version__",
    "bench",
    "calibrate",
    "evaluate",
    "export",
    "export_c",
    "load",
    "match_batch_norm",
    "models",
    "nn",
    "optim",
    "quantize_",
    "quantizers",
    "recipes",
    "reestimate_batch_norm",
    "summary",
    "train",
    "verify",
]
