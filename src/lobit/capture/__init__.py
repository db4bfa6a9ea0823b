"""From a PyTorch model to a packed file, and the proof that both compute the same."""

from lobit.extras import require

require("lobit.capture", "torch")

from lobit.capture.export import ExportReport, export
from lobit.capture.verify import VerifyReport, verify

__all__ = ["ExportReport", "VerifyReport", "export", "verify"]
