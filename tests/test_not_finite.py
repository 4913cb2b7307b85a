"""Finite losses whose gradient is not: the term and the operation are named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import find_terms
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.errors import GradientError
from tests.networks import stack
from tests.operators import grad, points
from tests.pinn import Pinn, fit, told_once

pytestmark = pytest.mark.usefixtures("float64")

Residual = Callable[[nn.Module, Tensor], Tensor]


def from_first(net: nn.Module, x: Tensor) -> Tensor:
    """Zero at the first point, where it has a gradient."""
    u = net(x)
    return u - u[:1].detach()


SINGULAR: dict[str, tuple[Residual, str]] = {
    # residual at the points 0, 1/4, ... 1 -> the operation that makes NaN of its gradient
    "root of a square": (lambda net, x: (from_first(net, x) ** 2).sqrt(), "sqrt (SqrtBackward0)"),
    "root": (lambda net, x: from_first(net, x).abs() ** 0.5, "a power (PowBackward0)"),
    "length": (
        lambda net, x: torch.sqrt(from_first(net, x).square().sum(1)),
        "sqrt (SqrtBackward0)",
    ),
    "where": (
        lambda net, x: torch.where(x > 0, net(x) / x, net(x)),
        "a division, or the derivative of a root, (DivBackward0)",
    ),
    "cut off": (
        lambda net, x: (grad(net(x), x) / x)[x[:, 0] > 0],
        "a division, or the derivative of a root, (DivBackward0)",
    ),
    "derivative by a radius, cut off": (
        lambda net, x: grad(net((x**2).sqrt()), x)[1:],
        "a product with nan or inf (MulBackward0)",
    ),
    "logarithm, cut off": (
        lambda net, x: torch.where(x > 0, from_first(net, x).abs().log(), net(x)),
        "log (LogBackward0)",
    ),
    "arccosine": (lambda net, x: torch.acos(1 + from_first(net, x) ** 2 * 0), "acos (AcosBackward"),
}


def loss_of(residual: Tensor, net: nn.Module) -> Tensor:
    return residual.square().mean() + (net(points(7, 1)) - 1).square().mean()


@pytest.mark.parametrize("case", SINGULAR)
def test_term_and_operation_are_named(case: str):
    residual, operation = SINGULAR[case]
    net, x = stack([1, 4, 1]), torch.linspace(0, 1, 5)[:, None].requires_grad_()
    loss = loss_of(residual(net, x), net)
    assert bool(loss.isfinite())
    with pytest.raises(GradientError) as raised:
        find_terms(loss, names=["pde", "bc"])
    said = str(raised.value)
    assert said.startswith("the loss is finite, but the gradient of 'pde' is not: ")
    assert operation in said
    assert "before the network" in said


def test_every_term_that_is_concerned_is_named():
    net, x = stack([1, 4, 1]), torch.linspace(0, 1, 5)[:, None].requires_grad_()
    root = (from_first(net, x) ** 2).sqrt()
    with pytest.raises(GradientError, match="gradient of 'a' and 'c' is not"):
        find_terms(
            root.square().sum() + (net(x) - 1).square().sum() + (root - 1).square().sum(),
            names=["a", "b", "c"],
        )


SOUND: dict[str, Residual] = {
    "mask before the network": lambda net, x: grad(net(x), x)[1:] / x[1:],
    "where twice": lambda net, x: torch.where(x > 0, net(x) / torch.where(x > 0, x, 1), net(x)),
    "eps": lambda net, x: (from_first(net, x) ** 2 + 1e-12).sqrt(),
    "nan at the points alone": lambda net, x: net((x**2).sqrt()),
}


@pytest.mark.parametrize("case", SOUND)
def test_what_trains_is_not_refused(case: str):
    net, x = stack([1, 4, 1]), torch.linspace(0, 1, 5)[:, None].requires_grad_()
    find_terms(loss_of(SOUND[case](net, x), net))


class Singular(Pinn):
    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().residuals(batch)
        pde = found["pde"] - found["pde"][:1].detach()
        return found | {"pde": pde.square().sqrt()}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter in self.parameters():
            parameter.grad.nan_to_num_()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [NTKMonitor, NTKBalancer])
def test_callbacks_say_it_once_and_training_goes_on(kind: type):
    with told_once(r"GradientError: the loss is finite, but the gradient of 'pde' is not: sqrt \("):
        run = fit(Singular(), kind(every_n_steps=2), steps=4)
    assert run.global_step == 4


class Diverging(Pinn):
    """The residual of pde is nan from the second step on."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().residuals(batch)
        return found | {"pde": found["pde"] / (self.global_step < 1)}


def test_the_monitor_tells_once_that_a_residual_is_not_finite():
    said = "NTKMonitor: at step 1 the residual of pde holds NaN or inf and is not measured: its"
    with told_once(said):
        fit(Diverging(), NTKMonitor(every_n_steps=1), steps=4)
