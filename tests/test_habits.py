"""Habits of users' training steps: what they return, look at, tap, validate, freeze and thaw."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pinn_ntk import tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import batch, trainer
from tests.zoo import (
    Manual,
    Noted,
    Residuals,
    TwoNetworks,
    assert_close,
    assert_series,
    assert_traces,
    compare,
    make,
    series,
    steps_of,
    train,
)

STEPS = [0, 2, 4]


# --- What training steps do


class ReturnsDict(Noted):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return {"loss": loss, "preds": loss.detach(), "index": batch_idx}


class ReturnsNothing(Noted):
    """Leaves every third batch out."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 3 == 1 else super().training_step(batch, batch_idx)


class OwnBackward(Noted):
    """Keeps the graph for a look at it after the backward pass."""

    def backward(self, loss: Tensor) -> None:  # type: ignore[override]
        loss.backward(retain_graph=True)

    def on_after_backward(self) -> None:
        assert all(p.grad is not None for p in self.parameters())


class OwnStep(Noted):
    """Calls the closure itself, as schemes with a look ahead do."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:  # type: ignore[override]
        closure()
        optimizer.step()


class Looks(Manual):
    """Takes gradient norms of its terms before the backward pass, as adaptive weights do."""

    def __init__(self, automatic: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = automatic
        self.norms: list[float] = []

    def total(self, losses: Residuals) -> Tensor:
        weights = list(self.parameters())[:1]
        for loss in losses.values():
            (gradient,) = torch.autograd.grad(loss, weights, retain_graph=True)
            self.norms.append(gradient.norm().item())
        return super().total(losses)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if not self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        residuals = self.residuals(batch)
        self.note(residuals)
        return self.total(self.losses(self.tapped(residuals)))


AUTOMATIC = {"automatic": True}
WAYS = [AUTOMATIC, AUTOMATIC | {"taps": True}, {"taps": True}, {"taps": True, "raw": True}]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_gradients_that_a_step_takes_for_itself_are_not_weighted(options: dict[str, bool]):
    balancer = NTKBalancer(every_n_steps=2)
    module, hand = compare(Looks, balancer, weigh_every=2, fit={"steps": 4}, **options)
    assert module.norms == pytest.approx(hand.norms, rel=1e-9)


class LogsMore(Noted):
    """Logs the total, learning rates and metrics under names with slashes, for epochs only."""

    def log_losses(self, losses: Residuals, batch_idx: int) -> None:
        options = {"on_step": False, "on_epoch": True, "prog_bar": True, "batch_size": 1}
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()}, **options)
        self.log("train/loss", torch.stack(list(losses.values())).sum(), **options)
        self.log("lr", 0.01, logger=False)
        self.log("points", torch.tensor(6.0))


@pytest.mark.parametrize("kind", [ReturnsDict, OwnBackward, OwnStep])
def test_training_steps(kind: type[Noted]):
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    module, _ = compare(kind, monitor, balancer, weigh_every=2, optimizer="adam")
    assert_traces(monitor, module, STEPS)


@pytest.mark.filterwarnings("ignore:.*training_step. returned .None.:UserWarning")
def test_batches_that_are_left_out():
    monitor = NTKMonitor(every_n_steps=1)
    module, _ = compare(ReturnsNothing, monitor, fit={"steps": 4})
    assert steps_of(monitor, "ntk/trace/pde") == list(module.jacobians)
    assert_traces(monitor, module, list(module.jacobians))


def test_names_with_slashes_logged_for_epochs_beside_other_numbers():
    module, monitor = make(LogsMore), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=5)
    assert set(monitor.spectra) == {"train/pde", "train/bc"}
    assert_series(monitor, "ntk/trace/train/pde", lambda s: module.traces(s)["pde"], STEPS)


class OwnLog(Noted):
    """Has something of its own under the name ``log``, and tells it of its losses."""

    def __init__(self, own: Any, tell: Callable[[Any, str, float], object], **options: Any) -> None:
        super().__init__(**options)
        self.log, self.tell = own, tell

    def log_losses(self, losses: Residuals, batch_idx: int) -> None:
        for name, loss in losses.items():
            self.tell(self.log, name, loss.item())


class Notebook(dict[str, float]):
    """Can be called, as ``self.log`` can, and does other things besides."""

    def __call__(self, name: str, value: float) -> None:
        self[name] = value

    def write(self, name: str, value: float) -> None:
        self(name, value)


OWN_LOGS: dict[str, tuple[Any, Callable[[Any, str, float], object]]] = {
    "logger": (logging.getLogger("own"), lambda log, name, value: log.info("%s %s", name, value)),
    "list": ([], lambda log, name, value: log.append((name, value))),
    "dict": ({}, lambda log, name, value: log.update({name: value})),
    "called": (Notebook(), lambda log, name, value: log(name, value)),
    "method": (Notebook(), lambda log, name, value: log.write(name, value)),
}


@pytest.mark.parametrize("kind", OWN_LOGS)
def test_what_a_module_calls_log_stays_its_own(kind: str):
    own, tell = OWN_LOGS[kind]
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    module, _ = compare(OwnLog, monitor, balancer, weigh_every=2, own=own, tell=tell)
    assert len(monitor.history["ntk/certificate"]) == len(STEPS)
    assert set(balancer.weights) == ({"pde", "bc"} if kind == "called" else {"term_0", "term_1"})
    assert module.log is own


# --- Validation in between


class Validated(Noted):
    """Validates with derivatives: the same residual function, taps and all."""

    taps, val_taps = False, False

    def losses(self, residuals: Residuals) -> Residuals:
        if self.taps if self.training else self.val_taps:
            residuals = {name: tap(r, name) for name, r in residuals.items()}
        return super().losses(residuals)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        with torch.enable_grad():
            losses = self.losses(self.residuals(batch))
            torch.autograd.grad(losses["pde"], list(self.net[0].parameters()))
        logged = {f"val_{name}": loss.detach() for name, loss in losses.items()}
        self.log_dict(logged, batch_size=1)


class RawValidated(Validated):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer = self.optimizers()
        residuals = self.residuals(batch)
        self.note(residuals)
        optimizer.zero_grad()
        self.total(self.losses(residuals)).backward()
        optimizer.step()


@pytest.mark.parametrize("val_taps", [False, True], ids=["", "val_taps"])
@pytest.mark.parametrize(
    ("kind", "taps"), [(Validated, False), (Validated, True), (RawValidated, True)]
)
def test_validation_is_not_taken_for_training(kind: Any, taps: bool, val_taps: bool):
    def validated(*callbacks: pl.Callback, **options: Any) -> Any:
        module = make(kind, optimizer="adam", **options)
        module.taps, module.val_taps = taps, val_taps
        run = trainer(*callbacks, steps=6, val_check_interval=1, num_sanity_val_steps=2)
        loader = DataLoader([batch()] * 6, batch_size=None)
        other = DataLoader([{n: x + 0.1 for n, x in batch().items()}] * 2, batch_size=None)
        run.fit(module, loader, other)
        return module

    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    hand, module = validated(weigh_every=2), validated(monitor, balancer)
    assert_close(module, hand)
    assert_traces(monitor, module, [0, 2, 4, 5])


def test_standalone_validation_measures_nothing():
    module, monitor, balancer = make(Validated), NTKMonitor(every_n_steps=1), NTKBalancer()
    run = trainer(monitor, balancer, inference_mode=False)
    module.val_taps = True
    run.validate(module, DataLoader([batch()], batch_size=None), verbose=False)
    assert len(monitor.history) == 0
    assert balancer.weights == {}


# --- Taps


class TapsSides(Noted):
    """Two residuals under one name, as from a helper called for each side; one that is dead."""

    def losses(self, residuals: Residuals) -> Residuals:
        tap(residuals["pde"].detach(), "watched")
        left, right = residuals["bc"][:2], residuals["bc"][2:]
        sides = [tap(left, "bc"), tap(right, "bc")]
        pde = tap(residuals["pde"], "pde")
        return super().losses({"pde": pde, "bc": torch.cat(sides)})


def test_one_name_for_two_taps_loses_none():
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(TapsSides, monitor, like=(Noted, {}), fit={"steps": 3})
    for step in (0, 2):
        of_bc = [tag for tag in monitor.history if tag.startswith("ntk/trace/bc")]
        total = sum(series(monitor, tag)[step] for tag in of_bc)
        assert total == pytest.approx(module.traces(step)["bc"], rel=1e-10)
        assert series(monitor, "ntk/trace/pde")[step] == pytest.approx(module.traces(step)["pde"])


# --- Parameters that come and go


class Toggled(TwoNetworks):
    """Freezes the other network while one is trained (toggle_optimizer)."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer, names in zip(self.optimizers(), (("pde", "bc"), ("data",)), strict=True):
            self.toggle_optimizer(optimizer)
            residuals = self.residuals(batch)
            self.descend({name: residuals[name] for name in names}, batch_idx, optimizer)
            self.untoggle_optimizer(optimizer)


def test_toggled_optimizers():
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(Toggled, monitor, fit={"steps": 10}, manual=True)
    assert module.traces(0).keys() == {"pde", "bc", "data"}
    assert_traces(monitor, module, STEPS)


class Thawing(pl.Callback):
    """Lets the first layer join in at step 3."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 3:
            pl_module.net[0].requires_grad_(requires_grad=True)
            if len(trainer.optimizers[0].param_groups[0]["params"]) < 6:
                trainer.optimizers[0].add_param_group({"params": pl_module.net[0].parameters()})


def only_trained(module: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.01)


@pytest.mark.parametrize("optimizer", ["adam", only_trained], ids=["all", "added"])
def test_layers_that_thaw(optimizer: Any):
    hand = make(Noted, optimizer=optimizer, weigh_every=2)
    module = make(Noted, optimizer=optimizer)
    for frozen in (hand, module):
        frozen.net[0].requires_grad_(requires_grad=False)
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    train(hand, Thawing(), steps=6)
    train(module, Thawing(), monitor, balancer, steps=6)
    assert_traces(monitor, module, [0, 2, 4, 5])
    assert_close(module, hand)
    assert series(monitor, "ntk/drift/parameters")[2] == pytest.approx(module.moved(2), rel=1e-10)
