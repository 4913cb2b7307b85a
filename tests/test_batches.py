"""What a batch may be, where points come from, and how losses are made of residuals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.errors import ArgumentError
from pinn_ntk.graph.reference import reference_jacobian
from tests.pinn import N_BC, N_PDE, batch
from tests.zoo import (
    Inverse,
    Noted,
    OwnLoss,
    Resampled,
    Residuals,
    Stored,
    TwoNetworks,
    assert_series,
    assert_terms,
    assert_traces,
    compare,
    make,
    steps_of,
    train,
)

STEPS = [0, 2, 4]


# --- Batches


class Points(torch.Tensor):
    """Points that know their domain, as geometry packages hand them out."""


BATCHES: dict[str, tuple[Callable[[dict[str, Tensor]], Any], Callable[[Any], Any]]] = {
    "list": (lambda b: [b["x"], b["ends"]], lambda b: {"x": b[0], "ends": b[1]}),
    "tuple": (lambda b: (b["x"], b["ends"]), lambda b: {"x": b[0], "ends": b[1]}),
    "nested": (
        lambda b: {"inner": [b["x"]], "ends": (b["ends"], 7)},
        lambda b: {"x": b["inner"][0], "ends": b["ends"][0]},
    ),
    "tensor": (
        lambda b: torch.cat([b["x"], b["ends"]]),
        lambda b: {"x": b[:N_PDE], "ends": b[N_PDE:]},
    ),
    "subclass": (lambda b: {name: x.as_subclass(Points) for name, x in b.items()}, lambda b: b),
}


class Packed(Noted):
    def __init__(self, unpack: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.unpack = unpack

    def residuals(self, batch: Any) -> Residuals:
        return super().residuals(self.unpack(batch))


@pytest.mark.parametrize("probe", [None, "residuals"], ids=["running", "probe"])
@pytest.mark.parametrize(("pack", "unpack"), BATCHES.values(), ids=list(BATCHES))
def test_kinds_of_batches(pack: Any, unpack: Any, probe: str | None):
    module = make(Packed, unpack)
    monitor = NTKMonitor(every_n_steps=2, probe=probe)
    train(module, monitor, steps=5, batches=[pack(batch()) for _ in range(5)])
    assert_traces(monitor, module, STEPS)
    assert steps_of(monitor, "ntk/drift/pde") == (STEPS if probe else [2, 4])


class Overwriting(Packed):
    """Draws its points into the tensors of the batch."""

    def training_step(self, packed: Any, batch_idx: int) -> Tensor:
        self.note(Noted.residuals(self, batch()))  # on the points that were loaded at first
        self.unpack(packed)["x"].uniform_(-1, 1)
        losses = self.losses(self.residuals(packed))
        self.log_dict(losses, batch_size=1)
        return self.total(losses)


class Cloud:
    """A batch of a class that nobody knows how to copy."""

    def __init__(self, points: dict[str, Tensor]) -> None:
        self.points = points


@pytest.mark.parametrize(
    ("pack", "unpack"), [(dict, dict), (Cloud, lambda cloud: cloud.points)], ids=["dict", "own"]
)
def test_the_probe_is_a_copy_of_the_batch_as_it_was_loaded(pack: Any, unpack: Any):
    module, points = make(Overwriting, unpack, optimizer="adam"), batch()
    monitor = NTKMonitor(every_n_steps=2, probe="residuals")
    train(module, monitor, steps=5, batches=[pack(points)] * 5)
    assert not torch.equal(points["x"], batch()["x"])
    assert_traces(monitor, module, STEPS)
    expected = changes(module.jacobians, "pde", "bc")
    assert_series(monitor, "ntk/drift/kernel", expected.get, STEPS, rel=1e-8)


# --- Where points come from


class Drawn(Resampled):
    """Notes what its residuals are on the points of the batch, too."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.fixed = getattr(self, "fixed", {})
        on_grid = self.on_grid(batch).items()
        self.fixed[self.step] = {n: reference_jacobian(r, self.trained()) for n, r in on_grid}
        return super().training_step(batch, batch_idx)


def changes(jacobians: dict[int, Residuals], *names: str) -> dict[int, float]:
    """Relative change of the kernel of the terms together since step 0."""
    stacked = {s: torch.cat([J[name] for name in names]) for s, J in jacobians.items()}
    start = stacked[0] @ stacked[0].T
    return {s: float((J @ J.T - start).norm() / start.norm()) for s, J in stacked.items()}


def test_points_drawn_anew_have_no_drift_of_their_kernel():
    module, monitor = make(Drawn, optimizer="adam"), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=5)
    assert_traces(monitor, module, STEPS)
    assert "ntk/drift/pde" not in monitor.history
    assert "ntk/drift/kernel" not in monitor.history
    ends = changes(module.jacobians, "bc")  # these points stay
    assert_series(monitor, "ntk/drift/bc", ends.get, [2, 4], rel=1e-8)
    assert_series(monitor, "ntk/drift/parameters", module.moved, STEPS)


def test_a_probe_has_drift_though_points_are_drawn_anew():
    module = make(Drawn, optimizer="adam")
    monitor = NTKMonitor(every_n_steps=2, probe="on_grid")
    train(module, monitor, steps=5)
    for name in ("pde", "bc"):
        drift = changes(module.fixed, name)
        assert_series(monitor, f"ntk/drift/{name}", drift.get, STEPS, rel=1e-8)
        traces = {step: float(J[name].square().sum()) for step, J in module.fixed.items()}
        assert_series(monitor, f"ntk/trace/{name}", traces.get, STEPS)
    whole = changes(module.fixed, "pde", "bc")
    assert whole[0] == 0.0
    assert_series(monitor, "ntk/drift/kernel", whole.get, STEPS, rel=1e-8)


@pytest.mark.parametrize("dummy", [torch.zeros(1), 0, {"idle": torch.zeros(1)}, [torch.zeros(0)]])
def test_points_kept_by_the_module(dummy: Any):
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    module, _ = compare(
        Stored, monitor, balancer, weigh_every=2, fit={"batches": [dummy] * 5}, optimizer="adam"
    )
    assert_traces(monitor, module, STEPS)


# --- How losses are made of residuals


def sums(module: Any, r: Residuals) -> tuple[Tensor, dict[str, float]]:
    return r["pde"].square().sum() + (r["bc"] ** 2).sum(), {"pde": N_PDE, "bc": N_BC}


def functional(module: Any, r: Residuals) -> tuple[Tensor, dict[str, float]]:
    equation = mse_loss(r["pde"], torch.zeros_like(r["pde"]))
    ends = nn.MSELoss()(r["bc"], torch.zeros_like(r["bc"]))
    return equation + 0.5 * ends, {"pde": 1.0, "bc": 0.5}


def products(module: Any, r: Residuals) -> tuple[Tensor, dict[str, float]]:
    loss = torch.mean(r["pde"] * r["pde"]) + 100 * torch.mean(torch.pow(r["bc"], 2))
    return loss, {"pde": 1.0, "bc": 100.0}


def pointwise(module: Any, r: Residuals) -> tuple[Tensor, dict[str, float]]:
    weight = torch.linspace(1, 4, N_PDE, dtype=torch.float64)[:, None]
    loss = (weight * r["pde"] ** 2).mean() + (r["bc"] ** 2).mean()
    return loss, {"pde": 2.5, "bc": 1.0}


def causal(module: Any, r: Residuals) -> tuple[Tensor, dict[str, float]]:
    """Wang, Sankaran, Perdikaris 2022: what lies later waits for what comes before."""
    squares = r["pde"].square().flatten()
    before = torch.cat([squares.new_zeros(1), squares.cumsum(0)[:-1]])
    weight = torch.exp(-0.5 * before).detach()
    loss = (weight * squares).mean() + 10 * r["bc"].square().mean()
    return loss, {"pde": float(weight.mean()), "bc": 10.0}


def penalised(module: Any, r: Residuals) -> tuple[Tensor, dict[str, float]]:
    penalty = sum(p.square().sum() for p in module.parameters())
    loss = r["pde"].square().mean() + r["bc"].square().mean() + 1e-2 * penalty
    return loss, {"pde": 1.0, "bc": 1.0}


def per_equation(module: Any, r: Residuals) -> tuple[Tensor, dict[str, float]]:
    """A mean over the points of a sum over the equations; here there is one."""
    return (r["pde"] ** 2).sum(dim=1).mean() + (r["bc"] ** 2).sum(-1).mean(), {"pde": 1, "bc": 1}


LOSSES = [sums, functional, products, pointwise, causal, penalised, per_equation]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_effective_weights_are_those_that_stand_in_the_loss(loss: Any):
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(OwnLoss, monitor, loss=loss)
    assert_traces(monitor, module, STEPS)
    assert_terms(monitor, "effective_weight", module.effective.get, STEPS)


class Learned(Noted):
    """Log variances learned along with the network (Kendall, Gal, Cipolla 2018)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        start = {"pde": 0.3, "bc": -0.4}
        self.log_variance = nn.ParameterDict(
            {n: nn.Parameter(torch.tensor(v, dtype=torch.float64)) for n, v in start.items()}
        )

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        weights = {name: 0.5 * torch.exp(-s) for name, s in self.log_variance.items()}
        self.effective[self.step] = {name: weight.item() for name, weight in weights.items()}
        parts = [weights[n] * loss + 0.5 * self.log_variance[n] for n, loss in losses.items()]
        return torch.stack(parts).sum()


def test_learned_weights():
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(Learned, monitor, optimizer="adam")
    assert_traces(monitor, module, STEPS)
    assert_terms(monitor, "effective_weight", module.effective.get, STEPS)
    assert all(module.effective[0][term] != module.effective[4][term] for term in ("pde", "bc"))
    split = {"network": slice(0, -2), "loss_weights": slice(-2, None)}
    assert_group_drift(monitor, module, split)


def assert_group_drift(monitor: NTKMonitor, module: Noted, split: dict[str, slice]) -> None:
    for group, entries in split.items():
        thetas = {step: theta[entries] for step, theta in module.theta.items()}
        moved = {s: float((t - thetas[0]).norm() / thetas[0].norm()) for s, t in thetas.items()}
        assert_series(monitor, f"ntk/drift/parameters_{group}", moved.get, STEPS)


# --- Several networks, unknown coefficients


@pytest.mark.parametrize("owned", [True, False], ids=["of_the_module", "of_the_optimizer"])
def test_unknown_coefficients_are_a_group(owned: bool):
    module, monitor = make(Inverse, owned=owned), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=5)
    assert_traces(monitor, module, STEPS)
    split = {"inverse": slice(-1, None), "network": slice(0, -1)}
    for group, entries in split.items():
        traces = {
            step: {term: float(J[:, entries].square().sum()) for term, J in of_step.items()}
            for step, of_step in module.jacobians.items()
        }
        assert_terms(monitor, f"trace_{group}", traces.get, STEPS)
    assert_group_drift(monitor, module, split)


@pytest.mark.parametrize("owned", [True, False])
def test_balanced_training_with_an_unknown_coefficient(owned: bool):
    module, hand = compare(Inverse, NTKBalancer(every_n_steps=2), weigh_every=2, owned=owned)
    assert module.coefficient.item() == pytest.approx(hand.coefficient.item(), rel=1e-9)
    assert module.coefficient.item() != pytest.approx(0.7, abs=0.1)


def test_several_networks_are_one_group():
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    module, _ = compare(TwoNetworks, monitor, balancer, weigh_every=2, optimizer="adam")
    assert_traces(monitor, module, STEPS)
    assert not any("trace_" in tag for tag in monitor.history)


# --- Names


class OnlyTotal(Noted):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        self.note(residuals)
        loss = self.total(self.losses(residuals))
        self.log("loss", loss)
        return loss


def test_names_are_given_where_only_the_total_is_logged():
    monitor = NTKMonitor(every_n_steps=2, names=["pde", "bc"])
    balancer = NTKBalancer(every_n_steps=2, names=["pde", "bc"])
    module, hand = compare(OnlyTotal, monitor, balancer, weigh_every=2)
    assert_traces(monitor, module, STEPS)
    assert balancer.weights == pytest.approx(hand.weights, rel=1e-9)


def test_names_that_do_not_fit_end_the_fit():
    monitor = NTKMonitor(every_n_steps=1, names=["pde", "bc", "data"])
    with pytest.raises(ArgumentError, match="names"):
        compare(OnlyTotal, monitor, fit={"steps": 3})
