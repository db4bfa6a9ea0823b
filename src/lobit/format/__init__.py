"""Graphs and files: operators, type rules, packing, reading, writing and checking. Free of torch."""

from lobit.format.about import About, about_graph
from lobit.format.check import check_graph
from lobit.format.file import file_bytes, read_file, write_file
from lobit.format.graph import Constant, Graph, Node, Step, ValueType
from lobit.format.operators import OPERATORS, accumulator_bound

__all__ = [
    "OPERATORS",
    "About",
    "Constant",
    "Graph",
    "Node",
    "Step",
    "ValueType",
    "about_graph",
    "accumulator_bound",
    "check_graph",
    "file_bytes",
    "read_file",
    "write_file",
]
