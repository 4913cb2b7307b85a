"""What a measurement may take, in time and in memory."""

from __future__ import annotations

import math
from typing import NamedTuple

MEMORY_BUDGET = 2**30
"""Bytes that one measurement may take beyond what training holds anyway (1 GiB)."""

MAX_ROWS = 24
"""Backward passes of single rows that a measurement in training takes at most. One takes 0.2 to 0.8
training steps (custom functions, batch normalisation, attention; 100 to 1000 points)."""

MAX_POINTS = 512
"""Rows of a term up to which its block is of all its rows."""

TOGETHER = 4
"""Terms of `MAX_POINTS` rows whose blocks are formed whole; of more terms, fewer rows each."""

_COPIES = 6  # of the matrix of all blocks that live at once: blocks, joined, weighted, solved


class Bounds(NamedTuple):
    """What a measurement may take."""

    memory: int = MEMORY_BUDGET  # bytes
    max_rows: int | None = None  # rows taken one by one, of all terms together; None for all

    @property
    def held(self) -> int:
        """Bytes that Jacobians may hold, and as many that other quantities may."""
        return self.memory // 2

    @property
    def temporary(self) -> int:
        """Bytes of temporaries of one contraction or backward pass."""
        return self.memory // 8

    def block_rows(self, max_points: int) -> int:
        """Rows of the blocks of all terms together; blocks and their copies take a quarter."""
        return min(TOGETHER * max_points, math.isqrt(self.memory // 4 // (8 * _COPIES)))


EXACT = Bounds()
"""All rows, within `MEMORY_BUDGET`."""
