"""Print the requirements of an extra of pyproject.toml, its own extras resolved: what to install before lobit itself is built.

usage: python scripts/requirements.py [extra ...]
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements(extras: list[str]) -> list[str]:
    """Requirements of the package and of `extras`, sorted, without lobit itself."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    tables = project["optional-dependencies"]
    found, seen, todo = set(project["dependencies"]), set(), list(extras)
    while todo:
        extra = todo.pop()
        if extra not in tables:
            sys.exit(f"no extra {extra!r} in pyproject.toml; it has {', '.join(tables)}")
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in tables[extra]:
            own = re.fullmatch(r"lobit\[([\w,]+)\]", requirement)
            if own:
                todo += own[1].split(",")
            else:
                found.add(requirement)
    return sorted(found)


if __name__ == "__main__":
    print("\n".join(f"{requirement}" for requirement in requirements(sys.argv[1:])))
