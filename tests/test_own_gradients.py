"""Steps that take their gradients themselves, as surgery on gradients and Jacobian descent do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pinn_ntk import LossWeights
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import fit, same, told_once
from tests.zoo import Manual, Noted, assert_series, assert_traces, compare, make, series, train

STEPS = [0, 2, 4]


class Surgery(Noted):
    """A gradient a term; what they have against each other is projected out (PCGrad)."""

    taps = False
    moves = "lightning"

    def __init__(self, moves: str = "lightning", taps: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False
        self.moves, self.taps = moves, taps

    def gradients(self, losses: dict[str, Tensor]) -> list[Tensor]:
        params = list(self.parameters())
        found = []
        for loss in losses.values():
            own = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)
            found.append(torch.cat([g.flatten() for g in own]))
        return found

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        residuals = self.residuals(batch)
        self.note(residuals)
        losses = self.losses(self.tapped(residuals))
        self.log_losses(losses, batch_idx)
        a, b = self.gradients(losses)
        rest = torch.dot(a, b).clamp(max=0.0)
        total = a + b - rest * (a / a.dot(a) + b / b.dot(b))
        self.move(total.split([p.numel() for p in self.parameters()]))

    def move(self, gradients: tuple[Tensor, ...]) -> None:
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            if self.moves == "by_hand":
                parameter.data -= 0.001 * gradient.view_as(parameter)
            parameter.grad = gradient.view_as(parameter)
        if self.moves != "by_hand":
            self.optimizers(use_pl_optimizer=self.moves == "lightning").step()


class TappedOneByOne(Surgery):
    """Each residual is tapped just before its gradient is taken, which frees the graph."""

    def gradients(self, losses: dict[str, Tensor]) -> list[Tensor]:
        batch = {n: p.clone() for n, p in self.points.items()}
        found = []
        for name in losses:
            loss = self.losses(self.tapped({name: self.residuals(batch)[name]}))[name]
            own = torch.autograd.grad(loss, list(self.parameters()), materialize_grads=True)
            found.append(torch.cat([g.flatten() for g in own]))
        return found

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self.points = batch
        residuals = self.residuals(batch)
        self.note(residuals)
        a, b = self.gradients(residuals)
        self.move((a + b).split([p.numel() for p in self.parameters()]))


ROUTES: dict[str, dict[str, str]] = {
    "residuals": {"residuals": "residuals"},
    "probe": {"probe": "residuals"},
}


def run(kind: Any, monitor: NTKMonitor, **options: Any) -> Any:
    steps = {} if options.get("moves") == "lightning" else {"steps": -1, "max_epochs": 1}
    limits = {} if "steps" not in steps else {"limit_train_batches": 5}
    return compare(kind, monitor, fit={**steps, **limits}, **options)[0]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("moves", ["lightning", "bare"])
def test_residuals_of_a_function_are_measured_before_the_optimizer_moves(route: str, moves: str):
    monitor = NTKMonitor(every_n_steps=2, **ROUTES[route])
    module = run(Surgery, monitor, moves=moves)
    assert_traces(monitor, module, STEPS)
    assert_series(monitor, "ntk/drift/parameters", module.moved, STEPS)
    assert all(not o._optimizer_step_pre_hooks for o in module.trainer.optimizers)


def test_where_no_optimizer_moves_they_are_measured_from_the_second_batch_on():
    monitor = NTKMonitor(every_n_steps=2, probe="residuals")
    module = run(Surgery, monitor, moves="by_hand")
    assert_traces(monitor, module, [1, 2, 4])


@pytest.mark.parametrize("kind", [Surgery, TappedOneByOne])
def test_taps_are_read_at_the_first_gradient_that_is_taken(kind: Any):
    monitor = NTKMonitor(every_n_steps=2)
    module = run(kind, monitor, moves="lightning", taps=True)
    assert_traces(monitor, module, STEPS)


@pytest.mark.parametrize("route", ROUTES)
def test_functions_are_measured_beside_raw_backward_passes(route: str):
    monitor = NTKMonitor(every_n_steps=2, **ROUTES[route])
    module, _ = compare(Manual, monitor, raw=True)
    assert_traces(monitor, module, STEPS)


def test_a_backward_pass_that_lightning_sees_is_the_moment_still():
    monitor = NTKMonitor(every_n_steps=2, residuals="residuals")
    module, _ = compare(Manual, monitor)
    assert_traces(monitor, module, STEPS)
    assert list(series(monitor, "ntk/effective_weight/pde")) == STEPS


def test_gradients_by_points_are_no_gradients_of_a_step():
    """A tapped field whose derivative the residual takes: nothing is measured at that moment."""

    class Field(Manual):
        def residuals(self, batch: Any) -> dict[str, Tensor]:
            x = batch["x"].clone().requires_grad_()
            u = self.tapped({"u": self.net(x)})["u"]
            (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            return {"pde": u_x - u, "bc": self.net(batch["ends"])}

    monitor = NTKMonitor(every_n_steps=2)
    train(make(Field, raw=True, taps=True), monitor, steps=3)
    measured = {tag for tag in monitor.history if "/trace/" in tag}
    assert measured == {"ntk/trace/u", "ntk/trace/pde", "ntk/trace/bc"}


def test_what_no_route_sees_is_told_with_the_routes_there_are():
    with told_once(r"(?s)no backward pass was seen.*manual_backward.*tap.*residuals='method'"):
        compare(Surgery, NTKMonitor(), fit={"steps": -1, "max_epochs": 1, "limit_train_batches": 3})


@pytest.mark.parametrize("options", [{"residuals": "residuals"}, {}], ids=["residuals", "taps"])
def test_weights_are_worked_out_but_put_on_no_gradient(options: dict[str, str]):
    balancer = NTKBalancer(every_n_steps=2, **options)
    fits = {"steps": -1, "max_epochs": 1, "limit_train_batches": 3}
    with told_once(r"no weights are put on them.*LossWeights"):
        module, _ = compare(Surgery, balancer, fit=fits, taps=not options)
    assert balancer.weights == pytest.approx(module.rule(2), rel=1e-9)


def test_weights_that_the_loss_holds_are_set():
    class Holds(Surgery):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.loss_weights = LossWeights(["pde", "bc"]).double()

        def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
            losses = super().losses(residuals)
            return {n: self.loss_weights.as_dict()[n] * loss for n, loss in losses.items()}

    module, plain = make(Holds), make(Surgery)
    fit(module, NTKBalancer(every_n_steps=1, residuals="residuals"), steps=2)
    fit(plain, steps=2)
    assert module.loss_weights.as_dict() == pytest.approx(module.rule(1), rel=1e-9)
    assert not same(module.net, plain.net)
