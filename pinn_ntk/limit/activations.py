"""Activations with all their derivatives phi^(k), exact up to rounding.

Hyperbolic ones are polynomials in t = tanh(u) and s = 1 - t^2 with integer coefficients, those
built on the Gaussian are Hermite polynomials times exp(-u^2) or exp(-u^2 / 2). Any other smooth
elementwise function is differentiated by autograd, order after order.
"""

from __future__ import annotations

import copy
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Derivatives = Callable[[Tensor, int], Tensor]
"""(u, orders) -> phi^(0) ... phi^(orders - 1) at u, (orders, *u.shape)."""


@dataclass(frozen=True)
class Activation:
    """An elementwise function with its derivatives.

    Attributes:
        name: What it is called in messages; closed forms are found by it.
        derivatives: (u, orders) -> phi^(0) ... phi^(orders - 1) at u, (orders, ...).
        smooth: Whether it has derivatives of all orders.
        slope: Of LeakyReLU, its slope below 0; 0 for ReLU; unused otherwise.

    Example:
        >>> u = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> activation("sin").derivatives(u, 3)[:, 0].tolist()  # sin, cos, -sin at 0
        [0.0, 1.0, -0.0]
    """

    name: str
    derivatives: Derivatives
    smooth: bool = True
    slope: float = 0.0


Like = str | Activation | nn.Module | type[nn.Module] | Callable[[Tensor], Tensor]
"""What names an activation: a name, a module, its class, or a function of tensors."""


def activation(like: Like) -> Activation:
    """The activation that a name, a module, its class or a function stands for.

    Args:
        like: "tanh", "sigmoid", "silu", "gelu", "softplus", "erf", "sin", "cos", "identity" or
            "relu"; the torch function of that name; ``nn.Tanh`` and its kind or an instance; an
            `Activation`; or any other smooth elementwise function or module without parameters, of
            which a copy without hooks is run.

    Returns:
        The activation with its derivatives.

    Raises:
        ValueError: The name is not known, the module has parameters, is not smooth and has no
            closed form here, or is not elementwise.

    Example:
        >>> activation(nn.Tanh()).name, activation(torch.erf).name, activation("relu").smooth
        ('tanh', 'erf', False)
    """
    if isinstance(like, Activation):
        return like
    if isinstance(like, str):
        if like not in _KNOWN:
            raise ValueError(
                f"no activation is called {like!r}; known are {sorted(_KNOWN)}. Give a function or "
                "a module for another one."
            )
        return _KNOWN[like]
    made: Any = like() if isinstance(like, type) else like
    if isinstance(made, nn.Module):
        return _of_module(made)
    name = _FUNCTIONS.get(made)
    return _KNOWN[name] if name else _generic(made, getattr(made, "__name__", "function"))


# --- Derivatives, each (u, orders) -> (orders, *u.shape)


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
    return values * _powers(0.5, orders, u) / 2


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


def _rectifier(slope: float) -> Derivatives:
    def derivatives(u: Tensor, orders: int) -> Tensor:
        step = torch.where(u > 0, 1.0, slope).to(u)
        if orders > 2:
            raise ValueError(f"a rectifier has no second derivative, asked for order {orders - 1}.")
        return torch.stack([step * u, step][:orders])

    return derivatives


def _powers(base: float, orders: int, like: Tensor) -> Tensor:
    """base^k, k < orders, shaped to multiply derivatives at ``like``."""
    return _column([base**k for k in range(orders)], like)


def _column(values: Any, like: Tensor) -> Tensor:
    return torch.tensor(list(values), dtype=like.dtype, device=like.device).reshape(
        -1, *[1] * like.ndim
    )


# --- Recognition

_KNOWN = {
    "tanh": Activation("tanh", _tanh),
    "sigmoid": Activation("sigmoid", _sigmoid),
    "silu": Activation("silu", _times_u(_sigmoid)),
    "gelu": Activation("gelu", _times_u(_normal_cdf)),
    "softplus": Activation("softplus", _softplus),
    "erf": Activation("erf", _erf),
    "sin": Activation("sin", _trigonometric(0)),
    "cos": Activation("cos", _trigonometric(1)),
    "identity": Activation("identity", _identity),
    "relu": Activation("relu", _rectifier(0.0), smooth=False),
}

_FUNCTIONS: dict[Any, str] = {
    function: name
    for name in _KNOWN
    for space in (torch, torch.special, nn.functional)
    if (function := getattr(space, name, None)) is not None and not isinstance(function, type)
}

_MODULES: dict[type[nn.Module], str] = {
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
    nn.Identity: "identity",
    nn.ReLU: "relu",
}

_SMOOTH = (nn.GELU, nn.LogSigmoid, nn.Mish, nn.Softplus, nn.Tanhshrink)
"""Modules of torch that have derivatives of all orders, besides those known."""


def _of_module(module: nn.Module) -> Activation:
    if type(module) in _MODULES:
        return _KNOWN[_MODULES[type(module)]]
    if isinstance(module, nn.LeakyReLU):
        slope = float(module.negative_slope)
        return Activation("relu", _rectifier(slope), smooth=False, slope=slope)
    if isinstance(module, nn.GELU) and module.approximate == "none":
        return _KNOWN["gelu"]
    if isinstance(module, nn.Softplus) and module.beta == 1:
        return _KNOWN["softplus"]
    if next(module.parameters(), None) is not None:
        raise ValueError(
            f"{module} has parameters; expected an activation without. The limit kernel of a "
            "network with trained activations is not known here."
        )
    if type(module).__module__.startswith("torch.nn.") and not isinstance(module, _SMOOTH):
        raise ValueError(
            f"{module} is not a smooth elementwise function and has no closed form here; known "
            f"are {sorted(_KNOWN)}, LeakyReLU and {[smooth.__name__ for smooth in _SMOOTH]}."
        )
    return _generic(_bare_copy(module).forward, type(module).__name__)


def _bare_copy(module: nn.Module) -> nn.Module:
    """Without hooks; what its calls count or keep stays in the copy."""
    hooks = [
        value
        for part in module.modules()
        for name, value in vars(part).items()
        if name.endswith("_hooks") and isinstance(value, dict)
    ]
    return copy.deepcopy(module, {id(value): OrderedDict() for value in hooks})


@contextmanager
def _random_states_kept() -> Iterator[None]:
    states = np.random.get_state(), random.getstate()  # noqa: NPY002 - the user's own state
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        random.setstate(states[1])


def _generic(function: Callable[[Tensor], Tensor], name: str) -> Activation:
    """Any smooth elementwise function, differentiated by autograd."""
    probe = torch.linspace(-2.0, 2.0, 7, dtype=torch.float64)
    with _random_states_kept():
        values = function(probe)
        again = torch.cat([function(u[None]) for u in probe]) if values.shape == (7,) else None
    if again is None or not torch.allclose(values, again, rtol=1e-12, atol=1e-14):
        raise ValueError(
            f"{name} is not an elementwise function: seven numbers, taken together and one by one, "
            "gave different values. Dropout and normalisation layers have no limit kernel here."
        )

    def derivatives(u: Tensor, orders: int) -> Tensor:
        with torch.enable_grad():
            u = u.detach().clone().requires_grad_()
            values = [function(u)]
            for _ in range(orders - 1):
                values.append(_derivative(values[-1], u))
        return torch.stack(values).detach()

    return Activation(name, derivatives)


def _derivative(values: Tensor, u: Tensor) -> Tensor:
    if not values.requires_grad:  # a constant
        return torch.zeros_like(u)
    (slope,) = torch.autograd.grad(values.sum(), u, create_graph=True, materialize_grads=True)
    return slope
