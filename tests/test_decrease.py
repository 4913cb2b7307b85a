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

from pinn_ntk import NTK, Term, empirical_ntk, find_terms
from pinn_ntk.analysis.interference import interference
from pinn_ntk.analysis.linearized import linearized_residuals
from pinn_ntk.diagnostics.decrease import Forecast, kept_apart, versions
from pinn_ntk.graph.terms.term_loss import TermLoss
from pinn_ntk.kernel import jacobian
from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.jacobian import FactoredJacobian

Loss = Callable[[dict[str, Tensor]], Tensor]

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
        self.net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()

    def residuals(self) -> dict[str, Tensor]:
        x = X.clone().requires_grad_()
        (u_x,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        return {"pde": u_xx - torch.sin(3 * X), "bc": self.net(ENDS)}


def squares(r: dict[str, Tensor]) -> Tensor:
    return r["pde"].square().mean() + 10 * r["bc"].square().sum()


LOSSES: dict[str, Loss] = {
    "squares": squares,
    "pointwise": lambda r: (
        (torch.rand_like(r["pde"]) * r["pde"] ** 2).mean() + r["bc"].square().mean()
    ),
    "abs": lambda r: l1_loss(r["pde"], torch.zeros_like(r["pde"])) + 3 * r["bc"].abs().sum(),
    "huber": lambda r: (
        huber_loss(r["pde"], torch.zeros_like(r["pde"]), delta=0.4) + r["bc"].square().sum()
    ),
    "norm": lambda r: 2 * r["pde"].norm() + r["bc"].square().mean(),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4, line_search_fn="strong_wolfe"),
}


def parts(model: Any, loss: Loss) -> tuple[NTK, dict[str, Term], dict[str, Tensor]]:
    """Kernel, terms and residuals of the terms of a loss."""
    terms = find_terms(loss(model.residuals()))
    residuals = {name: term.residual for name, term in terms.items()}
    return empirical_ntk(residuals, model), terms, residuals


def named(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def forecast_of_step(
    model: Any, loss: Loss, move: Callable[[], None]
) -> tuple[Forecast, dict[str, Tensor]]:
    """The forecast of a step, and the residuals after it."""
    kernel, terms, residuals = parts(model, loss)
    losses = {name: TermLoss.of(term) for name, term in terms.items()}
    start = named(model)
    move()
    step = {name: p - start[name] for name, p in named(model).items()}
    after = find_terms(loss(model.residuals()))
    forecast = Forecast.of(kernel, losses, residuals, step)
    return forecast, {name: term.residual for name, term in after.items()}


def descend(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model.residuals())
        value.backward()
        return value

    optimizer.step(closure)


# --- One term of the loss


@pytest.mark.parametrize("name", LOSSES)
def test_the_terms_make_up_the_loss_and_their_slopes_its_gradient(name: str):
    residuals = Network().residuals()
    value = LOSSES[name](residuals)
    terms = find_terms(value, names=["pde", "bc"])
    losses = {n: TermLoss.of(term) for n, term in terms.items()}
    total = sum(losses[n].value(term.residual) for n, term in terms.items())
    assert total == pytest.approx(value.item(), rel=1e-13)
    for n, residual in residuals.items():
        (gradient,) = torch.autograd.grad(value, residual, retain_graph=True)
        torch.testing.assert_close(losses[n].slope(residual), gradient.flatten())


def test_a_factor_multiplies_value_and_slope():
    terms = find_terms(squares(Network().residuals()), names=["pde", "bc"])
    r = terms["bc"].residual
    plain, weighted = (TermLoss.of(terms["bc"], factor) for factor in (1.0, 0.5))
    assert weighted.value(r) == pytest.approx(plain.value(r) / 2, rel=1e-15)
    torch.testing.assert_close(weighted.slope(r), plain.slope(r) / 2)


def test_on_other_points_a_uniform_weight_is_spread_over_them():
    terms = find_terms(squares(Network().residuals()), names=["pde", "bc"])
    other = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    loss = TermLoss.elsewhere(terms["bc"], 3.0, 5)  # 10 * sum of 2 = 20 * mean; times 3
    assert loss is not None
    assert loss.value(other) == pytest.approx(3 * 20 * 11, rel=1e-14)
    torch.testing.assert_close(loss.slope(other), (24 * other).double())


@pytest.mark.parametrize("name", ["pointwise", "norm"])
def test_weights_of_points_are_not_carried_over_to_others(name: str):
    terms = find_terms(LOSSES[name](Network().residuals()))
    assert TermLoss.elsewhere(terms["term_0"], 1.0, 4) is None
    assert TermLoss.elsewhere(terms["term_1"], 1.0, 4) is not None


# --- Residuals after a step


@pytest.mark.parametrize("chunk", [1, 4, 4096])
def test_linearised_residuals_are_those_of_the_jacobian(
    chunk: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jacobian, "CHUNK", chunk)
    model = Network()
    residuals = model.residuals()
    kernel = empirical_ntk(residuals, model)
    step = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    flat = torch.cat([change.flatten() for change in step.values()])
    for name, after in linearized_residuals(kernel, residuals, step).items():
        rows = [
            torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for p, g in zip(
                        model.parameters(),
                        torch.autograd.grad(
                            r, list(model.parameters()), retain_graph=True, allow_unused=True
                        ),
                        strict=True,
                    )
                ]
            )
            for r in residuals[name].flatten()
        ]
        expected = residuals[name].detach().flatten() + torch.stack(rows) @ flat
        torch.testing.assert_close(after, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 4096])
def test_interference_is_the_same_in_chunks_and_that_of_parameter_gradients(
    chunk: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jacobian, "CHUNK", chunk)
    model = Network()
    kernel, terms, residuals = parts(model, squares)
    slopes = {name: TermLoss.of(term).slope(term.residual) for name, term in terms.items()}
    found = interference(kernel, slopes)
    gradients = []
    for term in terms.values():
        loss = (term.weight * term.residual.square()).sum()
        every = torch.autograd.grad(
            loss, list(model.parameters()), retain_graph=True, materialize_grads=True
        )
        gradients.append(torch.cat([g.flatten() for g in every]))
    stacked = torch.stack(gradients)
    torch.testing.assert_close(found.matrix, stacked @ stacked.mT, rtol=1e-12, atol=1e-12)
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


# --- The ratio


LINE_SEARCH_STUCK = ("abs", "lbfgs")
"""It ends where it begins, at a kink."""


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        (name, optimizer)
        for name in ("squares", "abs", "huber", "norm")
        for optimizer in OPTIMIZERS
        if (name, optimizer) != LINE_SEARCH_STUCK
    ],
)
def test_a_model_linear_in_its_parameters_does_what_is_predicted(name: str, optimizer: str):
    model = Polynomial()
    stepper = OPTIMIZERS[optimizer](model.parameters())
    descend(model, LOSSES[name], stepper)  # so that momentum and memory have a past
    loss_before = LOSSES[name](model.residuals()).item()
    forecast, after = forecast_of_step(
        model, LOSSES[name], lambda: descend(model, LOSSES[name], stepper)
    )
    assert forecast.loss == pytest.approx(loss_before, rel=1e-13)
    fallen = loss_before - LOSSES[name](model.residuals()).item()
    assert abs(fallen) > 1e-4 * loss_before
    assert forecast.predicted == pytest.approx(fallen, rel=1e-9)
    assert forecast.ratio(after) == pytest.approx(1, abs=1e-9)


def gradient_step(model: nn.Module, lr: float) -> float:
    """A step of gradient descent; returns |dL/dtheta|^2 before it."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(squares(model.residuals()), parameters)
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            p.sub_(lr * g)
    return sum(float(g.square().sum()) for g in gradients)


def test_for_small_steps_the_loss_decays_as_the_gradient_squared():
    """Predicted is lr |dL/dtheta|^2 to first order: the error falls as lr, the loss as lr."""
    errors = []
    for lr in (1e-4, 1e-5, 1e-6):
        torch.manual_seed(3)
        model, squared = Network(), []

        def move(model: nn.Module = model, lr: float = lr, squared: list[float] = squared) -> None:
            squared.append(gradient_step(model, lr))

        forecast, _ = forecast_of_step(model, squares, move)
        errors.append(abs(forecast.predicted / (lr * squared[0]) - 1))
    assert errors[0] > 1e-6
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.05)
    assert errors[2] == pytest.approx(errors[0] / 100, rel=0.05)


def test_the_ratio_tends_to_one_as_the_step_shrinks_and_leaves_it_for_large_ones():
    gaps = []
    for lr in (0.05, 1e-3, 5e-4, 2.5e-4):
        torch.manual_seed(3)
        model = Network()
        forecast, after = forecast_of_step(
            model, squares, lambda m=model, lr=lr: gradient_step(m, lr)
        )
        ratio = forecast.ratio(after)
        assert ratio is not None
        gaps.append(abs(ratio - 1))
    assert gaps[0] > 0.1
    assert gaps[2] == pytest.approx(gaps[1] / 2, rel=0.1)
    assert gaps[3] == pytest.approx(gaps[1] / 4, rel=0.1)


def test_a_step_uphill_has_a_prediction_below_zero_and_a_ratio_of_one():
    model = Polynomial()
    forecast, after = forecast_of_step(model, squares, lambda: gradient_step(model, -0.01))
    assert forecast.predicted < 0
    assert forecast.ratio(after) == pytest.approx(1, abs=1e-9)


# --- No number


def test_no_ratio_without_a_step():
    forecast, after = forecast_of_step(Network(), squares, lambda: None)
    assert (forecast.predicted, forecast.ratio(after)) == (0, None)


@pytest.mark.parametrize(("unit", "known"), [(1e-9, True), (1e-6, False)])
def test_no_ratio_below_the_rounding_noise(unit: float, known: bool):
    model = Network()
    forecast, after = forecast_of_step(model, squares, lambda: gradient_step(model, 1e-8))
    assert 1e-7 < forecast.predicted / forecast.loss < 1e-5
    assert (replace(forecast, unit=unit).ratio(after) is not None) == known


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_ratio_where_training_has_diverged(bad: float):
    model = Network()
    forecast, after = forecast_of_step(model, squares, lambda: gradient_step(model, 1e-3))
    assert forecast.ratio(after) is not None
    assert forecast.ratio({**after, "term_1": torch.full((2, 1), bad)}) is None


def test_no_ratio_of_other_terms_or_shapes():
    model = Network()
    forecast, after = forecast_of_step(model, squares, lambda: gradient_step(model, 1e-3))
    pde, bc = after.values()
    assert forecast.ratio({"term_0": pde}) is None
    assert forecast.ratio({"term_0": pde[1:], "term_1": bc}) is None
    extra = {"term_0": pde, "term_1": bc, "new": pde}
    assert forecast.ratio(extra) == forecast.ratio(after)


def test_residuals_without_a_loss_are_predicted_to_stay():
    model = Polynomial()
    with torch.no_grad():
        model.c.zero_()
    zero = {"bc": model.residuals()["bc"]}
    kernel = empirical_ntk(zero, model)
    losses = {"bc": TermLoss.of(find_terms(zero["bc"].square().mean())["term_0"])}
    forecast = Forecast.of(kernel, losses, zero, {"c": torch.zeros(5, dtype=torch.float64)})
    assert (forecast.loss, forecast.predicted, forecast.ratio(zero)) == (0, 0, None)


def test_versions_tell_points_overwritten_in_place_and_nothing_else():
    points = X.clone()
    net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    kernel = empirical_ntk({"data": net(points)}, net)
    kernel = kept_apart(kernel, net.parameters())
    before = versions(kernel)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)  # copied, where it was a factor
    kernel.spectrum("data")
    assert versions(kernel) == before
    points.zero_()
    assert versions(kernel) != before
