"""A kernel whose parameters count differently: each block of columns of J is scaled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.jacobian import FactoredJacobian
from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.kernel.parts import Parts, RowFactor
from pinn_ntk.kernel.scaled import Scaled


def scaled_columns(kernel: NTK, scales: Mapping[str, float]) -> NTK:
    """The kernel of the rows J diag(s), where s is one number a parameter; 1 where absent.

    Nothing is differentiated again, and there is no certificate.

    >>> import torch
    >>> from pinn_ntk import empirical_ntk
    >>> a, b = (torch.tensor(1.0, requires_grad=True) for _ in range(2))
    >>> kernel = empirical_ntk((2 * a + b)[None], {"a": a, "b": b}.items())
    >>> float(kernel["residual"]), float(scaled_columns(kernel, {"a": 0.5})["residual"])
    (5.0, 2.0)
    """
    return NTK({term: _scaled(kernel.jacobian(term), scales) for term in kernel.terms})


def _scaled(jacobian: FactoredJacobian, scales: Mapping[str, float]) -> FactoredJacobian:
    names = iter(jacobian.factors)
    return jacobian.with_factors(
        lambda factor: _times(factor, scales.get(next(names), 1.0)),
        jacobian.rows,
        jacobian.sample,
    )


def _times(factor: RowFactor, scale: float) -> RowFactor:
    if scale == 1.0:
        return factor
    if isinstance(factor, Parts):
        parts = (replace(part, factor=_of_one(part.factor, scale)) for part in factor.parts)
        return Parts(tuple(parts), factor.count)
    return _of_one(factor, scale)


def _of_one(factor: Factor, scale: float) -> Factor:
    if isinstance(factor, Dense):
        return Dense(scale * factor.gradients)
    if isinstance(factor, Scaled):
        return Scaled(tuple(site.times(scale) for site in factor.sites), factor.shape)
    return Outer(tuple(scale * left for left in factor.left), factor.right)
