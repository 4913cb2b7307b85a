"""Operations that lay the entries of a weight out anew: views, transposes, slices, joins, flips.

They are recognised by numbering the entries of the result: the vector-Jacobian product carries the
numbers back to the entries of the operand that these were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pinn_ntk.graph.jacobian.sums import from_sites, sites_of
from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.scaled import Scaled, Site

EXACT = {torch.float64: 2**53, torch.float32: 2**24, torch.float16: 2**11, torch.bfloat16: 2**8}
"""Whole numbers up to which every one is a number of that dtype."""
_Kept = tuple[Tensor, Tensor]  # numbers of rows (columns), and whether there is one


def laid_out(
    vjp: Callable[[Tensor], Tensor], out: torch.Size, operand: torch.Size, factor: Factor
) -> Factor | None:
    """The factor of the operand, if every entry of the result is one of its entries, or nothing."""
    source = _sources(vjp, out, factor.tensors[0])
    if source is None:
        return None
    if isinstance(factor, Dense):
        return Dense(_taken(factor.gradients, source.flatten()))
    for shape in _matrices(operand, factor.shape):
        for turned in (False, True):
            grid = source.reshape(shape)
            kept = _rows_and_columns(grid.mT if turned else grid, factor.shape[1])
            if kept is not None:
                sites = [_rearranged(site, *kept) for site in sites_of(factor)]
                made = [site.transposed() for site in sites] if turned else sites
                return from_sites(made, shape)
    turned_blocks = _turned_blocks(source, factor)
    if turned_blocks is not None:
        return turned_blocks
    if math.prod(operand) <= max(factor.shape):
        return _entries(factor, source.flatten())
    return None


def _sources(vjp: Callable[[Tensor], Tensor], out: torch.Size, like: Tensor) -> Tensor | None:
    """Number of the entry of the result that each entry of the operand is, -1 for none."""
    count = out.numel()
    dtype = torch.float64
    numbers = torch.arange(1, count + 1, dtype=dtype, device=like.device)
    generator = torch.Generator().manual_seed(0x1A1D)
    order = torch.randperm(count, generator=generator).to(like.device)
    if count >= EXACT.get(like.dtype, 0):
        return None
    found = vjp(numbers.to(like.dtype)).to(dtype)
    source = found.round().long() - 1
    if not bool(((source >= -1) & (source < count)).all()):
        return None
    again = vjp(numbers[order].to(like.dtype)).to(dtype)
    expected = torch.where(source < 0, 0.0, numbers[order][source.clamp(0)])
    exact = torch.equal(found, found.round()) and torch.equal(again, expected)
    return source if exact else None


def _matrices(operand: torch.Size, shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Ways to see the operand as a matrix: its axes parted in two; a vector as its result is."""
    if len(operand) == 1 and operand.numel() == math.prod(shape):
        yield shape
    for split in range(1, len(operand)):
        yield operand[:split].numel(), operand[split:].numel()


def _rows_and_columns(source: Tensor, width: int) -> tuple[_Kept, _Kept] | None:
    """Which row and column of a result of ``width`` columns each row and column is."""
    valid = source >= 0
    rows, columns = valid.any(1), valid.any(0)
    if not torch.equal(valid, rows[:, None] & columns[None, :]) or not bool(rows.any()):
        return None
    first_row, first_column = int(rows.nonzero()[0]), int(columns.nonzero()[0])
    row, column = source[:, first_column] // width, source[first_row] % width
    expected = row[:, None] * width + column[None, :]
    if not torch.equal(torch.where(valid, expected, -1), source):
        return None
    return (row, rows), (column, columns)


def _rearranged(site: Site, rows: _Kept, columns: _Kept) -> Site:
    left, right, matrix = site
    if left is not None:
        left = _taken(left, torch.where(rows[1], rows[0], -1))
    if right is not None:
        right = _taken(right, torch.where(columns[1], columns[0], -1))
    if matrix is not None:
        matrix = matrix[rows[0].clamp(0)][:, columns[0].clamp(0)]
        matrix = torch.where(rows[1][:, None] & columns[1][None, :], matrix, 0)
    return Site(left, right, matrix)


def _turned_blocks(source: Tensor, factor: Outer | Scaled) -> Factor | None:
    """Stacked matrices that are each transposed, if every row takes one of them alone."""
    wide = [size for size in source.shape if size != 1]
    if len(wide) != 3 or factor.shape != (wide[0] * wide[2], wide[1]):
        return None
    count, rows, columns = wide
    inner = torch.arange(source.numel(), device=source.device).view(count, columns, rows).mT
    if not torch.equal(source.reshape(inner.shape), inner):
        return None
    made = []
    for left, right, matrix in sites_of(factor):
        if left is None or right is None or matrix is not None:
            return None
        blocks = left.view(-1, count, columns)
        taken = (blocks != 0).any(2).to(left.dtype)
        if bool((taken.sum(1) > 1).any()):
            return None
        made.append(Site((taken[:, :, None] * right[:, None, :]).flatten(1), blocks.sum(1)))
    return from_sites(made, (count * rows, columns))


def _taken(tensor: Tensor, columns: Tensor) -> Tensor:
    """Columns of a tensor by number, zeros for -1; the tensor itself where that is all of it."""
    if len(columns) == tensor.shape[1]:
        everything = torch.arange(len(columns), device=columns.device)
        if torch.equal(columns, everything):
            return tensor
    picked = tensor[:, columns.clamp(0)]
    return picked if bool((columns >= 0).all()) else torch.where(columns >= 0, picked, 0)


def _entries(factor: Factor, source: Tensor) -> Dense:
    """Some entries of the row gradients alone, such as the diagonal of a matrix."""
    assert not isinstance(factor, Dense)
    width, total = factor.shape[1], None
    for left, right, matrix in sites_of(factor):
        row, column = source.clamp(0) // width, source.clamp(0) % width
        parts = [x for x in (left,) if x is not None]
        part = parts[0][:, row] if parts else torch.ones((), dtype=factor.tensors[0].dtype)
        if right is not None:
            part = part * right[:, column]
        if matrix is not None:
            part = part * matrix[row, column]
        total = part if total is None else total + part
    assert total is not None
    return Dense(torch.where(source >= 0, total, 0))
