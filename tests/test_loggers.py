"""Where scalars go: to every logger whatever another one does, and to other callbacks of a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from pinn_ntk.callbacks.log_writer import LogWriter
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.loggers import publish
from tests.pinn import Pinn, batch, build, fit, told_once, trainer


class OnlyMetrics:
    """A logger that can do nothing but this, and may fail in that."""

    def __init__(self, error: Exception | None = None) -> None:
        self.got: list[tuple[dict[str, float], int]] = []
        self.error = error

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.got.append((dict(metrics), step))
        metrics.clear()  # what one logger does to its values is nothing to the next
        if self.error is not None:
            raise self.error


VALUES = {"trace/pde": 2.5, "trace/bc": math.inf}
TAGGED = {f"ntk/{tag}": value for tag, value in VALUES.items()}


def log(*loggers: OnlyMetrics, step: int) -> dict[str, float]:
    trainer = SimpleNamespace(loggers=list(loggers), callback_metrics={})
    return LogWriter(Guard("NTKMonitor"), "ntk").log(cast("pl.Trainer", trainer), step, VALUES)


def test_every_logger_gets_every_scalar_at_our_step():
    loggers = [OnlyMetrics(), OnlyMetrics()]
    assert log(*loggers, step=700) == TAGGED
    assert [logger.got for logger in loggers] == [[(TAGGED, 700)]] * 2
    assert log(step=700) == TAGGED  # without loggers there is nothing to do


def test_all_loggers_have_their_turn_and_the_one_that_failed_is_named():
    errors = [None, OSError("disk"), None, OSError("quota")]
    loggers = [OnlyMetrics(error) for error in errors]
    with told_once(r"NTKMonitor: logging scalars to OnlyMetrics failed with OSError: disk\. Train"):
        log(*loggers, step=3)
    assert [logger.got for logger in loggers] == [[(TAGGED, 3)]] * 4


class Publisher(pl.Callback):
    """Publishes one value a step at the steps that it has values for."""

    def __init__(self, values: Mapping[int, float]) -> None:
        self.values, self.batches = values, 0
        self.read: list[float | None] = []

    def on_before_backward(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.batches in self.values:
            publish(trainer, {"ntk/trace/pde": self.values[self.batches]})
        self.batches += 1

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        value = trainer.callback_metrics.get("ntk/trace/pde")
        self.read.append(None if value is None else value.item())


class Validated(Pinn):  # results are reset by each validation
    def validation_step(self, data: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.log("val", data["x"].sum(), batch_size=1)


def test_values_outlive_epochs_and_validation():
    publisher = Publisher({0: 1.0, 5: 1 / 3})
    run = trainer(publisher, steps=8, num_sanity_val_steps=1)
    loader = DataLoader([batch()] * 2, batch_size=None)
    run.fit(Validated(), loader, loader)
    # Once for the sanity check, then after each of four epochs of two steps.
    assert publisher.read == [None, 1.0, 1.0, 1 / 3, 1 / 3]
    kept = run.callback_metrics["ntk/trace/pde"]
    assert (kept.item(), kept.dtype, kept.device.type) == (1 / 3, torch.float64, "cpu")


def test_early_stopping_reads_them():
    stopping = EarlyStopping("ntk/trace/pde", mode="min", patience=2, check_on_train_epoch_end=True)
    values = {0: 8.0, 2: 4.0, 4: 5.0, 6: 6.0, 8: 1.0}
    run = trainer(Publisher(values), stopping, steps=20)
    run.fit(build(), DataLoader([batch()] * 2, batch_size=None))
    assert (run.global_step, stopping.best_score.item()) == (8, 4.0)


def test_checkpoints_go_by_them(tmp_path: Path):
    options = {"filename": "{step}", "monitor": "ntk/trace/pde", "mode": "max", "save_top_k": 2}
    best = ModelCheckpoint(tmp_path, every_n_train_steps=1, **options)
    values = {0: 1.0, 1: 1e300, 3: 2.0, 4: -1.0, 6: 5.0}
    fit(build(), Publisher(values), best, steps=8, enable_checkpointing=True)
    assert best.best_model_score.item() == 1e300
    # The value of step 1 holds for the step after it, too.
    scores = {Path(path).name: score.item() for path, score in best.best_k_models.items()}
    assert scores == {"step=2.ckpt": 1e300, "step=3.ckpt": 1e300}
    state = torch.load(best.best_model_path, weights_only=True)
    (kept,) = [saved for key, saved in state["callbacks"].items() if "ModelCheckpoint" in key]
    assert kept["best_model_score"].item() == 1e300


def test_a_learning_rate_schedule_goes_by_them():
    def configure() -> dict[str, Any]:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.001)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        monitor = {"scheduler": schedule, "monitor": "ntk/trace/pde", "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": monitor}

    module = build()
    module.configure_optimizers = configure
    run = fit(module, Publisher({0: 3.0, 1: 2.0, 2: 2.5, 3: 2.5}), steps=4)
    assert run.optimizers[0].param_groups[0]["lr"] == 0.001 / 4
