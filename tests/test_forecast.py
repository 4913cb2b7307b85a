"""The decrease of the loss that the kernel predicts for a step, against the step itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss, l1_loss

from pinn_ntk import NTK, FactoredJacobian, empirical_ntk, find_terms, look
from pinn_ntk.analysis.decrease import Forecast
from pinn_ntk.analysis.interference import interference
from pinn_ntk.analysis.linearized import linearized_residuals
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.graph.terms.term_loss import TermLoss
from pinn_ntk.kernel import jacobian
from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.memory import kept_apart, versions
from tests.kernels import mlp

X = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
ENDS = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


class Polynomial(nn.Module):
    """u = sum_k c_k x^k, linear in its parameters; u'' = sin(3x), u(-1) = u(1) = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.powers = torch.arange(5.0, dtype=torch.float64)
        self.c = nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64))

    def residuals(self) -> dict[str, Tensor]:
        k = self.powers[2:]
        curved = (X ** (k - 2) * (k * (k - 1))) @ self.c[2:]
        return {"pde": curved - torch.sin(3 * X[:, 0]), "bc": ENDS**self.powers @ self.c}


class Network(nn.Module):
    """The same problem for a small tanh network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(1, 6, 1)

    def residuals(self) -> dict[str, Tensor]:
        x = X.clone().requires_grad_()
        (u_x,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        return {"pde": u_xx - torch.sin(3 * X), "bc": self.net(ENDS)}


Loss = Callable[[dict[str, Tensor]], Tensor]
LOSSES: dict[str, Loss] = {
    "squares": lambda r: r["pde"].square().mean() + 10 * r["bc"].square().sum(),
    "pointwise": lambda r: (
        (torch.rand_like(r["pde"]) * r["pde"] ** 2).mean() + r["bc"].square().mean()
    ),
    "abs": lambda r: l1_loss(r["pde"], torch.zeros_like(r["pde"])) + 3 * r["bc"].abs().sum(),
    "huber": lambda r: (
        huber_loss(r["pde"], torch.zeros_like(r["pde"]), delta=0.4) + r["bc"].square().sum()
    ),
    "norm": lambda r: 2 * r["pde"].norm() + r["bc"].square().mean(),
}
SQUARES = LOSSES["squares"]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4, line_search_fn="strong_wolfe"),
}
NAMES = ["pde", "bc"]


def forecast_of(
    model: Any, move: Callable[[], Any], loss: Loss = SQUARES
) -> tuple[Forecast, dict[str, Tensor]]:
    """The forecast of a step, and the residuals after it."""
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    before = look(loss(model.residuals()), model, names=NAMES)
    kernel, losses = kept_apart(before.kernel, model.parameters()), before.losses
    slopes = before.slopes
    residuals = {name: r.detach().clone() for name, r in before.residuals.items()}
    move()
    step = {name: p.detach() - start[name] for name, p in model.named_parameters()}
    return Forecast.of(kernel, losses, residuals, slopes, step), model.residuals()


def descend(model: Any, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model.residuals())
        value.backward()
        return value

    optimizer.step(closure)


def stepped(lr: float, model: Any = None) -> tuple[Forecast, dict[str, Tensor], float]:
    """Forecast of a step of gradient descent, residuals after it, |dL/dtheta|^2 before."""
    torch.manual_seed(3)
    model = model or Network()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(SQUARES(model.residuals()), parameters)

    @torch.no_grad()
    def move() -> None:
        for p, g in zip(parameters, gradients, strict=True):
            p.sub_(lr * g)

    forecast, after = forecast_of(model, move)
    return forecast, after, sum(float(g.square().sum()) for g in gradients)


@pytest.mark.parametrize("name", LOSSES)
def test_the_terms_make_up_the_loss_and_their_slopes_its_gradient(name: str):
    residuals = Network().residuals()
    value = LOSSES[name](residuals)
    terms = find_terms(value, names=NAMES)
    losses = {n: TermLoss.of(term) for n, term in terms.items()}
    total = sum(losses[n].value(term.residual) for n, term in terms.items())
    assert total == pytest.approx(value.item(), rel=1e-13)
    for n, residual in residuals.items():
        (gradient,) = torch.autograd.grad(value, residual, retain_graph=True)
        torch.testing.assert_close(losses[n].slope(residual), gradient.flatten())


@pytest.mark.parametrize("chunk", [1, 4, 4096])
def test_linearised_residuals_and_interference_are_those_of_the_jacobian(
    chunk: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jacobian, "CHUNK", chunk)
    model = Network()
    step = look(SQUARES(model.residuals()), model, names=NAMES)
    kernel, residuals, slopes = step.kernel, step.residuals, step.slopes
    move = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    flat = torch.cat([change.flatten() for change in move.values()])
    J = {n: reference_jacobian(r, list(model.parameters())) for n, r in residuals.items()}
    for name, after in linearized_residuals(kernel, residuals, move).items():
        expected = residuals[name].detach().flatten() + J[name] @ flat
        torch.testing.assert_close(after, expected, rtol=1e-12, atol=1e-12)
    found = interference(kernel, slopes)
    gradients = torch.stack([J[name].mT @ slopes[name] for name in NAMES])
    torch.testing.assert_close(found.matrix, gradients @ gradients.mT, rtol=1e-12, atol=1e-12)
    assert found.terms == kernel.terms == tuple(residuals)
    monkeypatch.undo()
    torch.testing.assert_close(found.matrix, interference(kernel, slopes).matrix)


@pytest.mark.parametrize("factor", ["left", "right", "dense"])
def test_a_kernel_kept_apart_outlives_its_parameters(factor: str):
    """Rows of J that are a parameter itself, seen through a view, as in r = W x a."""
    W, other = torch.randn(6, 4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    view = W[2:]
    factors: dict[str, Factor] = {
        "left": {"w": Outer((view,), (other,))},
        "right": {"w": Outer((other,), (view,))},
        "dense": {"w": Dense(view)},
    }[factor]
    kernel = NTK({"pde": FactoredJacobian(factors, {"w": factors["w"].numel}, 4)})
    before = kernel.jacobian("pde").dense()
    kept, shared = kept_apart(kernel, [W]), kept_apart(kernel, [torch.ones(3)])
    W.mul_(2)
    assert torch.equal(kept.jacobian("pde").dense(), before)
    torch.testing.assert_close(shared.jacobian("pde").dense(), 2 * before)
    assert kept.jacobian("pde").sizes == kernel.jacobian("pde").sizes


def test_versions_tell_points_overwritten_in_place_and_nothing_else():
    points, net = X.clone(), mlp(1, 6, 1)
    kernel = kept_apart(empirical_ntk({"data": net(points)}, net), net.parameters())
    before = versions(kernel)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)  # copied, where it was a factor
    kernel.spectrum("data")
    assert versions(kernel) == before
    points.zero_()
    assert versions(kernel) != before


STUCK = ("abs", "lbfgs")
"""Its line search ends where it begins, at a kink."""


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [(n, o) for n in ("squares", "abs", "huber", "norm") for o in OPTIMIZERS if (n, o) != STUCK],
)
def test_a_model_linear_in_its_parameters_does_what_is_predicted(name: str, optimizer: str):
    model, loss = Polynomial(), LOSSES[name]
    stepper = OPTIMIZERS[optimizer](model.parameters())
    descend(model, loss, stepper)  # so that momentum and memory have a past
    loss_before = loss(model.residuals()).item()
    forecast, after = forecast_of(model, lambda: descend(model, loss, stepper), loss)
    assert forecast.loss == pytest.approx(loss_before, rel=1e-13)
    fallen = loss_before - loss(model.residuals()).item()
    assert abs(fallen) > 1e-4 * loss_before
    assert forecast.predicted == pytest.approx(fallen, rel=1e-9)
    assert forecast.ratio(after) == pytest.approx(1, abs=1e-9)


def test_for_small_steps_the_loss_decays_as_the_gradient_squared():
    """Predicted is lr |dL/dtheta|^2 to first order: the error falls as lr, the loss as lr."""
    errors = []
    for lr in (1e-4, 1e-5, 1e-6):
        forecast, _, squared = stepped(lr)
        errors.append(abs(forecast.predicted / (lr * squared) - 1))
        assert forecast.slope == pytest.approx(-lr * squared, rel=1e-10)
    assert errors[0] > 1e-6
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.05)
    assert errors[2] == pytest.approx(errors[0] / 100, rel=0.05)


def test_the_ratio_tends_to_one_as_the_step_shrinks_and_leaves_it_for_large_ones():
    gaps = []
    for lr in (0.05, 1e-3, 5e-4, 2.5e-4):
        forecast, after, _ = stepped(lr)
        gaps.append(abs(forecast.ratio(after) - 1))
    assert gaps[0] > 0.1
    assert gaps[2] == pytest.approx(gaps[1] / 2, rel=0.1)
    assert gaps[3] == pytest.approx(gaps[1] / 4, rel=0.1)


def test_a_step_uphill_has_a_prediction_below_zero_and_a_ratio_of_one():
    forecast, after, _ = stepped(-0.01, Polynomial())
    assert forecast.predicted < 0
    assert forecast.ratio(after) == pytest.approx(1, abs=1e-9)


def test_no_ratio_without_a_step():
    forecast, after = forecast_of(Network(), lambda: None)
    assert (forecast.predicted, forecast.ratio(after)) == (0, None)


@pytest.mark.parametrize(("unit", "known"), [(1e-9, True), (1e-6, False)])
def test_no_ratio_below_the_rounding_noise(unit: float, known: bool):
    forecast, after, _ = stepped(1e-8)
    assert 1e-7 < forecast.predicted / forecast.loss < 1e-5
    assert (replace(forecast, unit=unit).ratio(after) is not None) == known


def test_no_ratio_of_other_terms_or_shapes_or_where_training_has_diverged():
    forecast, after, _ = stepped(1e-3)
    pde, bc = after.values()
    assert forecast.ratio({"pde": pde}) is None
    assert forecast.ratio({"pde": pde[1:], "bc": bc}) is None
    for bad in (math.nan, math.inf):
        assert forecast.ratio({"pde": pde, "bc": torch.full((2, 1), bad)}) is None
    assert forecast.ratio({"pde": pde, "bc": bc, "new": pde}) == forecast.ratio(after) is not None


def test_residuals_without_a_loss_are_predicted_to_stay():
    model = Polynomial()
    with torch.no_grad():
        model.c.zero_()
    zero = look(model.residuals()["bc"].square().mean(), model, names=["bc"])
    move = {"c": torch.zeros(5, dtype=torch.float64)}
    forecast = Forecast.of(zero.kernel, zero.losses, zero.residuals, zero.slopes, move)
    assert (forecast.loss, forecast.predicted, forecast.ratio(zero.residuals)) == (0, 0, None)
