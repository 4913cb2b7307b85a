"""Which rows of a residual may belong to one point: its components, found by trying."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

MAX_COMPONENTS = 256
"""Most entries that one point may have in a residual: each takes a backward pass."""

FEW = 8
"""Components that are looked for among any number of points; more than that only among as many
points at least, since they take two passes each, and row by row takes one for each row."""

MAX_AXES_TRIED = 8  # sets of axes that are tried as component axes
MAX_STENCIL = 4  # points of the largest stencil whose rows are told apart


def partitions(shape: Sequence[int], device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Flat numbers of the rows of a residual, (C, R / C).

    Those of one part may belong to different points. First all rows together and along the axes of
    the residual, then every C-th row for a few small C, as of a stencil that a matrix applies. What
    operations of the graph join is taken apart before (`pieces.py`).
    """
    yield from along_axes(shape, device)
    flat = torch.arange(math.prod(shape), device=device)
    for count in range(2, MAX_STENCIL + 1):
        if len(flat) % count == 0 and len(flat) > count:
            yield flat.view(-1, count).mT


def along_axes(shape: Sequence[int], device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """All rows together, then parts along one axis or several, the fewest first."""
    flat = torch.arange(math.prod(shape), device=device)
    yield flat[None]
    grid = flat.view(tuple(shape))
    axes_sets: list[tuple[int, ...]] = [()]
    for axis, size in enumerate(shape):
        if size > 1:
            axes_sets += [(*axes, axis) for axes in axes_sets]
    parts = {axes: math.prod(shape[axis] for axis in axes) for axes in axes_sets if axes}
    for axes in sorted(parts, key=parts.__getitem__)[:MAX_AXES_TRIED]:
        count = parts[axes]
        if count < len(flat) and count <= min(MAX_COMPONENTS, max(FEW, len(flat) // count)):
            rest = [axis for axis in range(len(shape)) if axis not in axes]
            yield grid.permute([*axes, *rest]).reshape(parts[axes], -1)
