"""How many rows of a residual differ, of very many and without their kernel.

| symbol | meaning | shape |
| --- | --- | --- |
| J_i | gradient of row i, d r_i / d theta | (P,) |
| W_i | its part that belongs to one weight matrix | (m, n) |
| a, b | standard normal numbers, drawn anew for each weight and each of k sketches | (m,), (n,) |
| z_i | sum over the weights of a^T W_i b | (k,) |

Equal rows have equal sketches; of others E[(z_i - z_j)^2] = |J_i - J_j|^2. With W_i a sum of outer
products, all z take k R (m + n) operations a weight, where the kernel takes R^2: few enough to look
at all rows where a measurement keeps some. The global random state is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Dense
from pinn_ntk.kernel.jacobian import CHUNK, FactoredJacobian
from pinn_ntk.kernel.parts import Parts, RowFactor
from pinn_ntk.kernel.tsqr import factor_precision

SKETCHES = 16  # k, so that rows that differ by several times the slack hardly pass for equal

SLACK = 8
"""Rounding units of |J_i| by which sketches of neighbours in a group may differ. Equal points
mostly have equal bits; of layers that do not work row by row some differ by more. Of 5000 random
points on a line, float32 networks had up to 6 % of the neighbours as close as that."""


def distinct_rows(jacobian: FactoredJacobian) -> int:
    """Number of rows of J that the parameters tell apart.

    It is up to some per cent too low in float32, where close points are alike as well. Rows that no
    parameter moves are not taken for repetitions.

    >>> from pinn_ntk import empirical_ntk
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> x = torch.tensor([1.0, 2.0, 3.0, 1.0, 0.0, 0.0])
    >>> distinct_rows(empirical_ntk(w * x, [w]).jacobian("residual"))
    5
    """
    sketches, precision = _sketches(jacobian), factor_precision([jacobian])
    slack = SLACK * precision * sketches.square().mean(1).sqrt()
    moves = slack > SLACK * precision * slack.max()
    sketches, slack, different = sketches[moves], slack[moves], int((~moves).sum())
    groups = torch.zeros_like(slack, dtype=torch.long)
    for sketch in range(SKETCHES):
        groups = _split(groups, sketches[:, sketch], slack)
        several = groups.bincount()[groups] > 1  # a row alone is sorted no more
        different += int((~several).sum())
        sketches, slack, groups = sketches[several], slack[several], groups[several]
    return different + len(groups.unique())


def _sketches(jacobian: FactoredJacobian) -> Tensor:
    """z, (R, k)."""
    generator = torch.Generator().manual_seed(0)

    def normal(size: int) -> Tensor:
        drawn = torch.randn(size, SKETCHES, generator=generator, dtype=jacobian.dtype)
        return drawn.to(jacobian.device)

    total = torch.zeros(jacobian.rows, SKETCHES, dtype=jacobian.dtype, device=jacobian.device)
    for factor in jacobian.factors.values():
        shape = _shape(factor)
        _add_sketches(total, factor, [normal(size) for size in shape])
    return total


def _shape(factor: RowFactor) -> tuple[int, ...]:
    """(m, n) where the rows of a weight are outer products, else (numel,)."""
    if isinstance(factor, Parts):
        return max((_shape(part.factor) for part in factor.parts), key=len)
    return (factor.numel,) if isinstance(factor, Dense) else factor.shape


def _add_sketches(total: Tensor, factor: RowFactor, drawn: Sequence[Tensor]) -> None:
    """Add the products of one parameter's rows with the numbers ``drawn`` for it to z (R, k)."""
    if isinstance(factor, Parts):
        for part in factor.parts:
            own = total.new_zeros(part.factor.count, SKETCHES)
            _add_sketches(own, part.factor, drawn)
            part.spread(own, total)
        return
    columns = drawn[0] if len(drawn) == 1 else drawn[0][:, None] * drawn[1]  # a b^T
    for start in range(0, factor.count, CHUNK):
        few = slice(start, start + CHUNK)
        some = factor.slice(few).to(total.dtype)
        if isinstance(some, Dense) or _shape(some) != tuple(map(len, drawn)):
            total[few] += some.rows() @ columns.reshape(-1, SKETCHES)
        else:
            total[few] += some.bilinear(*drawn)


def _split(groups: Tensor, values: Tensor, slack: Tensor) -> Tensor:
    """Groups cut where the values of neighbours differ by more than the slack, (R,)."""
    order = values.argsort()
    order = order[groups[order].argsort(stable=True)]
    wide = values[order].diff() > torch.maximum(slack[order][1:], slack[order][:-1])
    cut = wide | (groups[order].diff() > 0)
    split = torch.zeros_like(groups)
    split[order[1:]] = cut.cumsum(0)
    return split
