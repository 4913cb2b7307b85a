"""Derivatives phi^(k) of the activations known by name, exact up to rounding.

Hyperbolic ones are polynomials in t = tanh(u) and s = 1 - t^2 with integer coefficients, those
built on the Gaussian are Hermite polynomials times exp(-u^2) or exp(-u^2 / 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

Derivatives = Callable[[Tensor, int], Tensor]
"""(u, orders) -> phi^(0) ... phi^(orders - 1) at u, (orders, *u.shape)."""


@lru_cache(maxsize=1)
def _tanh_polynomials() -> list[list[int]]:
    """Coefficients in s of p_k: tanh^(k) = p_k(s) for odd k, t p_k(s) for even k."""
    # d/du p(s) = t (-2 s p') and d/du (t r(s)) = s r - 2 s (1 - s) r', with s = 1 - tanh(u)^2.
    polynomials = [[1]]
    for k in range(40):
        p = polynomials[-1]
        slope = [n * coefficient for n, coefficient in enumerate(p)]  # s p'
        if k % 2:
            polynomials.append([-2 * n for n in slope])
            continue
        raised = [0] * (len(p) + 1)
        for n, (coefficient, rise) in enumerate(zip(p, slope, strict=True)):
            raised[n] -= 2 * rise
            raised[n + 1] += coefficient + 2 * rise
        polynomials.append(raised)
    return polynomials


def _tanh(u: Tensor, orders: int) -> Tensor:
    tail = torch.exp(-2 * u.abs())
    s, t = 4 * tail / (1 + tail) ** 2, torch.tanh(u)
    values = []
    for k, polynomial in enumerate(_tanh_polynomials()[:orders]):
        value = torch.zeros_like(u)
        for coefficient in reversed(polynomial):
            value = value * s + coefficient
        values.append(value if k % 2 else t * value)
    return torch.stack(values)


def _sigmoid(u: Tensor, orders: int) -> Tensor:
    values = _tanh(u / 2, orders)
    values[0] = 2 * torch.sigmoid(u)
    return values * _column([0.5**k for k in range(orders)], u) / 2


def _softplus(u: Tensor, orders: int) -> Tensor:
    value = torch.logaddexp(u, torch.zeros_like(u))[None]
    return torch.cat([value, _sigmoid(u, orders - 1)]) if orders > 1 else value


def _times_u(of: Derivatives) -> Derivatives:
    """(u f)^(k) = u f^(k) + k f^(k-1)."""

    def derivatives(u: Tensor, orders: int) -> Tensor:
        factor = of(u, orders)
        values = u * factor
        values[1:] += _column(range(1, orders), u) * factor[:-1]
        return values

    return derivatives


def _gaussian(u: Tensor, orders: int, curvature: float) -> Tensor:
    """Derivatives of exp(-curvature u^2 / 2): f^(k+1) = -curvature (u f^(k) + k f^(k-1))."""
    values = [torch.exp(-curvature / 2 * u**2)]
    for k in range(orders - 1):
        below = k * values[k - 1] if k else torch.zeros_like(u)
        values.append(-curvature * (u * values[k] + below))
    return torch.stack(values[:orders]) if orders else u.new_empty(0, *u.shape)


def _erf(u: Tensor, orders: int) -> Tensor:
    slopes = _gaussian(u, orders - 1, 2.0) * (2 / math.sqrt(math.pi))
    return torch.cat([torch.erf(u)[None], slopes])


def _normal_cdf(u: Tensor, orders: int) -> Tensor:
    densities = _gaussian(u, orders - 1, 1.0) / math.sqrt(2 * math.pi)
    return torch.cat([torch.special.ndtr(u)[None], densities])


def _trigonometric(shift: int) -> Derivatives:
    """Sine with its phase shifted by ``shift`` quarters of a turn."""

    def derivatives(u: Tensor, orders: int) -> Tensor:
        sine, cosine = torch.sin(u), torch.cos(u)
        turn = [sine, cosine, -sine, -cosine]
        return torch.stack([turn[(k + shift) % 4] for k in range(orders)])

    return derivatives


def _identity(u: Tensor, orders: int) -> Tensor:
    values = u.new_zeros(orders, *u.shape)
    values[0] = u
    values[1:2] = 1
    return values


def rectifier(slope: float) -> Derivatives:
    """max(u, 0) + slope min(u, 0), which has one derivative only."""

    def derivatives(u: Tensor, orders: int) -> Tensor:
        step = torch.where(u > 0, 1.0, slope).to(u)
        if orders > 2:
            raise ValueError(f"a rectifier has no second derivative, asked for order {orders - 1}.")
        return torch.stack([step * u, step][:orders])

    return derivatives


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """Numbers shaped to multiply derivatives at ``like``."""
    return like.new_tensor(values).reshape(-1, *[1] * like.ndim)


DERIVATIVES: dict[str, Derivatives] = {
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "silu": _times_u(_sigmoid),
    "gelu": _times_u(_normal_cdf),
    "softplus": _softplus,
    "erf": _erf,
    "sin": _trigonometric(0),
    "cos": _trigonometric(1),
    "identity": _identity,
}
"""Name -> (u, orders) -> derivatives, of those that have all of them."""
