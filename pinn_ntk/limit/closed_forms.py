"""Closed forms of the expectations E_ij of `duals`: sine, cosine, erf and rectifiers.

Sources: Williams 1997, "Computing with infinite networks" (erf); Cho and Saul 2009, "Kernel methods
for deep learning" (rectifiers, arc-cosine kernels of order 0 and 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from pinn_ntk.limit.activations import Activation
from pinn_ntk.limit.duals import ROUNDING, Dual, HermiteDual

Entry = Callable[[int, int, Tensor, Tensor, Tensor], Tensor]
"""(i, j, q, c, q') -> E_ij, all of shapes that broadcast."""


class ClosedDual:
    """E_ij by a formula for each entry; see `pinn_ntk.limit.duals.Dual`."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def pairs(self, q: Tensor, c: Tensor, other: Tensor, orders: tuple[int, int]) -> Tensor:
        """See `Dual`."""
        return self._table(orders, q[:, None], c, other)

    def own(self, q: Tensor, orders: int) -> Tensor:
        """See `Dual`."""
        return self._table((orders, orders), q, q, q)

    def error(self, q: Tensor, orders: int) -> Tensor:
        """Rounding, for every i."""
        return torch.full((orders,), ROUNDING, dtype=q.dtype, device=q.device)

    def _table(self, orders: tuple[int, int], *at: Tensor) -> Tensor:
        rows = [[self.entry(i, j, *at) for j in range(orders[1])] for i in range(orders[0])]
        return torch.stack([torch.stack(row) for row in rows])


def dual(activation: Activation) -> Dual:
    """The expectations of an activation: in closed form where there is one."""
    if activation.name == "relu":
        return ClosedDual(_rectifier(activation.slope))
    if activation.name in _CLOSED:
        return ClosedDual(_CLOSED[activation.name])
    return HermiteDual(activation)


def _sine(i: int, j: int, q: Tensor, c: Tensor, other: Tensor) -> Tensor:
    """E[sin(u + i pi/2) sin(v + j pi/2)] = exp(-(q + q') / 2) times +-sinh(c), +-cosh(c) or 0."""
    if (i + j) % 2:
        return torch.zeros_like(q * c * other)
    scale = torch.exp(c.abs() - (q + other) / 2)
    fall = torch.exp(-2 * c.abs())
    sinh, cosh = c.sign() * -torch.expm1(-2 * c.abs()) / 2, (1 + fall) / 2
    sign = 1 - 2 * ((i // 2 + j // 2) % 2)
    return sign * scale * (sinh if i % 2 == 0 else cosh)


def _cosine(i: int, j: int, q: Tensor, c: Tensor, other: Tensor) -> Tensor:
    return _sine(i + 1, j + 1, q, c, other)


def _erf(i: int, j: int, q: Tensor, c: Tensor, other: Tensor) -> Tensor:
    if i == 0 and j > 0:
        return _erf(j, i, other, c, q)
    if (i + j) % 2:
        return torch.zeros_like(q * c * other)
    determinant = 1 + 2 * q + 2 * other + 4 * (q * other - c**2).clamp(min=0)
    if i == 0:
        return 2 / math.pi * torch.atan2(2 * c, determinant.sqrt())
    if j == 0:  # Stein's lemma on phi^(i)(u) = -2 (u phi^(i-1) + (i - 2) phi^(i-2))
        below = (i - 2) * _erf(i - 2, 0, q, c, other) if i > 2 else 0.0
        return -2 * (c * _erf(i - 1, 1, q, c, other) + below) / (1 + 2 * q)
    # E[phi'(u) phi'(v) H_(i-1)(u) H_(j-1)(v)]: Hermite moments of a Gaussian that is narrower.
    own = (q + 2 * (q * other - c**2).clamp(min=0)) / determinant
    theirs = (other + 2 * (q * other - c**2).clamp(min=0)) / determinant
    total = torch.zeros_like(determinant)
    for k, m, n, coefficient in _hermite_moments(i - 1, j - 1):
        shared = coefficient * (c / determinant) ** k
        total = total + shared * (2 * own - 1) ** m * (2 * theirs - 1) ** n
    return 4 / math.pi * determinant.rsqrt() * total


@cache
def _hermite_moments(i: int, j: int) -> list[tuple[int, int, int, float]]:
    """(k, m, n, coefficient) of (E x y)^k (2 E x^2 - 1)^m (2 E y^2 - 1)^n in E[H_i(x) H_j(y)]."""
    # E exp(2 s x - s^2 + 2 t y - t^2) = exp(s^2 (2 E x^2 - 1) + t^2 (2 E y^2 - 1) + 4 s t E x y)
    factorial = math.factorial
    moments = []
    for k in range(i % 2, min(i, j) + 1, 2):
        m, n = (i - k) // 2, (j - k) // 2
        below = factorial(k) * factorial(m) * factorial(n)
        moments.append((k, m, n, factorial(i) * factorial(j) * 4**k / below))
    return moments


def _rectifier(slope: float) -> Entry:
    """max(u, 0) + slope min(u, 0) = (1 - slope) max(u, 0) + slope u."""

    def entry(i: int, j: int, q: Tensor, c: Tensor, other: Tensor) -> Tensor:
        if i != j or i > 1:
            return torch.full_like(q * c * other, math.nan)  # not needed where it is allowed
        squared = q * other - c**2
        above = torch.where(squared > 8e-16 * q * other, squared, 0.0)
        sine = above.sqrt()  # sqrt(q q') sin(angle)
        angle = torch.atan2(sine, c)
        bent, mixed = (1 - slope) ** 2, slope * (1 - slope)
        if i == 1:
            return bent * (math.pi - angle) / (2 * math.pi) + mixed + slope**2
        return bent * (sine + (math.pi - angle) * c) / (2 * math.pi) + (mixed + slope**2) * c

    return entry


_CLOSED: dict[str, Entry] = {"sin": _sine, "cos": _cosine, "erf": _erf}
