"""In the company of other callbacks, loaders, trainers and launchers."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import signal
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
)
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import batch, same, trainer
from tests.zoo import Manual, Noted, Residuals, assert_series, assert_traces, compare, make, train

STEPS = [0, 2, 4]


# --- Other callbacks


class Backbone(Noted):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.backbone = self.net[:3]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.01)


def averaging() -> list[pl.Callback]:
    """Copies the module deeply when it starts, while we listen to its log."""
    return [StochasticWeightAveraging(1e-3, swa_epoch_start=1, annealing_epochs=1)]


def finetuning() -> list[pl.Callback]:
    return [BackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_lr=1e-3)]


@pytest.mark.parametrize(
    ("kind", "both", "epochs", "every", "measured"),
    [(Noted, averaging, 4, 100, [0, 2, 4, 6, 7]), (Backbone, finetuning, 3, 2, [0, 2, 4, 5])],
)
def test_callbacks_that_change_the_training(
    kind: type[Noted], both: Any, epochs: int, every: int, measured: list[int]
):
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=every)
    fit = {"steps": -1, "max_epochs": epochs, "limit_train_batches": 2}
    module, _ = compare(kind, monitor, balancer, weigh_every=every, fit=fit, both=both)
    assert_traces(monitor, module, measured)


class Around(pl.Callback):
    """Holds a callback that the trainer does not know, and calls its hooks."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __getattribute__(self, name: str) -> Any:
        hook = name.startswith("on_") or name == "teardown"
        return getattr(vars(self)["held"] if hook else super(), name)


@pytest.mark.parametrize("options", [{}, {"raw": True, "taps": True}], ids=str)
def test_callbacks_within_callbacks(options: dict[str, bool], caplog: pytest.LogCaptureFixture):
    kind = Manual if options else Noted
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    with caplog.at_level("INFO"):
        module, _ = compare(kind, Around(monitor), **options)
        compare(kind, Around(balancer), weigh_every=2, **options)
    assert_traces(monitor, module, STEPS)
    said = [line for line in caplog.messages if line.startswith("NTK")]
    assert [line.split(":")[0] for line in said] == ["NTKMonitor"] * 2 + ["NTKBalancer"] * 2
    assert said[1].startswith("NTKMonitor: 3 measurements; ")


def test_accumulation_that_changes_on_the_way():
    monitor, balancer = NTKMonitor(every_n_steps=1), NTKBalancer(every_n_steps=1000)
    fit = {"steps": -1, "max_epochs": 2, "limit_train_batches": 4}
    both = lambda: [GradientAccumulationScheduler({0: 1, 1: 2})]  # noqa: E731
    compare(Noted, monitor, balancer, weigh_every=1000, fit=fit, both=both)
    assert_series(monitor, "ntk/effective_weight/bc", lambda _: balancer.weights["bc"], range(6))


@pytest.mark.parametrize("option", [{"detect_anomaly": True}, {"deterministic": True}], ids=str)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
def test_modes_of_the_trainer(option: dict[str, Any]):
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(Noted, monitor, fit={"steps": 3, **option})
    assert_traces(monitor, module, [0, 2])


# --- Loaders


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter([batch()] * 3)


def test_a_loader_of_unknown_length():
    module, monitor = make(Noted), NTKMonitor(every_n_steps=2)
    run = trainer(monitor, steps=-1, max_epochs=2)
    run.fit(module, DataLoader(Endless(), batch_size=None))
    assert_traces(monitor, module, [0, 2, 4])


class Combined(Noted):
    """A loader for the equation and one for the ends, of which the shorter one runs dry."""

    def residuals(self, batches: Any) -> Residuals:
        points, ends = batches["pde"], batches["bc"]
        found = super().residuals(points)
        return found if ends is not None else {"pde": found["pde"]}


@pytest.mark.parametrize("probe", [None, "residuals"])
def test_combined_loaders_of_which_one_runs_dry(probe: str | None):
    rows = {"pde": 5, "bc": 3}
    loaders = {name: DataLoader([batch()] * n, batch_size=None) for name, n in rows.items()}
    module, monitor = make(Combined), NTKMonitor(every_n_steps=2, probe=probe)
    run = trainer(monitor, NTKBalancer(every_n_steps=3), steps=-1, max_epochs=1)
    run.fit(module, CombinedLoader(loaders, "max_size"))
    assert_series(monitor, "ntk/trace/pde", lambda s: module.traces(s)["pde"], STEPS)
    steps_of_bc = monitor.history["ntk/trace/bc"][:, 0].tolist()
    assert steps_of_bc == (STEPS if probe else [0, 2])


class AskedFor(Noted):
    """Expects points that ask for gradients already, from the data set or a transfer hook."""

    def residuals(self, batch: Any) -> Residuals:
        u = self.net(3 * batch["x"])
        (u_x,) = torch.autograd.grad(u.sum(), batch["x"], create_graph=True)
        return {"pde": u_x - torch.cos(batch["x"].detach()), "bc": self.net(3 * batch["ends"])}


ROUTES = [{}, {"residuals": "residuals"}, {"probe": "residuals"}]


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_points_that_ask_for_gradients_in_the_loader(route: dict[str, str]):
    def points() -> list[dict[str, Tensor]]:
        return [batch() | {"x": batch()["x"].requires_grad_()} for _ in range(5)]

    given, alone = points(), points()
    plain, module = make(AskedFor), make(AskedFor)
    monitor = NTKMonitor(every_n_steps=2, **route)
    train(plain, steps=5, batches=alone)
    train(module, monitor, steps=5, batches=given)
    assert_traces(monitor, module, STEPS)
    assert same(plain, module)
    for with_us, without in zip(given, alone, strict=True):
        assert torch.equal(with_us["x"].grad, without["x"].grad)  # type: ignore[arg-type]


class FromIterator(Noted):
    """Takes its batches from the loader by itself."""

    def log_losses(self, losses: Residuals, batch_idx: int) -> None:
        self.log_dict(losses, batch_size=1)

    def training_step(self, dataloader_iter: Any) -> Tensor:  # type: ignore[override]
        points, batch_idx, _ = next(dataloader_iter)
        return super().training_step(points, batch_idx)


@pytest.mark.filterwarnings("ignore:.*dataloader_iter:UserWarning")
def test_a_step_that_takes_its_batches_itself():
    module, monitor = make(FromIterator), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=5)
    assert_traces(monitor, module, STEPS)


# --- Copies, and a Ctrl+C in the middle of a measurement


@pytest.mark.parametrize("fitted", [False, True], ids=["fresh", "fitted"])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_callbacks_may_be_copied(way: Any, fitted: bool):
    """As by launchers that start processes, tuners and the like."""
    watched = NTKMonitor(every_n_steps=2, probe="residuals")
    weighing = NTKBalancer(every_n_steps=2, ema=0.5)
    if fitted:
        train(make(Noted), watched, weighing, steps=3)
    monitor, balancer = way(watched), way(weighing)
    assert balancer.weights == weighing.weights
    assert set(monitor.history) == set(watched.history)
    module = make(Noted)
    train(module, monitor, balancer, steps=3)
    last = monitor.history["ntk/trace/pde"][-1, 1]
    assert last == pytest.approx(module.traces(2)["pde"], rel=1e-10)


class Remembered(Manual):
    """Keeps weak references to its residuals, and gives up at step 3."""

    fail = False

    def losses(self, residuals: Residuals) -> Residuals:
        self.seen = [weakref.ref(r) for r in residuals.values()]
        losses = super().losses(residuals)
        if self.fail and self.step == 3:
            raise ZeroDivisionError
        return losses


@pytest.mark.parametrize("fail", [False, True], ids=["done", "exception"])
@pytest.mark.parametrize("options", [{"raw": True, "taps": True}, {"taps": True}, {}], ids=str)
def test_nothing_outlives_a_fit(options: dict[str, bool], fail: bool):
    """Neither a graph, which holds a batch of memory, nor a callback that listens for ever."""
    module = make(Remembered, **options)
    module.fail = fail
    callbacks = [NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)]
    with contextlib.suppress(ZeroDivisionError):
        train(module, *callbacks, steps=5)
    gc.collect()
    assert [residual() for residual in module.seen] == [None, None]
    left = [weakref.ref(callback) for callback in callbacks]
    callbacks.clear()
    module.trainer = None
    gc.collect()
    assert [callback() for callback in left] == [None, None]


def test_ctrl_c_within_a_measurement():
    class Interrupts(Noted):
        def __init__(self, draws: int) -> None:
            super().__init__()
            self.draws = draws
            self.norm = nn.BatchNorm1d(1).double()

        def looked_at(self, batch: Any) -> Residuals:
            torch.rand(self.draws)
            self.norm(torch.ones(4, 1, dtype=torch.float64))
            raise KeyboardInterrupt

    handler, states = signal.getsignal(signal.SIGINT), []
    for draws in (0, 3):
        module = make(Interrupts, draws)
        try:
            with pytest.raises(SystemExit):
                train(module, NTKMonitor(residuals="looked_at"), NTKBalancer(), steps=2)
        finally:
            signal.signal(signal.SIGINT, handler)
        states.append(torch.get_rng_state())
        assert "log" not in vars(module)
        assert module.norm.num_batches_tracked == 0
    assert torch.equal(*states)
    other, again = make(Noted), NTKMonitor()
    train(other, again, steps=1)
    assert_traces(again, other, [0])


def test_a_manual_fit_after_an_automatic_one_with_the_same_callbacks():
    monitor = NTKMonitor(every_n_steps=2)
    train(make(Noted), monitor, steps=3)
    module = make(Manual, raw=True, taps=True)
    train(module, monitor, steps=3)
    assert_traces(monitor, module, [0, 2])
