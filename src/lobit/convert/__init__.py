"""`quantize_`: any float model becomes a low-bit one, in place; what each class becomes stands in one table, and a policy says with how many bits."""

from lobit.extras import require

require("lobit.quantize_", "torch")

from lobit.convert.quantize import quantize_
from lobit.convert.report import QuantizeReport, Row
from lobit.convert.rules import Policy
from lobit.convert.table import TABLE, Becomes

__all__ = ["TABLE", "Becomes", "Policy", "QuantizeReport", "Row", "quantize_"]
