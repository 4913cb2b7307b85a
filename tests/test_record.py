"""Whole runs equal, to the last digit, those of the code before it was rewritten."""

from __future__ import annotations

import copy

import pytest

from tests.records import CASES, differences, recorded, run, same_arithmetic


def test_this_machine_computes_as_that_of_the_record():
    if not same_arithmetic():
        pytest.skip("digits of other hardware or another torch: runs are compared to 1e-8")


@pytest.mark.parametrize(("problem", "route"), CASES)
def test_a_run_gives_what_is_recorded(problem: str, route: str):
    expected = recorded()["runs"][f"{problem} {route}"]
    found = differences(run(problem, route), expected, exact=same_arithmetic())
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
