"""Explicit routes to the terms: taps, a residual function, a probe, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from pinn_ntk import tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.errors import ArgumentError
from tests.pinn import N_PDE, batch, calling, same, told_once
from tests.zoo import (
    Inverse,
    Noted,
    Residuals,
    TwoNetworks,
    assert_series,
    assert_traces,
    compare,
    make,
    series,
    steps_of,
    train,
)

STEPS = [0, 2, 4]


# --- Losses that cannot be looked into


class MeanSquare(torch.autograd.Function):
    """A mean of squares with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor) -> Tensor:
        ctx.save_for_backward(residual)
        return residual.square().mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (residual,) = ctx.saved_tensors
        return gradient * 2 / residual.numel() * residual


def sum_of_squares(pde: Tensor, bc: Tensor) -> Tensor:
    return pde.square().mean() + bc.square().mean()


class Opaque(Noted):
    """A custom Function as the loss, or a compiled one; tapped or not."""

    compiled: Callable[..., Tensor] | None = None

    def __init__(
        self, taps: bool = False, compiled: str = "", energy: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.taps, self.energy = taps, energy
        if compiled:
            self.compiled = torch.compile(sum_of_squares, backend=compiled)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        self.note(residuals)
        residuals = self.tapped(residuals)
        if self.compiled is not None:
            return self.compiled(**residuals)
        if self.energy:  # Deep Ritz: the mean of the network's output is no residual
            return residuals["pde"].square().mean() + residuals["bc"].mean()
        return self.total({name: MeanSquare.apply(r) for name, r in residuals.items()})


KINDS: dict[str, dict[str, Any]] = {
    "function": {},
    "compiled": {"compiled": "aot_eager"},
    "energy": {"energy": True},
}
TRACING = "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
"""Of torch.compile itself, where it looks at a tensor that is no leaf."""


@pytest.mark.filterwarnings(TRACING)
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize("make_callback", [NTKMonitor, NTKBalancer])
def test_an_opaque_loss_is_told_once_and_trained_as_it_is(make_callback: Any, kind: Any):
    callback = make_callback(every_n_steps=2)
    with told_once(r"(?s)OpaqueLossError.*pinn_ntk\.tap.*residuals="):
        compare(Opaque, callback, **kind)
    assert not callback.history


@pytest.mark.filterwarnings(TRACING)
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_an_opaque_loss_with_taps_is_measured(kind: Any):
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(Opaque, monitor, like=(Opaque, kind), taps=True, **kind)
    assert_traces(monitor, module, STEPS)
    assert set(monitor.spectra) == {"pde", "bc"}


def test_an_opaque_loss_with_taps_is_weighted():
    balancer = NTKBalancer(every_n_steps=2)
    _, hand = compare(Opaque, balancer, weigh_every=2, like=(Opaque, {}), taps=True)
    assert balancer.weights == pytest.approx(hand.weights, rel=1e-9)


def test_an_opaque_loss_is_measured_by_a_residual_function():
    monitor = NTKMonitor(every_n_steps=2, residuals="residuals")
    module, _ = compare(Opaque, monitor)
    assert_traces(monitor, module, STEPS)


class SomeTapped(Noted):
    """Taps are the terms where there are any: "bc" is not among them, "pde" has a new name."""

    def losses(self, residuals: Residuals) -> Residuals:
        tapped = {"equation": tap(residuals["pde"], "equation")}
        assert tapped["equation"] is residuals["pde"]
        return super().losses(residuals)


def test_taps_are_the_terms_where_there_are_any():
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(SomeTapped, monitor, like=(Noted, {}), fit={"steps": 3})
    assert_series(monitor, "ntk/trace/equation", lambda s: module.traces(s)["pde"], [0, 2])
    assert set(monitor.spectra) == {"equation"}


@pytest.mark.parametrize("callback", [NTKMonitor, NTKBalancer])
def test_a_sharded_run_is_told_once_and_left_alone(callback: Any):
    pretending = type("FSDPStrategy", (SingleDeviceStrategy,), {})
    plain, module = make(Noted), make(Noted)
    train(plain, steps=3)
    with told_once("FSDPStrategy shards the parameters"):
        train(module, callback(every_n_steps=1), steps=3, strategy=pretending("cpu"))
    assert same(plain, module)


# --- A residual function


def module_function(module: Any, batch: Any) -> Residuals:
    """What ``residuals="tests.test_residual_function.module_function"`` names."""
    return module.residuals(batch)


ROUTES: dict[str, Any] = {
    "method": "residuals",
    "callable": module_function,
    "dotted": f"{__name__}.module_function",
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=list(ROUTES))
def test_a_residual_function_is_measured_and_weighs(route: Any):
    monitor = NTKMonitor(every_n_steps=2, residuals=route)
    balancer = NTKBalancer(every_n_steps=2, residuals=route)
    module, hand = compare(Noted, monitor, balancer, weigh_every=2)
    assert_traces(monitor, module, STEPS)
    assert balancer.weights == pytest.approx(hand.weights, rel=1e-9)


class Restless(Noted):
    """Its residuals leave traces: random numbers, running means, counters of steps, logs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(dropout=0.5, **options)
        self.norm = nn.BatchNorm1d(1).double()
        self.register_buffer("calls", torch.zeros(()))

    def residuals(self, batch: Any) -> Residuals:
        self.calls += 1
        noise = 1e-3 * torch.randn(N_PDE, 1, dtype=torch.float64)
        found = super().residuals({"x": batch["x"] + noise, "ends": batch["ends"]})
        self.log("inside", self.calls)
        return {"pde": self.norm(found["pde"]), "bc": found["bc"]}


@pytest.mark.filterwarnings("ignore:term 'pde'. points interact:pinn_ntk.errors.NTKWarning")
@pytest.mark.parametrize("route", [{"residuals": "residuals"}, {"probe": "residuals"}], ids=str)
def test_a_residual_function_leaves_no_trace(route: dict[str, str]):
    def trained(*callbacks: pl.Callback) -> tuple[Restless, list[float], Tensor]:
        logged: list[float] = []
        note = lambda run, *_: logged.append(float(run.callback_metrics["inside"]))  # noqa: E731
        module = make(Restless, optimizer="adam")
        train(module, *callbacks, calling(on_train_batch_end=note), steps=6)
        return module, logged, torch.get_rng_state()

    monitor = NTKMonitor(every_n_steps=2, **route)
    modules, logged, states = zip(trained(), trained(monitor), strict=True)
    assert same(*modules)
    assert torch.equal(*states)
    for (name, buffer), other in zip(modules[0].named_buffers(), modules[1].buffers(), strict=True):
        assert torch.equal(buffer, other), name
    assert logged[0] == logged[1] == [1, 2, 3, 4, 5, 6]
    assert steps_of(monitor, "ntk/trace/pde") == [0, 2, 4, 5]
    assert all(value > 0 for value in series(monitor, "ntk/trace/pde").values())


def test_a_residual_function_that_fails_is_told_once():
    def broken(module: Any, batch: Any) -> Residuals:
        raise KeyError("pressure")

    with told_once(r"KeyError.*pressure"):
        compare(Noted, NTKMonitor(every_n_steps=1, residuals=broken), fit={"steps": 4})


# --- A probe


def many(count: int) -> dict[str, Tensor]:
    return batch() | {"x": torch.linspace(-1, 1, count, dtype=torch.float64)[:, None]}


class Handful(Noted):
    """Its batches can be read once, and not be copied."""

    def residuals(self, batch: Any) -> Residuals:
        return super().residuals(dict(batch))


@pytest.mark.parametrize("route", ["residuals", "probe"])
def test_a_batch_that_cannot_be_copied_is_told_once(route: str):
    def once() -> list[Any]:
        return [(item for item in batch().items()) for _ in range(4)]

    module, plain, monitor = make(Handful), make(Handful), NTKMonitor(2, **{route: "residuals"})
    train(plain, steps=4, batches=once())
    with told_once(r"the measurement failed with UncopiedError: .* has no copy \(TypeError: .*'ge"):
        train(module, monitor, steps=4, batches=once())
    assert same(module, plain)
    assert len(monitor.history) == 0


def test_a_probe_holds_at_most_max_points_of_a_term_for_good():
    """Rows of a term drawn from every stratum; the trace is that of some of the rows."""
    module = make(Noted, optimizer="adam")
    monitor = NTKMonitor(every_n_steps=2, probe="residuals", max_points=8)
    train(module, monitor, steps=5, batches=[many(40)] * 5)
    for step, spectrum in monitor.spectra["pde"]:
        assert len(spectrum.eigenvalues) == 8
        rows = module.jacobians[step]["pde"].square().sum(1).reshape(8, 5)
        low, high = float(rows.amin(1).sum()), float(rows.amax(1).sum())
        assert low <= float(spectrum.eigenvalues.sum()) <= high
    assert series(monitor, "ntk/drift/kernel")[0] == 0.0
    assert series(monitor, "ntk/drift/kernel")[4] > 0


def test_a_probe_draws_the_same_rows_in_every_run():
    results = []
    for _ in range(2):
        torch.rand(7)  # the global generator is elsewhere
        module = make(Noted)
        monitor = NTKMonitor(every_n_steps=2, probe="residuals", max_points=3)
        train(module, monitor, steps=5, batches=[many(20)] * 5)
        results.append(series(monitor, "ntk/trace/pde"))
    assert results[0] == results[1]


# --- What is left out


def test_included_terms_are_measured_and_weighted_alone():
    module, monitor = make(TwoNetworks), NTKMonitor(every_n_steps=2, include="[pd]*")
    train(module, monitor, steps=3)
    assert set(monitor.spectra) == {"pde", "data"}
    assert_series(monitor, "ntk/trace/data", lambda s: module.traces(s)["data"], [0, 2])
    assert "ntk/trace/bc" not in monitor.history


def test_included_terms_are_balanced_alone():
    module, balancer = make(TwoNetworks), NTKBalancer(include=["pde", "data"])
    train(module, balancer, steps=1)
    rows = {name: len(module.jacobians[0][name]) for name in ("pde", "data")}
    means = {name: module.traces(0)[name] / count for name, count in rows.items()}
    expected = {name: sum(means.values()) / mean for name, mean in means.items()}
    weights = {name: weight for name, weight in balancer.weights.items() if name in expected}
    assert weights == pytest.approx(expected, rel=1e-10)
    assert balancer.weights.get("bc", 1.0) == 1.0


class LastLayer(Noted):
    def trained(self) -> list[Tensor]:
        return [self.net[-1].weight, self.net[-1].bias]


@pytest.mark.parametrize("pattern", ["net.5.*", ["net.5.weight", "net.5.bias"], ["*.5.*"]])
def test_parameters_by_pattern(pattern: Any):
    monitor = NTKMonitor(every_n_steps=2, params=pattern)
    module, _ = compare(LastLayer, monitor)
    assert_traces(monitor, module, STEPS)
    assert_series(monitor, "ntk/drift/parameters", module.moved, STEPS)


class NetworkOnly(Inverse):
    def trained(self) -> list[Tensor]:
        return list(self.net.parameters())


def test_balance_of_some_parameters():
    balancer = NTKBalancer(every_n_steps=2, params="net.*")
    module, hand = compare(NetworkOnly, balancer, weigh_every=2)
    assert balancer.weights == pytest.approx(hand.weights, rel=1e-9)
    assert module.coefficient.item() == pytest.approx(hand.coefficient.item(), rel=1e-9)


def test_a_pattern_that_fits_nothing_is_told_with_what_there_is():
    with pytest.raises(ArgumentError, match=r"(?s)encoder.*net\.0\.weight"):
        train(make(Noted), NTKMonitor(params="encoder.*"), steps=2)
