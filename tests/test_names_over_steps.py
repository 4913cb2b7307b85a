"""Names of terms over the steps of a training, whatever it logs under which keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import fit, told_once
from tests.zoo import Noted, compare, make, steps_of


def terms_of(monitor: NTKMonitor) -> dict[str, list[int]]:
    traces = [tag for tag in monitor.history if tag.startswith("ntk/trace/")]
    return {tag.removeprefix("ntk/trace/"): steps_of(monitor, tag) for tag in traces}


class OneKey(Noted):
    """Logs each condition of a list under the same key."""

    item = False

    def log_losses(self, losses: dict[str, Tensor], batch_idx: int) -> None:
        for loss in losses.values():
            self.log("cond", loss.item() if self.item else loss)
        self.log("total", torch.stack(list(losses.values())).sum())


@pytest.mark.parametrize("item", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_one_key_for_several_terms_numbers_them(optimizer: str, item: bool):
    monitor = NTKMonitor(every_n_steps=1)
    module = make(OneKey, optimizer=optimizer)
    module.item = item
    fit(module, monitor, steps=2)
    assert terms_of(monitor) == {"cond_0": [0, 1], "cond_1": [0, 1]}


class Joins(Noted):
    """From step 2 on with a second term; logs what it is told to."""

    keys: tuple[str, ...] = ()
    until = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.losses(self.residuals(batch))
        if (self.step < 2) != self.until:
            del losses["bc"]
        total = torch.stack(list(losses.values())).sum()
        for key in self.keys:
            if key in losses or key == "loss":
                self.log(key, losses.get(key, total))
        return total


@pytest.mark.parametrize(
    ("keys", "pde", "until"),
    [
        (("loss", "pde", "bc"), "pde", False),
        (("loss", "pde", "bc"), "pde", True),
        (("pde", "loss"), "pde", False),
        (("pde", "loss"), "pde", True),
        (("loss",), "loss", False),
        ((), "term_0", False),
        ((), "term_0", True),
    ],
)
def test_a_term_that_is_the_whole_loss_for_a_while_keeps_its_name(
    keys: tuple[str, ...], pde: str, *, until: bool
):
    monitor, module = NTKMonitor(every_n_steps=1), make(Joins)
    module.keys, module.until = keys, until
    fit(module, monitor, steps=4)
    found = terms_of(monitor)
    assert found[pde] == [0, 1, 2, 3]
    assert len(found) == 2
    assert [steps for name, steps in found.items() if name != pde] == [[0, 1] if until else [2, 3]]


def test_terms_of_the_same_shape_are_not_taken_for_each_other():
    class Turns(Noted):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            losses = self.losses({n: self.net(x[:3]) for n, x in batch.items()})
            name = "x" if batch_idx % 2 else "ends"
            self.log(name, losses[name])
            return losses[name]

    monitor = NTKMonitor(every_n_steps=1)
    fit(make(Turns), monitor, steps=4)
    assert terms_of(monitor) == {"ends": [0, 2], "x": [1, 3]}


def test_metrics_name_their_terms():
    class Metrics(Noted):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.means = torch.nn.ModuleDict({name: MeanMetric() for name in ("pde", "bc")})

        def log_losses(self, losses: dict[str, Tensor], batch_idx: int) -> None:
            for name, loss in losses.items():
                self.means[name](loss)
                self.log(f"train/{name}", self.means[name], on_step=True, on_epoch=True)

    monitor, balancer = NTKMonitor(every_n_steps=1), NTKBalancer(every_n_steps=1)
    compare(Metrics, monitor, fit={"steps": 3})
    assert terms_of(monitor) == {"train/pde": [0, 1, 2], "train/bc": [0, 1, 2]}
    fit(make(Metrics), balancer, steps=2)
    assert set(balancer.weights) == {"train/pde", "train/bc"}


class ByEpoch(Noted):
    def log_losses(self, losses: dict[str, Tensor], batch_idx: int) -> None:
        for name, loss in losses.items():
            self.log(f"loss/epoch_{self.current_epoch}/{name}", loss)


def test_keys_that_hold_the_epoch_are_told_once():
    with told_once(r"'loss/epoch_0/\w+' and later as 'loss/epoch_1/\w+'.*names="):
        fit(
            make(ByEpoch), NTKMonitor(every_n_steps=1), max_epochs=4, steps=4, limit_train_batches=1
        )


def test_several_passes_of_one_step_log_under_the_same_keys():
    """What was logged before a backward pass is not of the next one."""

    class Twice(Noted):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            for _ in range(2):
                self.descend(self.residuals(batch), batch_idx, self.optimizers())

    monitor = NTKMonitor(every_n_steps=1)
    fit(make(Twice), monitor, steps=2)
    assert set(terms_of(monitor)) == {"pde", "bc"}
