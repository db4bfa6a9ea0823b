"""Run packed networks: sessions, what they do and how long each operator takes. Needs numpy, not torch."""

from lobit.runtime.hardware import Kernel, isas, kernels, probe_limit
from lobit.runtime.report import Explanation, OperatorRow, Profile, ProfileRow
from lobit.runtime.session import Session, load

__all__ = [
    "Explanation",
    "Kernel",
    "OperatorRow",
    "Profile",
    "ProfileRow",
    "Session",
    "isas",
    "kernels",
    "load",
    "probe_limit",
]
