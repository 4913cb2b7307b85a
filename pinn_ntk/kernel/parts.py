"""Row gradients put together from parts: components, joined terms, rows that are repeated.

| symbol | meaning | shape |
| --- | --- | --- |
| R | rows of the residual | |
| F_p | factor of part p | K_p rows |
| rows | rows of the residual that take from part p, each once | (R_p,) |
| source, scale | which row of F_p each of them takes, and times what | (R_p,) |
| J | row gradients of one parameter, J[rows] = sum_p scale F_p[source] | (R, numel) |

A residual (N, C) has a part a component, with the sites of that component alone; (N, 1) - (N,) has
N rows a part, each taken N times. Every product works part by part, at the cost of its K_p rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeAlias

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Factor
from pinn_ntk.kernel.gram import add_gram


@dataclass(frozen=True)
class Part:
    """Rows of a residual that take from one factor; ``source`` None stands for 0, 1, 2, ..."""

    factor: Factor
    rows: Tensor
    source: Tensor | None = None
    scale: Tensor | None = None

    def spread(self, of_factor: Tensor, out: Tensor) -> None:
        """Add values of the factor's rows (K, ...) to those of the residual's, (R, ...)."""
        values = of_factor if self.source is None else of_factor[self.source]
        if self.scale is not None:
            values = values * self.scale.to(values).view(-1, *[1] * (values.ndim - 1))
        out[places(self.rows)] += values

    def gathered(self, vector: Tensor) -> Tensor:
        """Transpose of `spread`: (R,) -> (K,)."""
        values = vector[places(self.rows)]
        if self.scale is not None:
            values = values * self.scale.to(values)
        if self.source is None:
            return values
        return vector.new_zeros(self.factor.count).index_add_(0, self.source, values)

    def at(self, chosen: Tensor, rows: Tensor) -> Part:
        """Only the entries ``chosen`` (k,) of this part, which now stand at ``rows`` (k,)."""
        scale = None if self.scale is None else self.scale[chosen]
        if self.source is None:
            return Part(self.factor.slice(places(chosen)), rows, None, scale)
        source = self.source[chosen]
        if self.factor.count <= len(source):
            return Part(self.factor, rows, source, scale)
        used, source = source.unique(return_inverse=True)
        return Part(self.factor.slice(used), rows, source, scale)


@dataclass(frozen=True)
class Parts:
    """Row gradients of one parameter, a sum of parts; ``count`` is R."""

    parts: tuple[Part, ...]
    count: int

    @property
    def numel(self) -> int:
        """Entries of the parameter."""
        return self.parts[0].factor.numel

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the factors."""
        return self.parts[0].factor.dtype

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All factors."""
        return tuple(tensor for part in self.parts for tensor in part.factor.tensors)

    @property
    def row(self) -> int:
        """Numbers that are kept of a row, on average, as if no row were repeated."""
        numbers = sum(part.factor.row * len(part.rows) for part in self.parts)
        return math.ceil(numbers / max(1, self.count))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Parts:
        """The same with each factor changed."""
        parts = (replace(part, factor=part.factor.mapped(change)) for part in self.parts)
        return Parts(tuple(parts), self.count)

    def to(self, dtype: torch.dtype) -> Parts:
        """The same rows in ``dtype``."""
        return self.mapped(lambda tensor: tensor.to(dtype))

    def slice(self, rows: slice | Tensor) -> Parts:
        """Some rows only."""
        device = self.parts[0].rows.device
        chosen = torch.arange(self.count, device=device)[rows]
        kept = [_taken(part, chosen, self.count) for part in self.parts]
        filled = [part for part in kept if len(part.rows)] or kept[:1]
        return Parts(tuple(filled), len(chosen))

    def rows(self) -> Tensor:
        """Row gradients written out, (R, numel)."""
        return self._spread(lambda factor: factor.rows(), self.numel)

    def diagonal(self, dtype: torch.dtype) -> Tensor:
        """Squared norm of each row gradient, contracted in ``dtype``, (R,)."""
        total = self.added_up(lambda factor: factor.diagonal(dtype))
        covered = torch.cat([part.rows for part in self.parts]).bincount(minlength=1)
        if int(covered.max()) > 1:
            for a, b in combinations(self.parts, 2):
                _add_products(total, a, b)
        return total

    def matvec(self, vector: Tensor) -> Tensor:
        """Row gradients times a flattened parameter, (numel,) -> (R,)."""
        return self._spread(lambda factor: factor.matvec(vector))

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Weighted sum of the row gradients, (R,) -> (numel,)."""
        return sum(
            (part.factor.rmatvec(part.gathered(vector)) for part in self.parts),
            start=vector.new_zeros(self.numel),
        )

    def added_up(self, squares: Callable[[Factor], Tensor]) -> Tensor:
        """Some squares of each part's rows, (K,), added up over the parts, (R,)."""
        scales = (None if part.scale is None else part.scale.square() for part in self.parts)
        parts = tuple(replace(p, scale=s) for p, s in zip(self.parts, scales, strict=True))
        return Parts(parts, self.count)._spread(squares)

    def sizes(self, norms: Callable[[Factor], Tensor]) -> Tensor:
        """Some norms of each part's rows, (K,), added up over the parts, (R,)."""
        scales = (None if part.scale is None else part.scale.abs() for part in self.parts)
        parts = tuple(replace(p, scale=s) for p, s in zip(self.parts, scales, strict=True))
        return Parts(parts, self.count)._spread(norms)

    def _spread(self, value: Callable[[Factor], Tensor], *size: int) -> Tensor:
        found = [value(part.factor) for part in self.parts]
        total = found[0].new_zeros(self.count, *size)
        for part, values in zip(self.parts, found, strict=True):
            part.spread(values, total)
        return total


_TILE = 2**27  # bytes that temporaries of one product take at most
_WRITTEN = 2**18  # entries of row gradients that are written out at a time for their products


RowFactor: TypeAlias = Factor | Parts
"""Row gradients of one parameter."""


def places(rows: Tensor) -> slice | Tensor:
    """The same row numbers (R,) as a slice where they are evenly spaced, which copies nothing."""
    if len(rows) < 2:
        first = int(rows[0]) if len(rows) else 0
        return slice(first, first + len(rows))
    first, step = int(rows[0]), int(rows[1] - rows[0])
    even = step > 0 and bool((rows.diff() == step).all())
    return slice(first, first + step * (len(rows) - 1) + 1, step) if even else rows


def add_block(
    out: Tensor, a: RowFactor, b: RowFactor, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """Add one parameter's share of a kernel block to ``out`` (R_a, R_b), in place, by ``dtype``.

    Temporaries stay below ``budget`` bytes, but for the products of whole factors that are
    repeated. Where ``a is b`` (``same``), the block is symmetric and half the work is enough.
    """
    if not isinstance(a, Parts) and not isinstance(b, Parts):
        add_gram(out, a, b, dtype, budget, same=same)
        return
    ours, theirs = _parts_of(a, out.device), _parts_of(b, out.device)
    for i, part in enumerate(ours):
        for other in theirs[i:] if same else theirs:
            diagonal = same and other is part
            for rows, block in _blocks(part, other, out, budget, same=diagonal):
                _add_at(out, rows, other.rows, block)
                if same and not diagonal:
                    _add_at(out, other.rows, rows, block.mT)


def _parts_of(factor: RowFactor, device: torch.device) -> Sequence[Part]:
    if isinstance(factor, Parts):
        return factor.parts
    return (Part(factor, torch.arange(factor.count, device=device)),)


def _blocks(
    a: Part, b: Part, out: Tensor, budget: int, *, same: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of part ``a`` a few at a time, and their products with part ``b``, (r, R_b)."""
    side = max(1, budget // (2 * out.element_size() * max(1, len(b.rows))))
    if a.source is not None or b.source is not None:
        whole = out.new_zeros(a.factor.count, b.factor.count)
        add_gram(whole, a.factor, b.factor, out.dtype, budget, same=same)
        for chosen in torch.arange(len(a.rows), device=out.device).split(side):
            block = whole[chosen if a.source is None else a.source[chosen]]
            block = block if b.source is None else block[:, b.source]
            yield a.rows[chosen], _scaled(block, a, b, chosen)
        return
    for chosen in torch.arange(len(a.rows), device=out.device).split(side):
        few = len(chosen) < len(a.rows)
        block = out.new_zeros(len(chosen), len(b.rows))
        factor = a.factor.slice(places(chosen)) if few else a.factor
        add_gram(block, factor, b.factor, out.dtype, budget, same=same and not few)
        yield a.rows[chosen], _scaled(block, a, b, chosen)


def _scaled(block: Tensor, a: Part, b: Part, chosen: Tensor) -> Tensor:
    if a.scale is not None:
        block = block * a.scale.to(block)[chosen, None]
    return block if b.scale is None else block * b.scale.to(block)


def _add_at(out: Tensor, rows: Tensor, columns: Tensor, block: Tensor) -> None:
    across, down = places(rows), places(columns)
    if isinstance(across, Tensor) and isinstance(down, Tensor):
        across = across[:, None]
    out[across, down] += block


def _numbers(part: Part, count: int) -> Tensor:
    """Which entry of a part stands at each of ``count`` rows, -1 for none."""
    place = part.rows.new_full((count,), -1)
    place[part.rows] = torch.arange(len(part.rows), device=place.device)
    return place


def _taken(part: Part, chosen: Tensor, count: int) -> Part:
    """What the rows ``chosen`` of all ``count`` take from a part, numbered as they stand there."""
    at = _numbers(part, count)[chosen]
    kept = (at >= 0).nonzero().squeeze(1)
    return part.at(at[kept], kept)


def _add_products(total: Tensor, a: Part, b: Part) -> None:
    """Add 2 <a_i, b_i> where both parts have a row i."""
    first, second = _numbers(a, len(total)), _numbers(b, len(total))
    common = ((first >= 0) & (second >= 0)).nonzero().squeeze(1)
    if not len(common):
        return
    a, b = a.at(first[common], common), b.at(second[common], common)
    inner = _inner(a, b, total.dtype)
    for part in (a, b):
        inner = inner if part.scale is None else inner * part.scale.to(inner)
    total[common] += 2 * inner


def _inner(a: Part, b: Part, dtype: torch.dtype) -> Tensor:
    """Products of the rows that two parts of the same length take from their factors, (R_p,)."""
    every = torch.arange(len(a.rows), device=a.rows.device)
    ours, theirs = (every if part.source is None else part.source for part in (a, b))
    if a.factor.count * b.factor.count <= 2 * len(every):  # few rows, repeated
        each = a.rows.new_zeros(a.factor.count, b.factor.count, dtype=dtype)
        add_gram(each, a.factor, b.factor, dtype, _TILE, same=False)
        return each[ours, theirs]
    found = []
    for some in every.split(1 + _WRITTEN // a.factor.numel):
        left, right = a.factor.slice(places(ours[some])), b.factor.slice(places(theirs[some]))
        found.append((left.to(dtype).rows() * right.to(dtype).rows()).sum(1))
    return torch.cat(found)
