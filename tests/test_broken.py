"""The broken PINNs themselves: enough of each cause in both halves, and they train."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from tests.broken import RUNS, Run
from tests.broken.measure import Measured

BY_NAME = {run.name: run for run in RUNS}
CAUSES = (
    *("DIVERGED", "DETACHED", "DERIVATIVE_VANISHES", "NOT_TRAINED", "BROADCAST"),
    *("REPEATED_POINTS", "INPUTS_NOT_SCALED", "SATURATED", "NOTHING_TO_FIND"),
    *("OUTPUTS_NOT_SCALED", "RANDOM_OR_DECAY", "STEP_TOO_SHORT", "EARLY", "POINTS", "TOO_NARROW"),
    *("ROUNDING", "STEP_TOO_LARGE", "IMBALANCE", "CAUSALITY", "CONTRADICTION", "SPECTRAL_BIAS"),
    *("NOT_UNIQUE", "CLEAN"),
)


def test_names_are_unique():
    assert [name for name, n in Counter(run.name for run in RUNS).items() if n > 1] == []


def test_no_other_causes():
    assert {run.cause for run in RUNS} == set(CAUSES)


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_there_in_both_halves(cause: str):
    halves = Counter(run.half for run in RUNS if run.cause == cause)
    assert sum(halves.values()) >= (12 if cause == "CLEAN" else 3)
    assert set(halves) == {"set", "judge"}


def test_all_but_the_healthy_have_a_cured_twin_and_only_they():
    assert {run.cause for run in RUNS if not run.mistake} == {"CLEAN", "EARLY"}
    assert [run.name for run in RUNS if run.cause == "CLEAN" and run.mistake] == []


SOME = 10
"""Every so many runs are started in CI."""


@pytest.mark.filterwarnings("ignore")  # of what a run is broken by
@pytest.mark.parametrize(
    "run",
    [
        run if number % SOME == 0 else pytest.param(run, marks=pytest.mark.slow)
        for number, run in enumerate(RUNS)
    ],
    ids=lambda run: run.name,
)
def test_a_run_and_its_twin_start(run: Run):
    """One short fit: the error is a number, and nothing is left to a missing argument."""
    for setup in (run.build(), run.cured()):
        if setup is not None:
            assert setup.fit(max_steps=2, limit_train_batches=2) >= 0


def test_the_same_seed_gives_the_same_run():
    run = BY_NAME["random-poisson-dropout"]
    one, other, third = (run.build(seed).fit(max_steps=3) for seed in (0, 0, 1))
    assert one == other != third


def test_a_mistake_is_all_that_tells_the_twins_apart():
    run = BY_NAME["vanishes-heat-leaky-relu"]
    broken, cured = run.build().module, run.cured().module
    assert type(broken) is type(cured)
    assert torch.equal(broken.points, cured.points)
    assert isinstance(broken.net[1], torch.nn.LeakyReLU)
    assert isinstance(cured.net[1], torch.nn.Tanh)


def test_a_network_that_is_not_finite_has_failed_without_bound():
    module = BY_NAME["clean-heat-adam"].build().module
    with torch.no_grad():
        module.net[0].weight.fill_(math.nan)
    assert module.error() == math.inf


@pytest.mark.parametrize(
    ("cause", "error", "cured", "planned"),
    [
        ("CLEAN", 0.05, None, True),
        ("CLEAN", 0.15, None, False),
        ("POINTS", 0.5, 0.05, True),
        ("POINTS", 0.15, 0.05, False),
        ("POINTS", 0.5, 0.3, False),
        ("POINTS", math.inf, None, True),
    ],
)
def test_what_counts_as_planned(cause: str, error: float, cured: float | None, planned: bool):
    run = Run("name", cause, "set", BY_NAME["clean-heat-adam"].problem, {})
    assert Measured(run, error, cured, 1.0).as_planned == planned


@pytest.mark.slow
@pytest.mark.parametrize("name", ["short-clipped", "untrained-coefficient", "inputs-years"])
def test_broken_runs_fail_and_cured_ones_work(name: str):
    run = BY_NAME[name]
    cured = run.cured()
    assert cured is not None
    assert Measured(run, run.build().fit(), cured.fit(), 0.0).as_planned
