"""When to measure, and under which step: pure functions first, then a Trainer that counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from hypothesis import given
from hypothesis import strategies as st

from pinn_ntk.callbacks.schedule import Schedule, is_due
from pinn_ntk.callbacks.trainer.steps import final_step, last_step, logged_step
from tests.pinn import Pinn, TwoOptimizers, build, calling, fit

DUE = [
    ({"every_n_steps": 3}, None, [0, 3, 6]),
    ({"every_n_steps": 3}, 7, [0, 3, 6, 7]),
    ({"every_n_steps": 3}, 6, [0, 3, 6]),
    ({"every_n_steps": 1}, None, list(range(9))),
    ({"every_n_steps": 100}, None, [0]),
    ({"every_n_steps": 100}, 8, [0, 8]),
    ({"steps": [5, 2, 2]}, None, [2, 5]),
    ({"steps": np.array([2, 5])}, 7, [2, 5, 7]),
    ({"steps": (0,), "every_n_steps": 1}, None, [0]),
    ({"per_decade": 1}, None, [0, 1]),
    ({"per_decade": 2}, 8, [0, 1, 3, 8]),
    ({"per_decade": 1, "every_n_steps": 1}, None, [0, 1]),
]


@pytest.mark.parametrize(("rule", "last", "expected"), DUE, ids=str)
def test_steps_of_each_rule(rule: dict[str, Any], last: int | None, expected: list[int]):
    schedule = Schedule("NTKMonitor", **{"every_n_steps": 500, **rule})
    assert [step for step in range(9) if schedule.is_due(step, last)] == expected
    if list(rule) == ["every_n_steps"]:
        assert [step for step in range(9) if is_due(step, *rule.values(), last)] == expected
    assert [step for step in range(9) if schedule.due(step, last, 1.0, 0.0)] == expected


@pytest.mark.parametrize("per_decade", [1, 2, 3, 5, 7, 10, 64, 1000])
def test_decades_are_those_of_the_formula(per_decade: int):
    schedule = Schedule("NTKMonitor", 500, per_decade=per_decade)
    expected = {0} | {round(10 ** (k / per_decade)) for k in range(4 * per_decade + 1)}
    assert {step for step in range(10_001) if schedule.is_due(step)} == expected


@given(st.integers(1, 200), st.integers(0, 2400))
def test_every_step_of_the_formula_is_due(per_decade: int, k: int):
    step = round(10 ** (k % (12 * per_decade) / per_decade))
    assert Schedule("NTKMonitor", 500, per_decade=per_decade).is_due(step)


@pytest.mark.parametrize(
    ("budget", "spent", "elapsed", "affordable"),
    [
        (None, 1e9, 0.0, True),
        (0.25, 0.0, 0.0, True),
        (0.25, 1.0, 4.0, True),
        (0.25, 1.001, 4.0, False),
        (1, 3.0, 3.0, True),
    ],
)
def test_budget(budget: float | None, spent: float, elapsed: float, affordable: bool):
    assert Schedule("NTKMonitor", 500, budget=budget).affords(spent, elapsed) is affordable


def walk(schedule: Schedule, cost: float, last: int | None, steps: range) -> list[int]:
    """Steps acted on when a step takes one second and acting takes ``cost`` more."""
    done: list[int] = []
    for step in steps:
        spent = cost * len(done)
        if schedule.due(step, last, spent, step + spent):
            done.append(step)
    return done


def test_what_the_budget_puts_off_is_made_up_for_as_soon_as_it_can_be():
    # After the first, 4 s are spent; 4 <= (t + 4) / 2 from t = 4 on, 8 <= (t + 8) / 2 from t = 8 on
    schedule = Schedule("NTKMonitor", every_n_steps=3, budget=0.5)
    assert walk(schedule, cost=4.0, last=None, steps=range(14)) == [0, 4, 8, 12]
    assert walk(Schedule("NTKMonitor", every_n_steps=3), 4.0, None, range(14)) == [0, 3, 6, 9, 12]


def test_what_may_be_due_is_asked_without_putting_anything_off():
    schedule = Schedule("NTKMonitor", every_n_steps=3, budget=0.5)
    assert [s for s in range(9) if schedule.may_be_due(s, 7)] == [0, 3, 6, 7]
    assert schedule.due(0, None, 5.0, 1.0) is False
    assert schedule.may_be_due(1, None)
    assert schedule.due(1, None, 0.0, 1.0) is True
    assert not schedule.may_be_due(1, None)


def test_the_last_step_is_acted_on_whatever_it_costs():
    schedule = Schedule("NTKMonitor", every_n_steps=2, budget=0.01)
    assert walk(schedule, cost=100.0, last=7, steps=range(8)) == [0, 7]
    assert schedule.state_dict() == {"postponed": False}


def test_a_postponed_step_survives_a_checkpoint():
    schedule = Schedule("NTKMonitor", every_n_steps=4, budget=0.5)
    assert walk(schedule, cost=6.0, last=None, steps=range(6)) == [0]
    restored = Schedule("NTKMonitor", every_n_steps=4, budget=0.5)
    restored.load_state_dict(schedule.state_dict())
    assert [one.due(5, None, 0.0, 1.0) for one in (schedule, restored)] == [True, True]
    assert [one.due(5, None, 0.0, 1.0) for one in (schedule, restored)] == [False, False]
    restored.load_state_dict({})
    assert restored.due(5, None, 0.0, 1.0) is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every_n_steps": 0}, "every_n_steps is 0; expected an integer of at least 1"),
        ({"every_n_steps": 2.0}, r"every_n_steps is 2\.0"),
        ({"steps": []}, r"steps is \[\]; expected a list of steps"),
        ({"steps": 5}, "steps is 5; expected a list of steps"),
        ({"steps": "12"}, "steps is '12'; expected a list of steps"),
        ({"steps": [0, -1]}, r"steps\[1\] is -1; expected an integer of at least 0"),
        ({"steps": [True]}, r"steps\[0\] is True"),
        ({"steps": np.array([0.5])}, r"steps\[0\] is .*0\.5"),
        ({"per_decade": 0}, "per_decade is 0; expected an integer of at least 1"),
        ({"per_decade": True}, "per_decade is True"),
        ({"steps": [1], "per_decade": 2}, r"steps is \[1\] and per_decade is 2; give one"),
        ({"budget": 0}, r"budget is 0; expected a share of the wall time in \(0, 1\]"),
        ({"budget": 5}, "budget is 5"),
        ({"budget": math.nan}, "budget is nan"),
        ({"budget": True}, "budget is True"),
        ({"budget": "5%"}, "budget is '5%'"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=f"^NTKMonitor: {said}"):
        Schedule("NTKMonitor", **{"every_n_steps": 500, **arguments})


def test_the_interval_is_given_by_the_callback():
    with pytest.raises(TypeError, match="every_n_steps"):
        Schedule("NTKMonitor")  # type: ignore[call-arg]


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


def noted(module: Pinn, *callbacks: pl.Callback, **options: Any) -> Any:
    """Before each backward pass: the step that Lightning logs under, and the last there will be."""

    def note(run: pl.Trainer, *_: Any) -> None:
        steps.append((logged_step(run), last_step(run)))

    steps: list[tuple[int, int | None]] = []
    fit(module, calling(on_before_backward=note), *callbacks, **options)
    return zip(*steps, strict=True)


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
    steps, last = noted(build(), **options)
    assert list(steps) == logged
    assert set(last) == {logged[-1]}


def test_a_batch_is_one_step_however_many_optimizers_it_has():
    logged, last = noted(TwoOptimizers(), steps=6)
    assert logged == (0, 0, 1, 1, 2, 2)
    # In the first batch it is not yet known that a batch makes two optimizer steps.
    assert last[::2] == (5, 2, 2)  # before the first of the two


def test_without_lightnings_private_counter_global_step_is_taken(monkeypatch: pytest.MonkeyPatch):
    run = fit(build(), steps=3)
    assert (run.global_step, logged_step(run)) == (3, 3)
    monkeypatch.delattr(run.fit_loop.epoch_loop, "_batches_that_stepped")
    assert logged_step(run) == 3


def test_an_endless_fit_has_no_last_step():
    def stop(run: pl.Trainer, *_: Any) -> None:
        run.should_stop = run.global_step >= 2

    _, last = noted(build(), calling(on_train_batch_end=stop), steps=-1, max_epochs=-1)
    assert last == (None, None)
