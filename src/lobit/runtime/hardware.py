"""What this CPU can run: instruction sets, the kernel table, and the probed limits of a core."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lobit import _native
from lobit.errors import ConfigError

ISAS = ("scalar", "avx2", "avx512", "amx")
PROBES = ("one-bit", "int8", "fp32")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A line of the kernel table.

    Parameters
    ----------
    name : str
        Operation, tile and instruction set: ``"xor_carry_save_3x64_avx512"``.
    isa : str
        ``scalar``, ``avx2``, ``avx512`` or ``amx``.
    op : str
        ``xor`` and ``and`` count bits of 32 one-bit codes a word, ``dot8`` multiplies 4 bytes a word; the others are loops
        over values, such as ``stage`` (thresholds and chains) and ``max_pool``.
    rows, columns : int
        The register tile of a product; 0 for a loop.
    macs_per_cycle : float
        Measured speed; 0 when it was not measured.
    needs : str
        A CPU feature beyond the instruction set's own, or ``""``.
    runs : bool
        Whether this CPU has all of it.
    """

    name: str
    isa: str
    op: str
    rows: int
    columns: int
    macs_per_cycle: float
    needs: str
    runs: bool


def isas() -> tuple[str, ...]:
    """Instruction sets that this CPU has, slowest first.

    Examples
    --------
    >>> isas()[0]
    'scalar'
    """
    return tuple(_native.isas())


def kernels() -> tuple[Kernel, ...]:
    """The kernel table.

    Examples
    --------
    >>> {kernel.op for kernel in kernels()} >= {"xor", "and", "dot8", "stage"}
    True
    """
    return tuple(Kernel(**row) for row in _native.kernels())


def probe_limit(what: str) -> float:
    """Probe this core's limit, about 50 ms.

    Parameters
    ----------
    what : str
        ``"one-bit"``, ``"int8"`` or ``"fp32"``.

    Returns
    -------
    float
        10^9 multiply-accumulates a second of a loop of independent register operations; 0 where this CPU has no instruction to probe.

    Raises
    ------
    ConfigError
        For another name.
    """
    if what not in PROBES:
        raise ConfigError(f"no probe {what!r}; choose one of {', '.join(PROBES)}")
    return float(_native.probe_limit(PROBES.index(what))) / 1e9


def choose_isa(isa: str | None) -> str:
    """The instruction set to use: the one given, else that of ``LOBIT_ISA``, else the best of this CPU.

    Raises
    ------
    ConfigError
        For one that does not exist or that this CPU lacks.
    """
    source = "isa"
    if isa is None:
        isa, source = os.environ.get("LOBIT_ISA") or None, "LOBIT_ISA"
    if isa is None:
        return isas()[-1]
    if isa not in ISAS or not _native.has_isa(ISAS.index(isa)):
        has = isas()
        known = "this CPU lacks it" if isa in ISAS else "there is no such instruction set"
        raise ConfigError(f"{source} is {isa!r}: {known}; this CPU has {', '.join(has)}")
    return isa
