"""Where results go besides TensorBoard, at which steps, and what NaN does to them."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.errors import NTKWarning
from tests.pinn import batch, calling, ours, told_once
from tests.written import column
from tests.zoo import Burst, Noted, assert_series, assert_traces, make, series, steps_of, train


class Bare(Logger):
    """A logger that can do nothing but take metrics, like many a home-grown one."""

    def __init__(self, failing: bool = False) -> None:
        super().__init__()
        self.failing = failing
        self.taken: list[tuple[int, dict[str, float]]] = []

    name, version = "bare", "0"

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.failing and any(tag.startswith("ntk/") for tag in metrics):
            raise OSError("No space left on device.")
        assert step is not None
        self.taken.append((step, dict(metrics)))

    def values(self, tag: str) -> dict[int, float]:
        return {step: float(m[tag]) for step, m in self.taken if tag in m}


def test_every_logger_gets_every_scalar(tmp_path: Path):
    bare, table = Bare(), CSVLogger(tmp_path)
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    loggers = [bare, TensorBoardLogger(tmp_path), table]
    train(make(Noted), monitor, balancer, steps=4, logger=loggers, log_every_n_steps=100)
    for callback in (monitor, balancer):
        for tag in callback.history:
            written = column(table.log_dir, tag)
            assert bare.values(tag) == written == series(callback, tag), tag
    for name in ("pde", "bc"):
        assert list(bare.values(f"ntk/weight/{name}")) == [0, 2]
    assert steps_of(monitor) == [0, 2, 3]


def test_a_logger_that_fails_keeps_nothing_from_the_others(tmp_path: Path):
    full, bare = Bare(failing=True), Bare()
    monitor = NTKMonitor(every_n_steps=2)
    said = "NTKMonitor: logging scalars to Bare failed with OSError: No space left on device"
    with told_once(said):
        train(make(Noted), monitor, steps=4, logger=[full, bare])
    expected = series(monitor, "ntk/trace/pde")
    assert list(expected) == [0, 2, 3]
    assert bare.values("ntk/trace/pde")[0] == expected[0]


@pytest.mark.parametrize("filters", ["always", "error"])
def test_a_logger_that_fails_is_named_while_the_weights_are_in_force(
    filters: Any, unheard: list[logging.LogRecord]
):
    """Whatever the program makes of warnings."""
    results = []
    for failing in (False, True):
        module, balancer = make(Noted), NTKBalancer(every_n_steps=2)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter(filters, NTKWarning)
            train(module, balancer, steps=4, logger=Bare(failing=failing))
        results.append((balancer.weights, [p.tolist() for p in module.parameters()]))
        said = ours(warned) + [record.getMessage() for record in unheard]
        assert len(said) == failing
        unheard.clear()
    assert results[0] == results[1]
    assert said[0].startswith("NTKBalancer: logging scalars to Bare failed with OSError: No space")


def test_history_is_complete_without_any_logger():
    results = []
    for logger in (False, Bare()):
        module, monitor = make(Noted), NTKMonitor(every_n_steps=2)
        train(module, monitor, steps=4, logger=logger)
        results.append(monitor.history)
        assert_traces(monitor, module, [0, 2, 3])
    alone, logged = results
    assert set(alone) == set(logged)
    for tag in set(alone) - {"ntk/overhead_fraction"}:
        np.testing.assert_array_equal(alone[tag], logged[tag])


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}])
def test_steps_are_those_of_the_modules_own_log(options: dict[str, Any]):
    bare, monitor = Bare(), NTKMonitor(every_n_steps=1)
    train(make(Noted), monitor, steps=4, logger=bare, log_every_n_steps=1, **options)
    assert list(bare.values("pde")) == list(bare.values("ntk/trace/pde")) == [0, 1, 2, 3]
    assert steps_of(monitor) == [0, 1, 2, 3]


def test_two_monitors_do_not_meet():
    one = NTKMonitor(every_n_steps=2)
    other = NTKMonitor(every_n_steps=3, max_points=3, prefix="kernel/coarse")
    module, bare = make(Noted, optimizer="adam"), Bare()
    train(module, one, other, steps=6, logger=bare)
    assert_traces(one, module, [0, 2, 4, 5])
    assert all(tag.startswith("kernel/coarse/") for tag in other.history)
    assert_series(other, "kernel/coarse/trace/pde", lambda s: module.traces(s)["pde"], [0, 3, 5])
    assert list(bare.values("ntk/trace/pde")) == [0, 2, 4, 5]
    assert list(bare.values("kernel/coarse/trace/pde")) == [0, 3, 5]


# --- NaN


def test_nan_is_logged_for_its_term_only(tmp_path: Path):
    module, monitor, table = make(Burst), NTKMonitor(every_n_steps=1), CSVLogger(tmp_path)
    with told_once("at step 2 the residual of bc holds NaN or inf and is not measured"):
        train(module, monitor, steps=4, logger=table)
    trace = series(monitor, "ntk/trace/bc")
    assert list(trace) == [0, 1, 2, 3]
    assert math.isnan(trace[2])
    assert math.isnan(column(table.log_dir, "ntk/trace/bc")[2])
    for step in (0, 1, 3):
        assert trace[step] == pytest.approx(module.traces(step)["bc"], rel=1e-10)
    assert_series(monitor, "ntk/trace/pde", lambda s: module.traces(s)["pde"], range(4))
    others = {tag: v for tag, v in monitor.history.items() if tag != "ntk/trace/bc"}
    assert all(np.isfinite(values).all() for values in others.values())
    assert steps_of(monitor, "ntk/lambda_max/bc") == [0, 1, 3]


def test_nan_leaves_the_weights():
    module, balancer = make(Burst), NTKBalancer(every_n_steps=1)
    seen: list[dict[str, float]] = []
    note = calling(on_train_batch_end=lambda *_: seen.append(dict(balancer.weights)))
    said = "NTKBalancer: weighting the loss failed with ResidualError: .*NaN"
    with told_once(said):
        train(module, balancer, note, steps=4)
    assert seen[2] == seen[1] != seen[0]
    for step in (0, 1, 3):
        assert seen[step] == pytest.approx(module.rule(step), rel=1e-10)


# --- When


SCHEDULES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "every": ({"every_n_steps": 5}, [0, 5, 10, 11]),
    "steps": ({"steps": [0, 2, 7]}, [0, 2, 7, 11]),
    "decades": ({"per_decade": 2}, [0, 1, 3, 10, 11]),
    "rare": ({"every_n_steps": 500}, [0, 11]),
}


@pytest.mark.parametrize(("schedule", "steps"), SCHEDULES.values(), ids=list(SCHEDULES))
def test_schedules_lose_nothing_on_the_way_to_the_loggers(schedule: Any, steps: list[int]):
    module, monitor, bare = make(Noted), NTKMonitor(**schedule), Bare()
    train(module, monitor, steps=12, logger=bare, log_every_n_steps=50)
    assert_traces(monitor, module, steps)
    assert list(bare.values("ntk/trace/pde")) == steps


@pytest.mark.parametrize(("schedule", "steps"), list(SCHEDULES.values())[:3], ids=["e", "s", "d"])
def test_schedules_of_the_balancer(schedule: Any, steps: list[int]):
    module, balancer = make(Noted, optimizer="adam"), NTKBalancer(**schedule)
    train(module, balancer, steps=12)
    for name in ("pde", "bc"):
        expected = {step: module.rule(step)[name] for step in steps[:-1]}  # no use at the end
        assert series(balancer, f"ntk/weight/{name}") == pytest.approx(expected, rel=1e-10)


def timed_fit(clock: SimpleNamespace, steps: int, **schedule: Any) -> NTKMonitor:
    """A step takes 1 s, a measurement 3 s; to judge its forecast takes no time."""
    measured: set[int] = set()

    class Ticking(Noted):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            clock.now += 1.0
            return super().training_step(batch, batch_idx)

    def slow(module: Noted, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        clock.now += 0.0 if module.step in measured else 3.0
        measured.add(module.step)
        return module.residuals(batch)

    monitor = NTKMonitor(residuals=slow, **schedule)
    train(make(Ticking), monitor, steps=steps, batches=[batch()] * steps)
    return monitor


BUDGETS = [
    # A half of the time: 0 <= 0.5. 2: 3 <= 6 / 2. 5: 6 <= 12 / 2. 8: 9 <= 18 / 2. 13: the last.
    (14, {"every_n_steps": 1, "budget": 0.5}, [0, 2, 5, 8, 11, 13]),
    # Due at 0, 4, 8: a share of 1/4 is not yet earned at 4 (3 > 8 / 4), and at 8 it is.
    (11, {"every_n_steps": 4, "budget": 0.25}, [0, 8, 10]),
    (12, {"every_n_steps": 5, "budget": 0.25}, [0, 8, 11]),  # put off from 5, made up for at 8
]


@pytest.mark.parametrize(("steps", "schedule", "measured"), BUDGETS)
def test_budget_postpones_measurements(clock: Any, steps: int, schedule: Any, measured: Any):
    """Elapsed at step s: s + 1 and 3 a measurement."""
    assert steps_of(timed_fit(clock, steps, **schedule)) == measured


def test_overhead_is_the_share_of_the_time(clock: SimpleNamespace):
    monitor = timed_fit(clock, 6, every_n_steps=4)
    expected = {0: 3 / 4, 4: 6 / 11, 5: 9 / 15}
    assert series(monitor, "ntk/overhead_fraction") == pytest.approx(expected, rel=1e-12)


def test_early_stopping_and_checkpoints_go_by_our_values(tmp_path: Path):
    """A trace that falls below a threshold ends the fit; the smallest one is kept."""
    watched = NTKMonitor(every_n_steps=1)
    train(make(Noted, optimizer="adam"), watched, steps=20)
    trace = series(watched, "ntk/trace/bc")
    threshold = (trace[0] + trace[9]) / 2
    grows = trace[9] > trace[0]
    mode, best = ("max", max) if grows else ("min", min)
    crossing = min(s for s in trace if (trace[s] > threshold) == grows)
    stop = EarlyStopping("ntk/trace/bc", mode=mode, stopping_threshold=threshold, patience=99)
    keep = ModelCheckpoint(tmp_path, monitor="ntk/trace/bc", mode=mode, filename="{step}")
    module, monitor = make(Noted, optimizer="adam"), NTKMonitor(every_n_steps=1)
    options = {"max_epochs": 20, "limit_train_batches": 1, "enable_checkpointing": True}
    run = train(module, monitor, stop, keep, steps=-1, **options)
    assert run.current_epoch == run.global_step == crossing + 1
    assert 0 < crossing < 19
    extreme = best(series(monitor, "ntk/trace/bc").values())
    assert float(keep.best_model_score) == pytest.approx(extreme)
    assert float(run.callback_metrics["ntk/trace/bc"]) == pytest.approx(trace[crossing])


def test_values_stay_in_the_metrics_of_later_epochs():
    """A sparse schedule leaves its last values to whoever asks at the end of each epoch."""
    seen: list[float] = []
    monitor = NTKMonitor(every_n_steps=4)
    note = lambda run, *_: seen.append(float(run.callback_metrics["ntk/trace/pde"]))  # noqa: E731
    ask = calling(on_train_epoch_end=note)
    train(make(Noted), monitor, ask, steps=-1, max_epochs=5, limit_train_batches=2)
    trace = series(monitor, "ntk/trace/pde")
    expected = [trace[0], trace[0], trace[4], trace[4], trace[9]]
    assert seen == pytest.approx(expected, rel=1e-6)
