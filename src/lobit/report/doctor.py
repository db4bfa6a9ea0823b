"""What this machine has of all that lobit can use, what is missing and how to get it: `lobit doctor`. Needs neither torch nor a working native module."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lobit.report import checks
from lobit.report.checks import Check
from lobit.report.machine import facts

if TYPE_CHECKING:
    from lobit.runtime import Kernel

COLUMNS = 80
KERNELS = "kernels"
PARTS: dict[str, Callable[[], Iterable[Check]]] = {
    "lobit": checks.essentials,
    "processor": checks.processor,
    KERNELS: checks.self_test,
    "data sets": checks.data_sets,
    "packages by extra": checks.extras,
    "tools of the C target": checks.tools,
    "energy": checks.energy,
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks by part, and the kernel table (empty where the native module is broken); ``str()`` makes a report of 80 columns."""

    parts: dict[str, tuple[Check, ...]]
    kernels: tuple[Kernel, ...]

    @property
    def ok(self) -> bool:
        """Whether all that lobit cannot do without works; what is merely missing does not count."""
        return not self.broken

    @property
    def broken(self) -> tuple[Check, ...]:
        """The essential checks that failed."""
        return tuple(check for part in self.parts.values() for check in part if check.state == "broken")

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        parts = {part: [asdict(check) for check in found] for part, found in self.parts.items()}
        return {"ok": self.ok, "machine": facts(), "checks": parts, "kernels": [asdict(kernel) for kernel in self.kernels]}

    def __str__(self) -> str:
        blocks = []
        for part, found in self.parts.items():
            width = max((len(check.name) for check in found), default=0)
            lines = [line for check in found for line in _lines(check, width)]
            lines = [*(self._kernel_lines() if part == KERNELS else []), *lines]
            blocks += ["\n".join([part, *lines])] if lines else []
        missing = sum(check.state == "missing" for part in self.parts.values() for check in part)
        optional = f"{missing} optional thing{'s' if missing != 1 else ''} missing" if missing else "nothing is missing"
        verdict = f"broken: {', '.join(check.name for check in self.broken)}" if self.broken else f"lobit works here; {optional}"
        return "\n\n".join([*blocks, verdict])

    def _kernel_lines(self) -> list[str]:
        """Products one by one, the loops over values by instruction set."""
        if not self.kernels:
            return []
        from lobit.runtime.report import table

        isas = {kernel.isa for kernel in self.kernels if kernel.runs}

        def here(kernel: Kernel) -> str:
            return "yes" if kernel.runs else f"no: the processor lacks {kernel.needs if kernel.isa in isas else kernel.isa}"

        loops: dict[str, list[Kernel]] = {}
        body = []
        for kernel in self.kernels:
            if kernel.rows:
                body.append((kernel.name, kernel.isa, f"{kernel.macs_per_cycle:g}", here(kernel)))
            else:
                loops.setdefault(kernel.isa, []).append(kernel)
        body += [(f"{len(of)} loops over values", isa, "", here(of[0])) for isa, of in loops.items()]
        return [f"  {line}" for line in table(("kernel", "isa", "MACs/cycle", "runs here"), body, right=(2,)).splitlines()]


def diagnose() -> Diagnosis:
    """Check this machine, part by part. It changes nothing and takes about a second.

    Examples
    --------
    >>> diagnose().ok
    True
    """
    parts = {part: tuple(_survive(part, check)) for part, check in PARTS.items()}
    try:
        from lobit.runtime.hardware import kernels

        return Diagnosis(parts, kernels())
    except Exception:  # the checks above say what is wrong with it
        return Diagnosis(parts, ())


def _survive(part: str, check: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """What a check finds; one that fails in a way that nobody thought of is a finding too, and the others still run."""
    try:
        yield from check()
    except Exception as error:
        yield Check(part, "broken", f"{type(error).__name__}: {error}".partition("\n")[0], checks.REINSTALL)


def _lines(check: Check, width: int) -> list[str]:
    mark = "BROKEN" if check.state == "broken" else check.state
    return [*_wrap(check.found, f"  {mark:<7} {check.name:<{width}}  "), *(_wrap(check.remedy, " " * 10 + "-> ") if check.remedy else ())]


def _wrap(text: str, head: str) -> list[str]:
    settings = {"subsequent_indent": " " * len(head), "break_on_hyphens": False}
    return textwrap.wrap(text or "-", COLUMNS, initial_indent=head, **settings)  # type: ignore[arg-type]
