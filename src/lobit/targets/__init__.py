"""Targets other than the `.lobit` file: C99 for microcontrollers. Free of torch."""

from lobit.targets.c import CReport, export_c

__all__ = ["CReport", "export_c"]
