"""What `quantize_` did, module by module."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one module: its path, its class, its bits (``""`` where it has none), its quantizers, or why it stayed."""

    path: str
    kind: str
    bits: str
    replaced: bool
    note: str


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What `quantize_` did, module by module; prints as a table of at most 100 columns."""

    rows: tuple[Row, ...]

    @property
    def replaced(self) -> tuple[str, ...]:
        """Paths of the modules that were replaced."""
        return tuple(row.path for row in self.rows if row.replaced)

    @property
    def quantized(self) -> tuple[str, ...]:
        """Paths of the modules that got quantizers."""
        return tuple(row.path for row in self.rows if row.replaced and row.bits)

    @property
    def left(self) -> tuple[str, ...]:
        """Paths of the modules that stay as they were, each with its reason in its row."""
        return tuple(row.path for row in self.rows if not row.replaced)

    def __str__(self) -> str:
        head = ("layer", "class", "bits", "note")
        cells = [(row.path or "(model)", row.kind, row.bits or "-", row.note if row.replaced else f"left: {row.note}") for row in self.rows]
        widths = [min(max(len(line[column]) for line in [head, *cells]), limit) for column, limit in enumerate((40, 24, 10))]
        room = _COLUMNS - sum(widths) - 2 * len(widths)
        lines = []
        for *texts, note in [head, *cells]:
            start = "  ".join(_fit(text, width).ljust(width) for text, width in zip(texts, widths, strict=True))
            for part in textwrap.wrap(note, room):
                lines.append(f"{start}  {part}")
                start = " " * len(start)
        return "\n".join(lines)


def _fit(text: str, width: int) -> str:
    """``text``, its middle left out where it is longer than ``width``."""
    return text if len(text) <= width else f"{text[: width // 2 - 2]}..{text[len(text) - (width - width // 2) :]}"
