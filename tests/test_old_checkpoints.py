"""Runs go on from checkpoints of the code before it was rewritten as that code would have done."""

from __future__ import annotations

import pytest
import torch

from pinn_ntk.callbacks import NTKMonitor
from tests.records import (
    END,
    FOLDER,
    ROUTES,
    callbacks_by,
    differences,
    recorded,
    same_arithmetic,
    short,
)


@pytest.mark.parametrize("route", ROUTES)
def test_a_run_goes_on_from_an_old_checkpoint(route: str):
    _, resumed = short(route, END, FOLDER / f"checkpoint_{route}.pt")
    expected = recorded()["uninterrupted"][route]
    assert differences(resumed, expected, exact=same_arithmetic())[:20] == []
    assert [step for step, _ in resumed["monitor"]["ntk/trace/bc"]] == [0, 2, 4, 6, 8, 9]


@pytest.mark.parametrize("route", [*ROUTES, "partial"])
def test_an_uninterrupted_run_gives_what_is_recorded(route: str):
    _, whole = short(route, END)
    expected = recorded()["uninterrupted"][route]
    assert differences(whole, expected, exact=same_arithmetic())[:20] == []


@pytest.mark.parametrize("route", ROUTES)
def test_states_go_under_the_keys_that_they_had(route: str):
    states = torch.load(FOLDER / f"checkpoint_{route}.pt", weights_only=True)["callbacks"]
    assert list(states) == [callback.state_key for callback in callbacks_by(route)]


def test_a_state_from_before_forecasts_were_judged_is_read():
    states = torch.load(FOLDER / "checkpoint_loss.pt", weights_only=True)["callbacks"]
    (old,) = [state for key, state in states.items() if key.startswith("NTKMonitor")]
    del old["book"]["judged"], old["outlook"]
    monitor = NTKMonitor(every_n_steps=2)
    monitor.load_state_dict(old)
    assert "ntk/trace/pde" in monitor.history
    assert monitor.state_dict()["diagnostics"]["late"] == {}


def test_a_state_of_a_version_to_come_is_refused():
    with pytest.raises(ValueError, match=r"version 99.*newer pinn_ntk"):
        NTKMonitor().load_state_dict({"version": 99})
