"""The recursion from layer to layer of a perceptron of infinite width, on Taylor series.

| symbol | meaning |
| --- | --- |
| sigma_w, sigma_b | standard deviations of the NTK parametrisation, one pair a layer |
| Sigma^l(x, x') | covariance of the pre-activations of layer l, the NNGP kernel of its output |
| Theta^l(x, x') | neural tangent kernel of the network that ends with layer l |
| E_ij | E[phi^(i)(u) phi^(j)(v)] for (u, v) of covariance Sigma^l; see `pinn_ntk.limit.duals` |

Sigma^1 = sigma_w^2 x.x' / n_0 + sigma_b^2, Theta^1 = Sigma^1, and for every further layer
Sigma^(l+1) = sigma_w^2 E_00 + sigma_b^2, Theta^(l+1) = Sigma^(l+1) + sigma_w^2 Theta^l E_11.

Source: Jacot, Gabriel, Hongler 2018, proposition 1 and theorem 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.limit.duals import Dual
from pinn_ntk.limit.jets import IndexSet, compose, compose_own, multiply

Points = tuple[Tensor, Tensor]
"""x (N, n_0) and x' (N', n_0)."""

Sets = tuple[IndexSet, IndexSet]
"""A and B: the multi-indices kept in the first and in the second point."""


@dataclass
class Series:
    """Series of q (A, N), q' (B, N'), c and Theta (A, B, N, N') at one layer."""

    q: Tensor
    other: Tensor
    c: Tensor
    theta: Tensor


def last_layer(
    points: Points, sets: Sets, stds: Sequence[tuple[float, float]], dual: Dual
) -> Series:
    """Series of a network with (sigma_w, sigma_b) a layer, at points (N, n_0) and (N', n_0)."""
    layer = _first(points, sets, *stds[0])
    for weight_std, bias_std in stds[1:]:
        layer = _next(layer, sets, weight_std, bias_std, dual)
    return layer


def _next(layer: Series, sets: Sets, weight_std: float, bias_std: float, dual: Dual) -> Series:
    a, b = sets[0].degree, sets[1].degree
    orders = 2 * a + b + 2, a + 2 * b + 2
    expectations = dual.pairs(layer.q[0], layer.c[0, 0], layer.other[0], orders)
    variances = layer.q, layer.other
    covariance, slopes = (
        weight_std**2 * compose(expectations, shift, variances, layer.c, sets) for shift in (0, 1)
    )
    covariance[0, 0] += bias_std**2
    q, other = (
        weight_std**2 * _own(variance, kept, dual)
        for variance, kept in zip(variances, sets, strict=True)
    )
    q[0] += bias_std**2
    other[0] += bias_std**2
    theta = covariance + multiply(layer.theta, slopes, *sets)
    return Series(q, other, covariance, theta)


def _own(variance: Tensor, indices: IndexSet, dual: Dual) -> Tensor:
    """E[phi(u)^2] as a series: its k-th derivative in q is E[(phi^2)^(2k)] / 2^k."""
    table = dual.own(variance[0], 2 * indices.degree + 1)
    rows = [
        sum(math.comb(2 * k, j) * table[j, 2 * k - j] for j in range(2 * k + 1)) / 2**k
        for k in range(indices.degree + 1)
    ]
    return compose_own(torch.stack(rows), variance, indices)


def _first(points: Points, sets: Sets, weight_std: float, bias_std: float) -> Series:
    """Sigma^1 = sigma_w^2 (x + s).(x' + t) / n_0 + sigma_b^2, a polynomial in s and t."""
    scale = weight_std**2 / points[0].shape[1]
    x, other = map(_coordinates, points, sets)
    q = scale * sets[0].multiply(x, x).sum(-1)
    partner = scale * sets[1].multiply(other, other).sum(-1)
    c = scale * torch.einsum("ani,bmi->abnm", x, other)
    c[0, 0] = scale * (x[0, :, None] * other[0]).sum(-1)  # to the last bit q where x is x'
    for value in (q[0], partner[0], c[0, 0]):
        value.add_(bias_std**2)
    return Series(q, partner, c, c.clone())


def _coordinates(x: Tensor, indices: IndexSet) -> Tensor:
    """x + s as a series, (A, N, n_0)."""
    series = x.new_zeros(len(indices), *x.shape)
    series[0] = x
    for i in range(x.shape[1]):
        unit = tuple(int(i == j) for j in range(x.shape[1]))
        if unit in indices:
            series[indices.place(unit), :, i] = 1
    return series
