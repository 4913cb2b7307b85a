"""One parameter's share of a kernel block: inner products of all rows of two factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Factor, Outer, tiles
from pinn_ntk.kernel.scaled import Scaled, Site
from pinn_ntk.kernel.scaled_gram import add_products, pairwise_cost

_PASS_COST = 16  # multiply-adds that one elementwise pass over a product costs
_WORTH_HALVING = 2**22  # entries of written-out rows from which half of a block is left out
_LEAST_TILE = 32  # rows, below which writing them out costs more than half of their products


def add_gram(
    out: Tensor, a: Factor, b: Factor, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """Add one parameter's share of a kernel block to ``out`` (R_a, R_b), in place, by ``dtype``.

    The cheaper of two formulas is taken: sum_st (L_s L_t'^T) * (X_s X_t'^T), which never forms a
    row gradient, or one product of written-out rows. Both work in tiles, so that temporaries stay
    below ``budget`` bytes. Where ``a is b`` (``same``), the block is symmetric and half the work is
    enough.
    """
    if isinstance(a, Dense) and isinstance(b, Dense):
        _add_dense(out, a, b, dtype, budget, same=same)
        return
    pairs = _factored(a, b, same=same)
    if pairs is None:
        _add_written_out(out, a, b, dtype, budget, same=same)
        return
    room = budget // out.element_size()
    side = max(1, min(math.isqrt(room // 4), room // max(1, 2 * max(a.row, b.row))))
    for rows in tiles(out.shape[0], side):
        for cols in tiles(out.shape[1], side):
            if same and cols.start < rows.start:
                continue
            diagonal = same and cols.start == rows.start
            wide = pairs[0].slice(rows).to(dtype)
            other = wide if diagonal else pairs[1].slice(cols).to(dtype)
            _add_pairs(out[rows, cols], wide, other, same=diagonal)
    if same:
        _mirror(out, side)


def _mirror(out: Tensor, side: int) -> None:
    """Fill the lower half of a symmetric block, by tiles, from the upper one."""
    for rows in tiles(out.shape[0], side):
        out[rows.stop :, rows] = out[rows, rows.stop :].mT


def _halves(out: Tensor, numel: int, side: int, *, same: bool) -> int:
    """Rows of a tile, so that half of a large symmetric block is left out."""
    if same and len(out) * numel > _WORTH_HALVING:
        return min(side, max(_LEAST_TILE, math.ceil(len(out) / 4)))
    return side


def _add_written_out(
    out: Tensor, a: Factor, b: Factor, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    numbers = 3 * a.numel + max(a.row, b.row)  # of a row: written out on both sides, and a site
    side = max(1, budget // max(1, numbers * out.element_size()))
    side = _halves(out, a.numel, side, same=same)
    for rows in tiles(out.shape[0], side):
        left = a.slice(rows).to(dtype).rows()
        for cols in tiles(out.shape[1], side):
            if same and cols.start < rows.start:
                continue
            right = left if same and cols == rows else b.slice(cols).to(dtype).rows()
            product = left @ right.mT
            out[rows, cols] += product
            if same and cols != rows:
                out[cols, rows] += product.mT


_Pairs: TypeAlias = tuple[Outer | Scaled, Outer | Scaled]


def _factored(a: Factor, b: Factor, *, same: bool) -> _Pairs | None:
    """Both as pairs of one kind whose inner products are cheaper than those of written-out rows."""
    if isinstance(a, Dense) or isinstance(b, Dense) or a.shape != b.shape:
        return None
    if isinstance(a, Outer) and isinstance(b, Outer):
        return (a, b) if _outer_is_cheaper(a, b, same=same) else None
    first = a.scaled() if isinstance(a, Outer) else a
    second = b.scaled() if isinstance(b, Outer) else b
    if pairwise_cost(first, second) >= first.numel:
        return None
    return first, second


def _add_pairs(out: Tensor, a: Outer | Scaled, b: Outer | Scaled, *, same: bool) -> None:
    if isinstance(a, Outer) and isinstance(b, Outer):
        _add_outer(out, a, b, same=same)
    elif isinstance(a, Scaled) and isinstance(b, Scaled):

        def add_outer(target: Tensor, left: Sequence[Site], right: Sequence[Site]) -> None:
            _add_outer(target, _as_outer(left), _as_outer(right), same=same)

        add_products(out, a, b, add_outer)


def _as_outer(sites: Sequence[Site]) -> Outer:
    pairs = [(s.left, s.right) for s in sites if s.left is not None and s.right is not None]
    return Outer(tuple(left for left, _ in pairs), tuple(right for _, right in pairs))


def _add_dense(
    out: Tensor, a: Dense, b: Dense, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """The same by columns, each of which is read once."""
    width = max(1, budget // max(1, sum(out.shape) * out.element_size()))
    side = _halves(out, a.numel, max(1, len(out)), same=same)
    for columns in tiles(a.numel, width):
        left = a.gradients[:, columns].to(dtype)
        right = left if same else b.gradients[:, columns].to(dtype)
        for rows in tiles(len(out), side):
            first = rows.start if same else 0
            out[rows, first:] += left[rows] @ right[first:].mT
    if same and side < len(out):
        _mirror(out, side)


def _outer_is_cheaper(a: Outer, b: Outer, *, same: bool) -> bool:
    sites = len(a.left)
    pairs = sites * (sites + 1) // 2 if same else sites * len(b.left)
    return pairs * (sum(a.shape) + _PASS_COST) < a.numel


def _add_outer(out: Tensor, a: Outer, b: Outer, *, same: bool) -> None:
    if not same:
        for left, right in zip(a.left, a.right, strict=True):
            for other_left, other_right in zip(b.left, b.right, strict=True):
                out.addcmul_(left @ other_left.mT, right @ other_right.mT)
        return
    half = torch.zeros_like(out)  # pairs s < t; their mirror images are added at the end
    for s, (left, right) in enumerate(zip(a.left, a.right, strict=True)):
        out.addcmul_(left @ left.mT, right @ right.mT)
        for t in range(s + 1, len(a.left)):
            half.addcmul_(left @ a.left[t].mT, right @ a.right[t].mT)
    out += half
    out += half.mT
