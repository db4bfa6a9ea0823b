"""Which packages an installed lobit asks for, by extra, and which of them are there. Reads metadata alone: nothing is imported."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

from lobit.report.machine import version

EXTRAS = ("cli", "train", "report", "export", "search", "bench")
"""Extras for users, in the order to show them; `dev` and `docs` are for work on lobit itself."""

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)\s*(?:\[(?P<extras>[^\]]*)\])?(?P<limits>[^;]*)(?:;(?P<marker>.*))?")


@dataclass(frozen=True, slots=True)
class Package:
    """A package that lobit asks for: its name, the least version, and the installed one."""

    name: str
    least: str
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether it is installed and new enough."""
        return self.installed is not None and _order(self.installed) >= _order(self.least)

    def __str__(self) -> str:
        if self.installed is None:
            return self.name
        return f"{self.name} {self.installed}" if self.fits else f"{self.name} {self.installed} (needs {self.least})"


def packages(extra: str = "", *, of: str = "lobit") -> tuple[Package, ...] | None:
    """The packages of an extra, or of lobit itself, without those of the extras that it builds on.

    None where lobit was not installed (a source tree on the path), so that its requirements are not known.
    """
    try:
        lines = importlib.metadata.requires(of) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = []
    for line in lines:
        match = _REQUIREMENT.fullmatch(line.strip())
        if match is None:
            continue
        of_extra = re.search(r"extra\s*==\s*[\"']([^\"']+)", match["marker"] or "")
        least = re.search(r">=\s*([\w.]+)", match["limits"])
        if match["name"] != of and (of_extra[1] if of_extra else "") == extra:
            found.append(Package(match["name"], least[1] if least else "0", version(match["name"])))
    return tuple(found)


def _order(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu is 2, 13."""
    numbers = [int(part) for part in re.match(r"[\d.]*", text)[0].split(".") if part]  # type: ignore[index]  # an empty match is one
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
