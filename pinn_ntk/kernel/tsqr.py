"""Triangular factor of a Jacobian that is never formed as a whole.

| symbol | meaning | shape |
| --- | --- | --- |
| J | d r / d theta, the rows of all terms below one another | (R, P) |
| B | some columns of J, written out | (R, p) |
| T | triangular factor of J^T = Q T, so that K = J J^T = T^T T | (min(R, P), R) |

T <- qr([T; B^T]) for one B after the other gives T; a B has R to 4 R columns, as the memory budget
allows, so that about 5 (R + p) R numbers are held, 10 R^2 at least. The singular
values of T are those of J, with an error near eps sigma_max: K itself would keep their squares
with an error near eps sigma_max^2, that is half as many decades.

Source: Demmel, Grigori, Hoemmen, Langou 2012, SIAM Journal on Scientific Computing 34, A206: the
sequential TSQR, with Q discarded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Factor
from pinn_ntk.kernel.jacobian import FactoredJacobian, check_same_parameters
from pinn_ntk.kernel.parts import Parts, RowFactor

_COPIES = 5  # arrays of the size of [T; B^T] that live at once: pieces, stacks, two inside qr
_ENOUGH = 4  # columns of B, in units of R, beyond which larger blocks are no faster


def triangular_factor(jacobians: Sequence[FactoredJacobian], scale: Tensor | None = None) -> Tensor:
    """T of the Jacobians below one another, upper triangular (min(R, P), R): T^T T is their kernel.

    It has the dtype of contractions; the signs of its rows are arbitrary. ``scale`` (R,)
    multiplies the rows of J.
    """
    first = jacobians[0]
    check_same_parameters(jacobians)
    rows = sum(jacobian.rows for jacobian in jacobians)
    triangle = torch.zeros(0, rows, dtype=first.dtype, device=first.device)
    for columns in _stacks(_pieces(jacobians, _width(first, rows)), _width(first, rows)):
        block = columns if scale is None else columns * scale.to(columns)[:, None]
        triangle = torch.linalg.qr(torch.cat([triangle, block.mT]), mode="r").R
    return triangle


def factor_precision(jacobians: Sequence[FactoredJacobian]) -> float:
    """Rounding unit of the coarsest numbers that go into products of the Jacobians."""
    factors = [factor for jacobian in jacobians for factor in jacobian.factors.values()]
    dtypes = {factor.dtype for factor in factors} | {jacobian.dtype for jacobian in jacobians}
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _width(jacobian: FactoredJacobian, rows: int) -> int:
    """Columns of J to write out at a time: within the budget, but R at least."""
    rows, item = max(rows, 1), torch.finfo(jacobian.dtype).bits // 8
    affordable = jacobian.memory_budget // (_COPIES * item * rows) - rows
    return max(rows, min(_ENOUGH * rows, affordable))


def _stacks(pieces: Iterator[Tensor], width: int) -> Iterator[Tensor]:
    """Pieces joined side by side while they have no more than ``width`` columns together."""
    held: list[Tensor] = []
    for piece in pieces:
        if held and sum(p.shape[1] for p in held) + piece.shape[1] > width:
            yield torch.cat(held, 1)
            held = []
        held.append(piece)
    if held:
        yield torch.cat(held, 1)


def _pieces(jacobians: Sequence[FactoredJacobian], width: int) -> Iterator[Tensor]:
    """J a few columns at a time, (R, at most ``width``); parameters without effect left out."""
    for name, size in jacobians[0].sizes.items():
        factors = [jacobian.factors.get(name) for jacobian in jacobians]
        present = [factor for factor in factors if factor is not None]
        if not present:
            continue
        for columns in _ranges(size, max(map(_row_length, present)), width):
            pairs = zip(jacobians, factors, strict=True)
            yield torch.cat([_columns(jacobian, factor, columns) for jacobian, factor in pairs])


def _row_length(factor: RowFactor) -> int:
    """Entries in a row of the weight; 1 where all rows of J are written out."""
    if isinstance(factor, Parts):
        return max(_row_length(part.factor) for part in factor.parts)
    return 1 if isinstance(factor, Dense) else factor.shape[1]


def _ranges(size: int, row: int, width: int) -> Iterator[slice]:
    """Ranges of a flattened weight of rows of length ``row``: whole rows, or parts of one row."""
    step = max(width // row, 1) * row
    for start in range(0, size, step):
        stop = min(start + step, size)
        for begin in range(start, stop, min(step, width)):
            yield slice(begin, min(begin + width, stop))


def _columns(jacobian: FactoredJacobian, factor: RowFactor | None, columns: slice) -> Tensor:
    """Some columns of one parameter, written out, (R_a, p)."""
    if factor is not None and not isinstance(factor, Parts):
        return _written_out(factor, columns, jacobian.dtype)
    shape = jacobian.rows, columns.stop - columns.start
    total = torch.zeros(shape, dtype=jacobian.dtype, device=jacobian.device)
    for part in factor.parts if factor is not None else ():
        part.spread(_written_out(part.factor, columns, jacobian.dtype), total)
    return total


def _written_out(factor: Factor, columns: slice, dtype: torch.dtype) -> Tensor:
    if isinstance(factor, Dense):
        return factor.gradients[:, columns].to(dtype)
    row = factor.shape[1]
    first, last = columns.start // row, math.ceil(columns.stop / row)
    inside = slice(columns.start - first * row, columns.stop - first * row)
    if last - first == 1:
        return factor.columns(first, last, inside).to(dtype).rows()
    return factor.columns(first, last, slice(None)).to(dtype).rows()[:, inside]
