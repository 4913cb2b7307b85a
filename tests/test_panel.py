"""Diagnostics together: each is asked alone, and fails alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from pinn_ntk import Look, NTKWarning, look
from pinn_ntk.callbacks import NTKMonitor
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.diagnostics import Diagnostic, Panel, Reading
from pinn_ntk.diagnostics.distance_to_limit import DistanceFromLimit
from pinn_ntk.diagnostics.predicted_decrease import PredictedDecrease
from pinn_ntk.diagnostics.registry import chosen
from pinn_ntk.looks.step_terms import PROBE
from tests.by_hand import Plain
from tests.looks import ask, look_at, rows, values
from tests.pinn import ours
from tests.zoo import make, series, train

LOGGED = "Its traceback is logged at level DEBUG by pinn_ntk."


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no such luck.")


class Noting(Diagnostic):
    """Notes how it is called; some calls fail."""

    def __init__(self, name: str, **calls: Callable[..., Any]) -> None:
        self.name, self.title, self.calls, self.waits = name, f"the {name}", [], True
        for call in (
            *("fit_starts", "batch_starts", "read", "follow", "stepped", "points_renewed"),
            *("batch_ends", "fit_ends", "reset"),
        ):
            setattr(self, call, self._noted(call, calls.get(call, lambda *_, **__: None)))

    def _noted(self, call: str, do: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (self.calls.append(call), do(*given, **named))[1]


def at(step: int = 0) -> Look:
    return look_at({"pde": rows(3)}, step)


def guarded(*diagnostics: Diagnostic) -> Panel:
    return Panel(diagnostics, Guard("NTKMonitor"))


def warned_of(part: Callable[[], Any]) -> list[str]:
    with pytest.warns(NTKWarning) as warned:
        part()
    return ours(warned)


def test_one_that_raises_leaves_the_others_and_is_off_for_the_fit():
    def fit() -> None:
        for step in range(3):
            panel.batch_starts(due=True)
            assert [reading.step for reading in panel.read(at(step))] == [step]
            panel.stepped(at(step))
            panel.batch_ends()
        panel.fit_ends()

    bad, good = Noting("bad", read=fail), Noting("good", read=lambda look: Reading(look.step))
    panel = guarded(bad, good)
    said = "NTKMonitor: the bad failed with RuntimeError: no such luck. Training goes on; the bad"
    assert warned_of(fit) == [f"{said} is switched off for this fit. {LOGGED}"]
    # What was opened is closed, but nothing else is asked of it.
    assert bad.calls == ["batch_starts", "read", *["batch_ends"] * 3, "fit_ends"]
    assert good.calls == [*["batch_starts", "read", "stepped", "batch_ends"] * 3, "fit_ends"]
    assert panel.readings.keys() == {"step", "good"}


@pytest.mark.parametrize("end", ["batch_ends", "fit_ends"])
def test_letting_go_is_done_for_all_though_it_fails_for_one(end: str):
    bad, good = Noting("bad", **{end: fail}), Noting("good")
    with pytest.warns(NTKWarning, match="letting go of the bad failed with RuntimeError"):
        getattr(guarded(bad, good), end)()
    assert good.calls == [end]


def test_without_a_guard_failures_come_through():
    with pytest.raises(RuntimeError, match="no such luck"):
        Panel([Noting("bad", read=fail)]).read(at())
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    lost = replace(look((rows(3) @ theta).square().mean(), [theta]), balanced=fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        Panel(chosen(["weights"])).read(lost)


STABLE = "the largest stable learning rate"
BLOCKS = "the spectra, the definiteness, the drift"


@pytest.mark.parametrize(
    ("broken", "title", "without"),
    [
        ("losses", "the loss of each term", "the interference, the predicted decrease"),
        ("curvature", "the curvature of the loss", STABLE),
        ("sampled", "the kernel of the rows kept", f"{BLOCKS}, {STABLE}"),
    ],
)
def test_a_shared_quantity_that_fails_is_told_once_with_those_who_go_without(
    broken: str, title: str, without: str, monkeypatch: pytest.MonkeyPatch
):
    def read_twice() -> None:
        for _ in range(2):
            loss = (rows(3) @ theta).square().mean() + (rows(2, seed=1) @ theta).square().mean()
            panel.read(look(loss, [theta], names=["pde", "bc"]))

    compute = Mock(side_effect=fail)
    monkeypatch.setattr(getattr(Look, broken), "compute", compute)
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    reader = Noting("reader", read=lambda look: getattr(look, broken) and None)
    others = [one for one in chosen() if one.name != "verdict"]  # which goes on without
    panel = guarded(*others, reader)
    assert panel.waits  # as `reader` does, while it is on
    without += ", the reader"
    said = "failed with RuntimeError: no such luck. Training goes on; left out for this fit without"
    expected = [f"NTKMonitor: {title} {said} it: {without}. {LOGGED}"]
    assert warned_of(read_twice) == expected
    assert compute.call_count == 1  # nobody asks again
    assert not panel.waits
    assert "trace/pde" in values(panel)
    panel.attempt = Guard("NTKMonitor")
    panel.fit_starts(nn.Linear(1, 1), resumed=False)  # all may read again
    assert warned_of(read_twice) == expected


def test_late_readings_come_from_those_that_wait_and_stay():
    late = lambda step: lambda _: Reading(step, {"x": float(step)})  # noqa: E731
    panel = Panel([Noting("one", follow=late(3)), Noting("two", stepped=late(5))])
    assert panel.waits
    assert [r.step for r in panel.follow(at(4))] == [3]
    panel.diagnostics["one"].waits = panel.diagnostics["two"].waits = False
    assert (panel.waits, panel.follow(at(4))) == (False, [])
    assert [r.step for r in panel.stepped(at(5))] == [5]
    panel.read(at(6))
    assert {name: r.step for name, r in panel.readings.items()} == {"one": 3, "two": 5, "step": 6}
    other = Panel([Noting("one"), Noting("three")])
    other.load_state_dict(panel.state_dict())
    assert other.readings == {"one": Reading(3, {"x": 3.0})}
    panel.fit_starts(nn.Linear(1, 1), resumed=True)
    assert panel.readings.keys() == {"one", "two"}
    panel.reset()
    assert panel.readings == {}


def test_state_goes_by_name_and_unknown_names_are_passed_over():
    panel = ask(look_at({"pde": rows(3)}, points=PROBE), "drift", "spectrum", "traces")
    state = panel.state_dict()
    assert state["states"].keys() == {"drift", "spectrum"}  # traces have none
    other = Panel(chosen(["drift", "rank"]))
    other.load_state_dict(state | {"states": state["states"] | {"gone": {"x": 1}}})
    other.read(look_at({"pde": 2 * rows(3)}, 1, points=PROBE))
    assert values(other)["drift/pde"] == pytest.approx(3.0)
    other.load_state_dict({"states": {}, "late": {}})


def test_new_points_are_told_to_all():
    panel = Panel([Noting("one"), Noting("two")])
    panel.points_renewed()
    assert [diagnostic.calls for diagnostic in panel] == [["points_renewed"]] * 2


@pytest.mark.parametrize(
    ("kind", "hook"),
    [(PredictedDecrease, hook) for hook in ("read", "stepped", "follow")]
    + [(DistanceFromLimit, hook) for hook in ("fit_starts", "batch_starts", "read")],
)
def test_in_a_training_a_failure_is_told_once_and_leaves_the_rest(
    kind: type[Diagnostic], hook: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kind, hook, fail)
    monitor = NTKMonitor(every_n_steps=1)
    (message,) = warned_of(lambda: train(make(Plain), monitor, steps=4))
    assert f"{kind.title} failed with RuntimeError: no such luck" in message
    assert not monitor.history.keys() & {f"ntk/{tag.pattern}" for tag in kind.tags}
    assert list(series(monitor, "ntk/lr")) == [0, 1, 2, 3]
