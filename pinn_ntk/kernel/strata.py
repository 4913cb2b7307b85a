"""Rows drawn from neighbouring strata, so that every part of a batch is represented."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_rows(rows: int, max_points: int, seed: int) -> Tensor:
    """One row drawn from each of ``max_points`` neighbouring strata of equal size, in order.

    Batches are often joined of parts (initial line, two boundaries), or repeat points at a fixed
    distance. Strata keep every part represented as to its size, which a plain draw does not; the
    draw within them keeps from hitting a period, which every k-th row may. The generator is seeded
    by itself; the indices are int64 on the CPU.

    >>> stratified_rows(6, 3, seed=0).tolist()  # one of 0 1, one of 2 3, one of 4 5
    [1, 3, 4]
    >>> stratified_rows(2, 3, seed=0).tolist()
    [0, 1]
    """
    if max_points < 1:
        raise ValueError(f"max_points is {max_points}; expected 1 or more rows to keep.")
    if rows <= max_points:
        return torch.arange(rows)
    edges = torch.arange(max_points + 1) * rows // max_points
    sizes = edges.diff()
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(max_points, generator=generator, dtype=torch.float64)
    return edges[:-1] + (place * sizes).long()
