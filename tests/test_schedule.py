"""When to measure, and under which step: pure functions first, then a Trainer that counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pinn_ntk.callbacks.schedule import final_step, is_due, last_step, logged_step
from tests.pinn import Pinn, build, fit


@pytest.mark.parametrize(
    ("every", "last", "expected"),
    [
        (3, 7, [0, 3, 6, 7]),
        (3, 6, [0, 3, 6]),
        (1, None, list(range(9))),
        (100, None, [0]),
        (100, 8, [0, 8]),
    ],
)
def test_due_steps(every: int, last: int | None, expected: list[int]):
    assert [step for step in range(9) if is_due(step, every, last)] == expected


@pytest.mark.parametrize(
    ("batches", "max_steps", "per_batch", "expected"),
    [
        (10, -1, 1.0, 9),
        (10, 4, 1.0, 3),
        (10, 40, 1.0, 9),
        (math.inf, 4, 1.0, 3),
        (-1, 4, 1.0, 3),
        (math.inf, 8, 2.0, 3),
        (math.inf, 7, 2.0, 3),  # the limit falls between the two optimizers of a batch
        (math.inf, -1, 1.0, None),
        (-1, -1, 1.0, None),
    ],
)
def test_final_step(batches: float, max_steps: int, per_batch: float, expected: int | None):
    assert final_step(batches, max_steps, per_batch) == expected


class Steps(pl.Callback):
    """Notes what `schedule` says before each backward pass, and what Lightning logs under."""

    def __init__(self) -> None:
        self.logged: list[int] = []
        self.last: list[int | None] = []

    def on_before_backward(self, trainer: pl.Trainer, *_: Any) -> None:
        self.logged.append(logged_step(trainer))
        self.last.append(last_step(trainer))


@pytest.mark.parametrize(
    ("options", "logged"),
    [
        ({"steps": 4}, [0, 1, 2, 3]),
        ({"steps": -1, "max_epochs": 1, "limit_train_batches": 3}, [0, 1, 2]),
        ({"steps": -1, "max_epochs": 2, "limit_train_batches": 2}, [0, 1, 2, 3]),
        ({"steps": 3, "max_epochs": 2, "limit_train_batches": 2}, [0, 1, 2]),
        ({"steps": 2, "accumulate_grad_batches": 2}, [0, 0, 1, 1]),
        (
            {"steps": -1, "max_epochs": 1, "limit_train_batches": 3, "accumulate_grad_batches": 2},
            [0, 0, 1],
        ),
    ],
)
def test_steps_of_a_fit(options: dict[str, Any], logged: list[int]):
    noted = Steps()
    fit(build(), noted, **options)
    assert noted.logged == logged
    assert set(noted.last) == {logged[-1]}


class TwoOptimizers(Pinn):
    """Manual optimization: two optimizer steps a batch, counted twice by ``global_step``."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        return [torch.optim.SGD(self.net.parameters(), lr=0.01) for _ in range(2)]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        for optimizer in self.optimizers():
            losses = self.losses(self.residuals(batch))
            self.log_losses(losses, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(losses["pde"] + losses["bc"])
            optimizer.step()


def test_a_batch_is_one_step_however_many_optimizers_it_has():
    noted = Steps()
    fit(TwoOptimizers(), noted, steps=6)
    assert noted.logged == [0, 0, 1, 1, 2, 2]
    # In the first batch it is not yet known that a batch makes two optimizer steps.
    assert noted.last[::2] == [5, 2, 2]  # before the first of the two


def test_without_lightnings_private_counter_global_step_is_taken(monkeypatch: pytest.MonkeyPatch):
    run = fit(build(), steps=3)
    assert (run.global_step, logged_step(run)) == (3, 3)
    monkeypatch.delattr(run.fit_loop.epoch_loop, "_batches_that_stepped")
    assert logged_step(run) == 3


def test_an_endless_fit_has_no_last_step():
    noted = Steps()

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            trainer.should_stop = trainer.global_step >= 2

    fit(build(), noted, Stop(), steps=-1, max_epochs=-1)
    assert noted.last == [None, None]
