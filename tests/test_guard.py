"""The guard around diagnostics: what fails is told once, with its traceback in the log."""

from __future__ import annotations

import logging
import re
import time
import traceback
import warnings
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from pinn_ntk import NTKWarning
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.errors import ArgumentError, warn


def fail() -> int:
    return 1 // 0


def test_results_come_through():
    assert Guard("NTKMonitor").run("adding", lambda: 2 + 3) == 5


def test_a_failure_is_one_warning_with_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture):
    guard = Guard("NTKMonitor")
    caplog.set_level("DEBUG", "pinn_ntk")
    with pytest.warns(NTKWarning) as warned:
        assert guard.run("the ratio", fail) is None
    (warning,) = warned
    assert str(warning.message) == (
        "NTKMonitor: the ratio failed with ZeroDivisionError: integer division or modulo by zero. "
        "Training goes on; the ratio is switched off for this fit. Its traceback is logged at "
        "level DEBUG by pinn_ntk."
    )
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.DEBUG, "pinn_ntk.callbacks.trainer.guard")
    assert record.getMessage() == "NTKMonitor: the ratio failed; training goes on."
    assert record.exc_info is not None
    assert "return 1 // 0" in caplog.text


def test_what_failed_is_off_until_the_next_fit(caplog: pytest.LogCaptureFixture):
    guard, count = Guard("NTKMonitor"), Mock(side_effect=fail)
    caplog.set_level("DEBUG", "pinn_ntk")
    for fit in (1, 2):
        with pytest.warns(NTKWarning) as warned:
            assert [guard.run("counting", count) for _ in range(3)] == [None] * 3
        assert (len(warned), count.call_count, len(caplog.records)) == (1, fit, fit)
        assert guard.run("something else", lambda: 7) == 7
        guard.restart()


def test_a_retry_runs_again_and_is_told_once(caplog: pytest.LogCaptureFixture):
    guard, results = Guard("NTKBalancer"), iter([0, 0, 4])
    caplog.set_level("DEBUG", "pinn_ntk")
    with pytest.warns(NTKWarning, match="the update is tried again when next due") as warned:
        done = [guard.run("the update", lambda: 8 // next(results), retry=True) for _ in range(3)]
    assert done == [None, None, 2]
    assert (len(warned), len(caplog.records)) == (1, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_not_caught(error: type[BaseException]):
    with pytest.raises(error):
        Guard("NTKMonitor").run("stopping", Mock(side_effect=error))


def test_time_is_counted_even_of_what_fails(clock: SimpleNamespace):
    guard = Guard("NTKMonitor")

    def slow_failure() -> None:
        clock.now += 2.0
        fail()

    with guard.timed():
        clock.now += 1.0
    clock.now += 5.0
    with pytest.warns(NTKWarning):
        guard.run("a slow failure", slow_failure)
    assert (guard.seconds, guard.elapsed()) == (3.0, 8.0)
    guard.restart()
    assert (guard.seconds, guard.elapsed()) == (0.0, 0.0)


def test_time_within_time_is_counted_once(clock: SimpleNamespace):
    guard = Guard("NTKMonitor")

    def tick() -> None:
        clock.now += 1.0

    def outer() -> None:
        tick()
        guard.run("an inner call", tick)
        with guard.timed():
            tick()

    guard.run("an outer call", outer)
    assert guard.seconds == 3.0
    guard.run("the next call", tick)
    assert guard.seconds == 4.0


def test_the_clock_is_wall_time():
    guard = Guard("NTKMonitor")
    guard.run("sleeping", lambda: time.sleep(0.02))
    assert 0.02 <= guard.seconds <= guard.elapsed() < 5.0


@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("no rows."), "ValueError: no rows. Tr"), (ValueError(), "ValueError. Tr")],
)
def test_sentences_of_the_warning_are_apart(error: Exception, said: str):
    with pytest.warns(NTKWarning, match=re.escape(f"failed with {said}aining goes on;")):
        Guard("NTKMonitor").run("the sum", Mock(side_effect=error))


def test_a_warning_is_given_once_a_fit():
    guard = Guard("NTKMonitor")
    for _ in range(2):
        with pytest.warns(NTKWarning, match=r"^NTKMonitor: No taps were seen\.$") as warned:
            guard.warn_once("taps", "No taps were seen.")
        assert [warning.filename for warning in warned] == [__file__]
        guard.warn_once("taps", "No taps were seen, again.")
        with pytest.warns(NTKWarning, match=r"^NTKMonitor: Parameters are sharded\.$"):
            guard.warn_once("strategy", "Parameters are sharded.")
        guard.restart()


def test_no_traceback_is_shown_unless_it_is_asked_for(capfd: pytest.CaptureFixture[str]):
    with pytest.warns(NTKWarning, match="logged at level DEBUG"):
        Guard("NTKMonitor").run("the ratio", fail)
    assert "Traceback" not in capfd.readouterr().err


def test_a_warning_that_is_an_error_changes_no_training(unheard: list[logging.LogRecord]):
    guard = Guard("NTKMonitor")  # the suite makes errors of warnings
    for _ in range(2):
        guard.warn_once("taps", "No taps were seen.")
        assert guard.run("the ratio", fail) is None
    first, second = (record.getMessage() for record in unheard)
    assert first == "NTKMonitor: No taps were seen."
    assert second.startswith("NTKMonitor: the ratio failed with ZeroDivisionError")
    unheard.clear()


@pytest.mark.parametrize("filters", ["always", "default", "once", "module"])
def test_once_is_once_a_fit_whatever_the_filters(filters: Any):
    guard = Guard("NTKMonitor")
    for fit in (1, 2):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter(filters)
            for step in range(3):
                guard.warn_once("taps", f"No taps in fit {fit}.")
                guard.run("reading", lambda: warn(f"term 'pde': {step} rows one by one."))  # noqa: B023
                guard.run("the ratio", fail)
        assert [str(w.message)[:32] for w in warned] == [
            f"NTKMonitor: No taps in fit {fit}.",
            "term 'pde': 0 rows one by one.",
            "NTKMonitor: the ratio failed wit",
        ]
        guard.restart()


def test_callbacks_of_a_fit_say_the_same_thing_once():
    first, second = Guard("NTKMonitor"), Guard("NTKBalancer")
    second.told = first.told
    with pytest.warns(NTKWarning) as warned:
        first.run("reading", lambda: warn("term 'pde': 12.5 MiB one by one."))
    second.run("reading", lambda: warn("term 'pde': 25 MiB one by one."))
    assert [str(w.message) for w in warned] == ["term 'pde': 12.5 MiB one by one."]


def test_outside_a_guard_the_engine_warns_as_python_does():
    with pytest.warns(NTKWarning, match="one by one") as warned:
        warn("one by one")
    assert [warning.filename for warning in warned] == [__file__]


def test_a_wrong_argument_is_let_through_alone():
    def wrong() -> None:
        try:
            fail()
        except ZeroDivisionError as error:
            raise ArgumentError("names has 3 names.") from error

    with pytest.raises(ArgumentError, match=r"^names has 3 names\.$") as raised:
        Guard("NTKMonitor").run("reading", wrong)
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None
    shown = "".join(traceback.format_exception(raised.value))
    assert "ZeroDivisionError" not in shown
    assert "in wrong" not in shown
