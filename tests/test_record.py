"""Whole runs equal those of the code before it was rewritten, to the digits that machines share.

So do runs that go on from its checkpoints.
"""

from __future__ import annotations

import copy

import pytest
import torch

from pinn_ntk.callbacks import NTKMonitor
from tests.records import (
    CASES,
    FOLDER,
    ROUTES,
    callbacks_by,
    differences,
    recorded,
    run,
    short,
)


@pytest.mark.parametrize(("problem", "route"), CASES)
def test_a_run_gives_what_is_recorded(problem: str, route: str):
    expected = recorded()["runs"][f"{problem} {route}"]
    found = differences(run(problem, route), expected)
    assert found[:20] == []


def test_the_record_has_something_to_say():
    runs = recorded()["runs"]
    assert list(runs) == [f"{problem} {route}" for problem, route in CASES]
    for name, recorded_run in runs.items():
        steps = [step for step, _ in recorded_run["monitor"]["ntk/trace/pde"]]
        assert steps == [0, 10, 20, 30, 40, 50, 59]
        assert [step for step, _ in recorded_run["texts"]["ntk/summary/text_summary"]] == [0, 59]
        assert min(recorded_run["weights"].values()) > 1.1, name
        assert recorded_run["monitor"]["ntk/drift/parameters"][-1][1] > 0.05, name


def test_a_difference_in_the_last_digit_is_found():
    before = recorded()["runs"]["wave loss"]
    after = copy.deepcopy(before)
    assert differences(after, before, exact=True) == differences(after, before, exact=False) == []
    after["monitor"]["ntk/trace/u"][3][1] *= 1 + 3e-16
    assert len(differences(after, before, exact=True)) == 1
    assert differences(after, before, exact=False) == []
    after["monitor"]["ntk/trace/u"][3][1] *= 1 + 3e-8
    assert len(differences(after, before, exact=False)) == 1
    del after["monitor"]["ntk/lr"]
    assert len(differences(after, before, exact=False)) == 2


def test_sentences_are_compared_but_for_those_that_were_reworded():
    before = recorded()["runs"]["wave loss"]
    after = copy.deepcopy(before)
    texts = after["texts"]["ntk/summary/text_summary"]
    texts[0][1] = texts[0][1].replace("must fall", "falls").replace(".0e-", "e-")
    assert texts != before["texts"]["ntk/summary/text_summary"]
    assert differences(after, before, exact=True) == []
    texts[0][1] = texts[0][1].replace("Certificate", "Proof")
    assert len(differences(after, before, exact=True)) == 1


def test_the_verdict_is_new_and_nothing_else_may_be():
    before = recorded()["runs"]["wave loss"]
    after = copy.deepcopy(before)
    after["monitor"]["ntk/verdict"] = [[0, 13.0]]
    texts = after["texts"]["ntk/summary/text_summary"]
    texts[0][1] = f"**Verdict: early (likely)**\n\n- Help: Wait.\n\n{texts[0][1]}"
    assert differences(after, before, exact=True) == []
    after["monitor"]["ntk/another"] = [[0, 1.0]]
    assert len(differences(after, before, exact=True)) == 1


# --- Checkpoints of the code before it was rewritten


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
@pytest.mark.parametrize("route", ROUTES)
def test_a_run_goes_on_from_an_old_checkpoint(route: str):
    resumed = short(route, FOLDER / f"checkpoint_{route}.pt")
    expected = recorded()["uninterrupted"][route]
    assert differences(resumed, expected)[:20] == []
    assert [step for step, _ in resumed["monitor"]["ntk/trace/bc"]] == [0, 2, 4, 6, 8, 9]


@pytest.mark.parametrize("route", [*ROUTES, "partial"])
def test_an_uninterrupted_run_gives_what_is_recorded(route: str):
    whole = short(route)
    expected = recorded()["uninterrupted"][route]
    assert differences(whole, expected)[:20] == []


@pytest.mark.parametrize("route", ROUTES)
def test_states_go_under_the_keys_that_they_had(route: str):
    states = torch.load(FOLDER / f"checkpoint_{route}.pt", weights_only=True)["callbacks"]
    monitor, balancer = callbacks_by(route)
    assert list(states) == [
        monitor.state_key,
        balancer.state_key.replace("'convention': 'sum', ", ""),
    ]


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
