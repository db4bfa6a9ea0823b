"""The arena: each value and each scratch block gets a place for as long as it lives, and no two that live together overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Block:
    """Words that are needed from step ``first`` to step ``last``, both included; ``offset`` is the answer."""

    words: int
    first: int
    last: int
    offset: int = -1

    def meets(self, other: Block) -> bool:
        """Whether the two live at one time."""
        return self.first <= other.last and other.first <= self.last


def place(blocks: Sequence[Block]) -> int:
    """Give every block its offset and return the words of the arena.

    The largest come first, each at the lowest place that is free while it lives: the greedy order of Pisarchyk and Lee, Efficient Memory Management for Deep
    Neural Net Inference, arXiv 2001.03288, section 5.2.
    """
    placed: list[Block] = []
    for block in sorted(blocks, key=lambda b: -b.words):
        offset = 0
        for other in sorted((other for other in placed if other.meets(block)), key=lambda b: b.offset):
            if offset + block.words <= other.offset:
                break
            offset = max(offset, other.offset + other.words)
        block.offset = offset
        placed.append(block)
    return max((block.offset + block.words for block in placed), default=0)
