"""When updates and measurements fall due, and that none of them is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BatchSizeFinder
from pytorch_lightning.tuner import Tuner
from torch import Tensor
from torch.utils.data import DataLoader

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.steps import last_step, logged_step
from pinn_ntk.callbacks.weighting.update import WeightUpdate
from pinn_ntk.looks.look import Look
from pinn_ntk.weights.limits import Limits
from pinn_ntk.weights.term_weights import TermWeights
from pinn_ntk.weights.trace import Trace
from tests.pinn import (
    ONE_BATCH,
    Pinn,
    TwoOptimizers,
    batch,
    build,
    calling,
    fit,
    same,
    told_once,
    trainer,
)
from tests.scripts import python
from tests.zoo import Explicit, Noted, make, series, steps_of
from tests.zoo import train as run_noted

# --- Steps that Lightning counts otherwise


class Sized(Noted):
    """Has a batch size that a tuner may set, and always the same points."""

    batch_size = 2

    def training_step(self, numbers: Tensor, batch_idx: int) -> Tensor:
        return super().training_step(batch(), batch_idx)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(64), batch_size=self.batch_size)

    def on_fit_start(self) -> None:
        self.batches = 0
        for noted in (self.jacobians, self.rows, self.theta):
            noted.clear()


FINDER = {"max_trials": 2, "steps_per_trial": 2}


def shifted(run: pl.Trainer, *_: Any) -> None:
    run.fit_loop.epoch_loop._batches_that_stepped = 1


TUNERS = {
    "BatchSizeFinder": lambda: BatchSizeFinder(**FINDER),
    "a count that starts at 1": lambda: calling(on_train_start=shifted),
    "Tuner": pl.Callback,
}
LENGTHS: dict[str, dict[str, Any]] = {
    "max_steps": {"steps": 8},
    "max_epochs": {"steps": -1, "max_epochs": 2, "limit_train_batches": 4},
}


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:`weights_only` was not set:UserWarning")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("tuner", TUNERS)
def test_the_first_and_the_last_step_are_those_of_the_training(
    tuner: str, length: str, tmp_path: Path
):
    module, monitor, balancer = make(Sized), NTKMonitor(), NTKBalancer()
    callbacks = [monitor, balancer, TUNERS[tuner]()]
    run = trainer(*callbacks, default_root_dir=tmp_path, **LENGTHS[length])
    if tuner == "Tuner":
        Tuner(run).scale_batch_size(module, **FINDER)
    run.fit(module)
    assert steps_of(monitor, "ntk/trace/pde") == [0, 7]
    alone = NTKBalancer()
    fit(build(), alone, steps=1)
    assert balancer.weights == pytest.approx(alone.weights, rel=1e-12)
    assert list(series(balancer, "ntk/weight/pde")) == [0]


LIMITS: list[tuple[Any, dict[str, Any]]] = [
    (Pinn, LENGTHS["max_steps"]),
    (Pinn, LENGTHS["max_epochs"]),
    (Pinn, {"steps": 8, "max_epochs": 3, "limit_train_batches": 4}),
    (TwoOptimizers, {"steps": 16}),
    (TwoOptimizers, LENGTHS["max_epochs"]),
]


@pytest.mark.parametrize(("kind", "options"), LIMITS, ids=str)
def test_the_last_step_is_known_whatever_the_counts_begin_with(kind: Any, options: dict[str, Any]):
    found: list[tuple[int, int | None]] = []
    note = calling(
        on_train_start=shifted,
        on_train_batch_start=lambda run, *_: found.append((logged_step(run), last_step(run))),
    )
    fit(kind(), note, **options)
    assert [step for step, _ in found] == list(range(1, 9))
    assert {last for _, last in found[1:]} == {8}  # how many optimizers step is seen in the first


@pytest.mark.parametrize("schedule", [{"steps": [1000]}, {"steps": [3]}, {"every_n_steps": 1000}])
def test_weights_that_do_not_exist_are_due(schedule: dict[str, Any], tmp_path: Path):
    """The fit goes on from step 2 of a run without balancer."""
    half = fit(build(), steps=2, **ONE_BATCH)
    half.save_checkpoint(tmp_path / "half.ckpt")
    balancer = NTKBalancer(**schedule)
    fit(build(), balancer, steps=6, ckpt=tmp_path / "half.ckpt", **ONE_BATCH)
    expected = [2, 3] if schedule == {"steps": [3]} else [2]
    assert list(series(balancer, "ntk/weight/bc")) == expected
    assert balancer.weights["bc"] > 2


# --- Terms that are not in every batch


class Sometimes(Noted):
    """ "bc" is in the batches of ``batches_of_bc``, "pde" in all or in the others."""

    batches_of_bc: Callable[[int], bool] = staticmethod(lambda number: number % 2 == 1)
    alternate = manual = False

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().residuals(batch)
        there = self.batches_of_bc(self.batches)
        left_out = [] if there and not self.alternate else ["pde" if there else "bc"]
        return {name: r for name, r in found.items() if name not in left_out}


@pytest.mark.parametrize("every", [2, 4, 500])
@pytest.mark.parametrize("log", ["tensor", "item", "none"])
def test_a_term_that_is_absent_when_it_is_due_is_waited_for(every: int, log: Any):
    module, balancer = make(Sometimes, log=log), NTKBalancer(every_n_steps=every)
    run_noted(module, balancer, steps=6)
    last = {2: 5, 4: 5, 500: 3}[every]  # in step 1 it is new, and has weight 1
    names = ["pde", "bc"] if log != "none" else ["term_0", "term_1"]
    expected = dict(zip(names, module.rule(last).values(), strict=True))
    assert balancer.weights == pytest.approx(expected, rel=1e-10)
    assert series(balancer, f"ntk/weight/{names[1]}")[last] == balancer.weights[names[1]]


class InPlaceOf(Sometimes):
    """An absent term leaves a product with zero in the loss, so that a graph is always there."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        absent = not self.batches_of_bc(self.batches)
        return loss + 0.0 * self.net(batch["ends"]).sum() if absent else loss


@pytest.mark.parametrize("every", [1, 2])
def test_a_product_with_zero_in_place_of_a_term_is_no_term(every: int):
    modules = make(Sometimes), make(InPlaceOf)
    balancers = NTKBalancer(every_n_steps=every), NTKBalancer(every_n_steps=every)
    for module, balancer in zip(modules, balancers, strict=True):
        run_noted(module, balancer, steps=6)
    assert balancers[0].weights == balancers[1].weights
    assert same(*modules)


class SometimesInTheLoss(Sometimes, Explicit):
    """With a LossWeights."""


def test_weights_in_the_loss_are_waited_for_as_well():
    module, balancer = make(SometimesInTheLoss), NTKBalancer(every_n_steps=4)
    run_noted(module, balancer, steps=6)
    assert list(series(balancer, "ntk/weight/bc")) == [1, 5]  # known before the step is over
    assert module.loss_weights.as_dict() == pytest.approx(module.rule(5), rel=1e-10)


def test_terms_that_are_never_in_one_batch_are_balanced_against_each_other():
    module, balancer = make(Sometimes), NTKBalancer(every_n_steps=4)
    module.alternate = True
    run_noted(module, balancer, steps=6)
    means = {
        n: module.traces(s)[n] / len(module.jacobians[s][n]) for n, s in (("pde", 4), ("bc", 5))
    }
    expected = {name: sum(means.values()) / mean for name, mean in means.items()}
    assert balancer.weights == pytest.approx(expected, rel=1e-10)


def test_an_update_in_parts_keeps_one_share_of_the_old_weights():
    module, balancer = make(Sometimes), NTKBalancer(every_n_steps=4, ema=0.5)
    run_noted(module, balancer, steps=6)
    before, after = series(balancer, "ntk/weight/pde"), module.rule(5)["pde"]
    assert balancer.weights["pde"] == pytest.approx(0.5 * before[3] + 0.5 * after, rel=1e-10)


def test_a_run_resumed_between_the_parts_of_an_update_is_the_same(tmp_path: Path):
    def run(steps: int, ckpt: Path | None = None) -> tuple[pl.Trainer, NTKBalancer, Any]:
        balancer, module = NTKBalancer(every_n_steps=4, ema=0.5), make(Sometimes)
        module.batches = 0 if ckpt is None else 5
        trained = run_noted(module, balancer, steps=steps, ckpt=ckpt, **ONE_BATCH)
        return trained, balancer, module

    half, _, _ = run(5)  # the update of step 4 waits for "bc"
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, whole, expected = run(8)
    _, resumed, module = run(8, tmp_path / "half.ckpt")
    assert same(expected, module)
    assert resumed.weights == whole.weights


def test_a_term_that_stays_away_for_an_epoch_is_named_once_and_updated_when_it_is_back():
    module, balancer = make(Sometimes), NTKBalancer(every_n_steps=2)
    module.batches_of_bc = lambda number: number in {0, 1, 11}
    with told_once("bc was in no batch of an epoch since an update fell due. It keeps its weight"):
        run_noted(module, balancer, steps=-1, max_epochs=6, limit_train_batches=2)
    assert list(series(balancer, "ntk/weight/bc")) == [0, 11]
    assert balancer.weights["bc"] == pytest.approx(module.rule(11)["bc"], rel=1e-10)


def test_a_term_that_comes_back_in_each_epoch_is_not_said_to_stay_away():
    module, balancer = make(Sometimes), NTKBalancer(every_n_steps=3)
    module.batches_of_bc = lambda number: number % 4 < 2
    run_noted(module, balancer, steps=-1, max_epochs=4, limit_train_batches=4)
    assert list(series(balancer, "ntk/weight/bc")) == [0, 4, 8, 9, 12]


def test_a_wait_costs_no_kernel(monkeypatch: pytest.MonkeyPatch):
    module, balancer = make(Sometimes), NTKBalancer(every_n_steps=1000)
    module.batches_of_bc = lambda number: number in {1, 9}
    seen: list[int] = []
    compute = Look.kernel.compute
    note = lambda look: (seen.append(look.step), compute(look))[1]  # noqa: E731
    monkeypatch.setattr(Look.kernel, "compute", note)
    run_noted(module, balancer, steps=12)
    assert seen == [0, 9]


def test_the_monitor_measures_late_what_was_missing():
    module, monitor = make(Sometimes), NTKMonitor(every_n_steps=4)
    run_noted(module, monitor, steps=8)
    assert steps_of(monitor, "ntk/trace/bc") == [5, 7]
    assert steps_of(monitor, "ntk/trace/pde") == [0, 4, 5, 7]
    assert series(monitor, "ntk/trace/bc")[5] == pytest.approx(module.traces(5)["bc"], rel=1e-10)
    assert "bc" in monitor.panel.summary()


# --- Steps without a backward pass


class Skips(Noted):
    """Some batches are left out."""

    skipped: tuple[int, ...] = (2, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        return None if batch_idx in self.skipped else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*training_step. returned .None.:UserWarning")
@pytest.mark.parametrize("skipped", [(2, 3), (0,), (0, 1, 2)], ids=str)
def test_what_falls_due_on_a_step_that_returns_nothing_is_made_up_for(skipped: tuple[int, ...]):
    module, monitor, balancer = (
        make(Skips),
        NTKMonitor(every_n_steps=2),
        NTKBalancer(every_n_steps=2),
    )
    module.skipped = skipped
    run_noted(module, monitor, balancer, steps=5)
    expected = {(2, 3): [0, 4], (0,): [1, 2, 4], (0, 1, 2): [3, 4]}[skipped]
    assert list(series(balancer, "ntk/weight/bc")) == expected
    assert steps_of(monitor, "ntk/trace/pde") == expected


@pytest.mark.filterwarnings("ignore:.*training_step. returned .None.:UserWarning")
def test_one_step_after_an_odd_one():
    module, monitor, balancer = (
        make(Skips),
        NTKMonitor(every_n_steps=3),
        NTKBalancer(every_n_steps=3),
    )
    module.skipped = (3,)
    run_noted(module, monitor, balancer, steps=8)
    assert list(series(balancer, "ntk/weight/bc")) == [0, 4, 6]
    assert steps_of(monitor, "ntk/trace/pde") == [0, 4, 6, 7]


def test_attempts_that_fail_become_rare_until_it_is_due_again():
    update = WeightUpdate(Trace(), Limits())
    update.restart(Guard("NTKBalancer"))
    tried: list[int] = []

    def fails() -> Any:
        tried.append(step)
        raise ValueError("no")

    with told_once("weighting the loss failed with ValueError: no"):
        for step in range(40):
            update.begins(step, asked=step % 20 == 0)
            if update.wants(list):
                update.take(Mock(world_size=1), update.measured(fails))
    assert tried == [0, 1, 3, 7, 15, 20, 21, 23, 27, 35]


TWO_RANKS = """
import torch
from tests.pinn import Pinn, fit
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

class Some(Pinn):
    def residuals(self, batch):
        found = super().residuals(batch)
        if (self.global_step + self.shift * self.global_rank) % 2 == 0:
            del found["bc"]
        return found | {"pde": found["pde"] + 0 * self.net[-1].bias}  # DDP wants all parameters

if __name__ == "__main__":
    for shift in (0, 1):
        torch.manual_seed(1)
        module, balancer = Some(), NTKBalancer(every_n_steps=4)
        module.shift = shift
        fit(module, NTKMonitor(every_n_steps=4), balancer, steps=8, devices=2, strategy="ddp")
        steps = [int(step) for step, _ in balancer.history["ntk/weight/bc"]]
        print(f"\\nRESULT {shift} {steps} {balancer.weights!r}\\n", flush=True)
"""


@pytest.mark.slow
def test_ranks_wait_for_a_term_together(tmp_path: Path):
    """It is in the same batches on both ranks (0), or on one of them at a time (1)."""
    file = tmp_path / "two_ranks.py"
    file.write_text(TWO_RANKS)
    results = re.findall(r"RESULT (\d) (\[.*?\]) (\{.*?\})", python(file).stdout)
    assert len(results) == 4
    assert len(set(results)) == 2  # both ranks agree
    assert {shift: steps for shift, steps, _ in results} == {"0": "[5]", "1": "[0, 4]"}


def test_a_term_that_was_passed_over_is_waited_for_once_it_was_measured():
    terms = TermWeights(Trace(), Limits())
    terms.meet(["pde", "bc"])
    terms.pass_over(["bc"])
    terms.update({"pde": (4.0, 2)})
    assert terms.waiting == []
    terms.begin()
    terms.update({"pde": (4.0, 2), "bc": (2.0, 1)})
    terms.begin()
    terms.update({"pde": (4.0, 2)})
    assert terms.waiting == ["bc"]
