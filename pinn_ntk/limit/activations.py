"""What is recognised as an activation, with its derivatives.

Those known by name are in `pinn_ntk.limit.derivatives`. Any other smooth elementwise function is
differentiated by autograd, order after order.
"""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pinn_ntk.limit.derivatives import DERIVATIVES, Derivatives, rectifier


@dataclass(frozen=True)
class Activation:
    """An elementwise function with its derivatives phi^(0) ... phi^(orders - 1), (orders, ...).

    Closed forms are found by the ``name``. ``slope`` is that of LeakyReLU below 0, 0 for ReLU.
    """

    name: str
    derivatives: Derivatives
    smooth: bool = True
    slope: float = 0.0


Like = str | Activation | nn.Module | type[nn.Module] | Callable[[Tensor], Tensor]
"""What names an activation: a name, a module, its class, or a function of tensors."""


def activation(like: Like) -> Activation:
    """The activation that a name, a module, its class or a function stands for.

    Names are "tanh", "sigmoid", "silu", "gelu", "softplus", "erf", "sin", "cos", "identity" and
    "relu"; the torch function of that name will do, and so will ``nn.Tanh`` and its kind or an
    instance. Of any other smooth elementwise function, or module without parameters, a copy without
    hooks is run.

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


_KNOWN = {name: Activation(name, of) for name, of in DERIVATIVES.items()}
_KNOWN["relu"] = Activation("relu", rectifier(0.0), smooth=False)

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
        return Activation("relu", rectifier(slope), smooth=False, slope=slope)
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
