"""Factors of one parameter below one another, of several residuals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Outer
from pinn_ntk.kernel.parts import Part, Parts, RowFactor


def stacked(parts: Sequence[RowFactor | None], rows: Sequence[int]) -> RowFactor:
    """Factors of one parameter below one another, None for zero rows; some are not None."""
    present = [part for part in parts if part is not None]
    outers = [part for part in present if isinstance(part, Outer)]
    if len(outers) == len(present):
        return _outer(parts, rows, max(len(part.left) for part in outers))
    if all(isinstance(part, Dense) for part in present):
        return Dense(_below([None if part is None else part.rows() for part in parts], rows))
    return Parts(tuple(_shifted(parts, rows)), sum(rows))


def _outer(parts: Sequence[RowFactor | None], rows: Sequence[int], sites: int) -> Outer:
    pairs = [[_site(part, site) for part in parts] for site in range(sites)]
    left = tuple(_below([left for left, _ in of_site], rows) for of_site in pairs)
    return Outer(left, tuple(_below([right for _, right in of_site], rows) for of_site in pairs))


def _site(part: RowFactor | None, site: int) -> tuple[Tensor | None, Tensor | None]:
    if not isinstance(part, Outer) or site >= len(part.left):
        return None, None
    return part.left[site], part.right[site]


def _below(parts: Sequence[Tensor | None], rows: Sequence[int]) -> Tensor:
    like = next(part for part in parts if part is not None)
    zeros = (like.new_zeros(count, like.shape[1]) for count in rows)
    filled = zip(parts, zeros, strict=True)
    return torch.cat([zero if part is None else part for part, zero in filled])


def _shifted(parts: Sequence[RowFactor | None], rows: Sequence[int]) -> Iterator[Part]:
    """Each factor a part of its own, or several, at the rows where it stands; nothing is copied."""
    starts = accumulate(rows, initial=0)
    for part, start in zip(parts, starts, strict=False):
        if isinstance(part, Parts):
            for own in part.parts:
                yield Part(own.factor, own.rows + start, own.source, own.scale)
        elif part is not None:
            device = part.tensors[0].device
            yield Part(part, torch.arange(part.count, device=device) + start)
