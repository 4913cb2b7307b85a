"""Runs go on from checkpoints of the code before it was rewritten as that code would have done."""

from __future__ import annotations

import pytest
import torch

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
