"""A recipe at all combinations of bits: accuracy against what it costs, as one grid.

`grid` says what is asked for, `folder` what may be written where, `cell` trains and measures one net, `result` holds the figures, `table` and `page` show them,
and `run` leads from one to the next; `lobit.report.workers` runs cells in processes.
"""

from lobit.report.sweep.grid import Cell, Grid
from lobit.report.sweep.result import SweepResult, SweepRow, pareto_front, read_result
from lobit.report.sweep.run import sweep

__all__ = ["Cell", "Grid", "SweepResult", "SweepRow", "pareto_front", "read_result", "sweep"]
