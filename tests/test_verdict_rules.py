"""Each rule of the verdict: where it speaks, and where it must not."""

from __future__ import annotations

from typing import Any

import pytest

from pinn_ntk.verdict import diagnose
from pinn_ntk.verdict.about import ABOUT
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.diagnose import judge
from pinn_ntk.verdict.verdict import LIKELY, Evidence, Verdict
from tests.cases_of_verdicts import SOLVED, case

START = {"saturated": 0.1, "size": 1.0}
"""Findings of a first measurement."""

AT_ODDS: dict[str, Any] = {
    "cancelling": 0.05,
    "apart": {"pde": (0.9, 0.01), "bc": (0.1, 0.0)},
}
"""No step helps both terms, each could be solved alone."""

SPEAKS: dict[str, tuple[Cause, dict[str, Any]]] = {
    "loss not finite": (Cause.DIVERGED, {"not_finite": 300}),
    "not finite though solved": (Cause.DIVERGED, {**SOLVED, "not_finite": 300}),
    "a term without gradient": (Cause.DETACHED, {"untrained": "'bc' has no gradient. Write it."}),
    "the same, others solved": (Cause.DETACHED, {**SOLVED, "untrained": "'bc' has none. Mend."}),
    "a number made a tensor anew": (Cause.DETACHED, {**SOLVED, "wrapped": 1}),
    "a derivative is cut off": (Cause.DETACHED, {"cut": {"pde": 0.4}}),
    "a small part of a derivative is cut off": (Cause.DETACHED, {"cut": {"pde": 0.008}}),
    "jumps of a derivative": (
        Cause.DERIVATIVE_VANISHES,
        {"cut": {"pde": 0.4}, "activations": ["ReluBackward0"]},
    ),
    "kinks": (Cause.DERIVATIVE_VANISHES, {"kinks": {"pde": 1.0}}),
    "kinks though solved": (Cause.DERIVATIVE_VANISHES, {**SOLVED, "kinks": {"pde": 1.0}}),
    "kernel zero": (Cause.DETACHED, {"rates": {"pde": 0.0, "bc": 1.0}}),
    "kernel zero, straight pieces": (
        Cause.DERIVATIVE_VANISHES,
        {"rates": {"pde": 0.0, "bc": 1.0}, "activations": ["ReluBackward0"], "kinks": {}},
    ),
    "kernel zero, of polynomials": (
        Cause.DERIVATIVE_VANISHES,
        {"rates": {"pde": 0.0, "bc": 1.0}, "activations": []},
    ),
    "steps that lead nowhere": (Cause.STEP_TOO_SHORT, {"leap": 1e-5}),
    "early times, not all of it": (
        Cause.CAUSALITY,
        {"concentration": {"pde": {"share": 0.55, "early": 1.0}}},
    ),
    "a group that stands still": (Cause.NOT_TRAINED, {"idle": ["k"]}),
    "no optimizer": (Cause.NOT_TRAINED, {"unheld": ["net.0.weight"], "unheld_share": 0.4}),
    "frozen": (Cause.NOT_TRAINED, {"frozen": ["net.0.weight"], "frozen_share": 0.8}),
    "a network frozen": (
        Cause.NOT_TRAINED,
        {"frozen": ["v.0.weight"], "frozen_share": 0.2, "frozen_network": True},
    ),
    "straight pieces": (
        Cause.DERIVATIVE_VANISHES,
        {"kinks": {"pde": 0.0}, "activations": ["ReluBackward0"]},
    ),
    "straight pieces leave no gradient": (
        Cause.DERIVATIVE_VANISHES,
        {"untrained": "'pde' has none. Mend.", "activations": ["ReluBackward0"]},
    ),
    "a handful of parameters": (
        Cause.TOO_NARROW,
        {"n_params": 10, "rows": {"pde": 40, "bc": 2}, "unreached": 0.1},
    ),
    "solved at its points alone, of raw inputs": (
        Cause.INPUTS_NOT_SCALED,
        {
            **SOLVED,
            "fresh": {"pde": 1e4},
            "inputs": {"largest": 3600.0, "spread": 1e3, "offset": 1.7},
        },
    ),
    "broadcast": (Cause.BROADCAST, {"accidents": {"pde": "it is (40, 40)). Write f[:, None]."}}),
    "repeated": (Cause.REPEATED_POINTS, {"repeated": {"pde": (3, 40)}}),
    "data at one point alone": (
        Cause.REPEATED_POINTS,
        {"rms": {"data": 0.0}, "zero": {"data": 1.0}, "order": {}, "repeated": {"data": (1, 60)}},
    ),
    "repeated though solved": (Cause.REPEATED_POINTS, {**SOLVED, "repeated": {"pde": (1, 40)}}),
    "large inputs": (
        Cause.INPUTS_NOT_SCALED,
        {"inputs": {"largest": 2e3, "spread": 8.0, "offset": 200.0}},
    ),
    "inputs alike": (
        Cause.INPUTS_NOT_SCALED,
        {"inputs": {"largest": 1e-3, "spread": 1e-4, "offset": 1.0}},
    ),
    "saturated from the start": (Cause.SATURATED, {"saturated": 0.8}),
    "dead": (Cause.SATURATED, {"dead": 1.0}),
    "nothing to find": (
        Cause.NOTHING_TO_FIND,
        {"zero": {"pde": 0.0, "bc": 0.0}, "size": 1e-3, **SOLVED},
    ),
    "large outputs": (
        Cause.OUTPUTS_NOT_SCALED,
        {
            "zero": {"pde": 1e5, "bc": 1e5},
            "rms": {"pde": 9e4, "bc": 9e4},
            "demand": {"pde": 5e3, "bc": 1e5},
        },
    ),
    "small outputs": (
        Cause.OUTPUTS_NOT_SCALED,
        {
            "zero": {"pde": 1e-4, "bc": 1e-4},
            "rms": {"pde": 1e-4, "bc": 1e-4},
            "demand": {"pde": 1e-5, "bc": 1e-4},
        },
    ),
    "dropout": (Cause.RANDOM_OR_DECAY, {"random": {"pde": 0.3}}),
    "decay": (Cause.RANDOM_OR_DECAY, {"decay": 0.9}),
    "too short": (Cause.STEP_TOO_SHORT, {"reach": 0.01}),
    "just begun": (Cause.EARLY, {"steps": 1}),
    "still falling": (
        Cause.EARLY,
        {"course": {"falling": 0.3, "fallen": 1.0, "rising": 0.0, "jitter": 0.0}},
    ),
    "few steps of Adam": (Cause.EARLY, {"scheduled": 0.1}),
    "between the points": (Cause.POINTS, {"fresh": {"pde": 1e4}}),
    "between the points, solved": (Cause.POINTS, {**SOLVED, "fresh": {"pde": 1e4}}),
    "beyond the points": (Cause.POINTS, {**SOLVED, "outside": {"pde": 1e4}}),
    "forgotten": (Cause.POINTS, {**SOLVED, "forgotten": ("pde", 1e4)}),
    "narrow": (Cause.TOO_NARROW, {"unreached": 0.99, "n_params": 20}),
    "rounding": (Cause.ROUNDING, {"rounding": {"pde": 0.7}}),
    "thrown into saturation": (Cause.STEP_TOO_LARGE, {"saturated": 0.9, "leap": 0.4}),
    "thrown until nothing moves": (
        Cause.STEP_TOO_LARGE,
        {"saturated": 0.9, "leap": 0.4, "rates": {"pde": 0.0, "bc": 1.0}, "cut": {"pde": 0.4}},
    ),
    "data torn at equal points": (Cause.CONTRADICTION, {"torn": {"bc": 0.99}}),
    "rounded to nothing": (
        Cause.ROUNDING,
        {"rms": {"pde": 0.01, "bc": 0.0}, "exact": {"pde": 0.01, "bc": 0.5}},
    ),
    "no optimizer, and so no kernel": (
        Cause.NOT_TRAINED,
        {"unheld": ["b"], "unheld_share": 0.4, "rates": {"pde": 0.0, "bc": 1.0}},
    ),
    "nothing but u = 0 has a weight": (
        Cause.NOTHING_TO_FIND,
        {"rms": {"pde": 1e-3, "bc": 0.9}, "zero": {"pde": 0.0, "bc": 1.0}, "size": 1e-3}
        | {"weights": {"pde": 1.0, "bc": 0.0}},
    ),
    "a term without weight": (Cause.IMBALANCE, {"weights": {"pde": 1.0, "bc": 0.0}}),
    "too few data, solved": (Cause.POINTS, {**SOLVED, "told": {"bc": -0.5}}),
    "rounding alone, in the way of another term": (
        Cause.ROUNDING,
        {"rms": {"pde": 0.09, "bc": 0.2}, "rounding": {"pde": 1e4}},
    ),
    "much less weight, and much worse": (
        Cause.IMBALANCE,
        {"rms": {"pde": 0.002, "bc": 0.16}, "rates": {"pde": 50.0, "bc": 1.0}},
    ),
    "jumps": (
        Cause.STEP_TOO_LARGE,
        {"course": {"falling": 0.0, "fallen": 0.5, "rising": 0.5, "jitter": 0.2}},
    ),
    "above the bound": (Cause.STEP_TOO_LARGE, {"plain": True, "lr": 0.03}),
    "hardly any weight": (
        Cause.IMBALANCE,
        {
            "rms": {"pde": 0.3, "bc": 0.9},
            "weights": {"pde": 1.0, "bc": 1e-4},
            "rates": {"pde": 1.0, "bc": 1.0},
        },
    ),
    "very few parameters": (Cause.TOO_NARROW, {"unreached": 0.7, "n_params": 7}),
    "contradiction, hardly slow": (
        Cause.CONTRADICTION,
        {"cancelling": 0.001, "modes": {"pde": (0.8, 0.0), "bc": (0.2, 0.01)}},
    ),
    "imbalance": (Cause.IMBALANCE, {"rms": {"pde": 0.01, "bc": 0.9}, "modes": {"bc": (0.9, 0.0)}}),
    "early times": (Cause.CAUSALITY, {"concentration": {"pde": {"share": 0.9, "early": 0.9}}}),
    "a long time, solved": (
        Cause.CAUSALITY,
        {
            **SOLVED,
            "zero": {"pde": 0.0, "bc": 1.0},
            "parts": {"pde": 1.0},
            "duration": {"pde": {"times": 9.0, "sum": 0.8}},
            "error": 0.06,
        },
    ),
    "contradiction": (
        Cause.CONTRADICTION,
        {"cancelling": 0.001, "modes": {"pde": (0.8, 0.0), "bc": (0.8, 0.0)}},
    ),
    "slow modes": (Cause.SPECTRAL_BIAS, {"modes": {"pde": (1e-5, 0.99)}}),
    "what lies between the points is little, and much for u": (
        Cause.POINTS,
        {**SOLVED, "rms": {"pde": 1e-4, "bc": 0.01}, "error": 0.01, "fresh": {"pde": 1e4}},
    ),
    "free in a batch along a line": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 0.1, "size": 0.4}, "stays": False, "n_points": 64},
    ),
    "free": (Cause.NOT_UNIQUE, {"free": {"u": 0.7, "size": 5.0}}),
    "free though solved": (Cause.NOT_UNIQUE, {**SOLVED, "free": {"u": 0.7, "size": 5.0}}),
    "a coefficient free": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 1e-6, "size": 0.0, "k": 0.5}},
    ),
    "corners": (
        Cause.CONTRADICTION,
        {**SOLVED, "rms": {"pde": 0.01, "bc": 0.08}, "clash": ("ic", "bc", 0.6)},
    ),
    "all solved": (Cause.CLEAN, SOLVED),
    "barely solved, but u is right": (
        Cause.CLEAN,
        {"rms": {"pde": 0.15, "bc": 0.2}, "error": 0.02},
    ),
    "solved, but u is not right yet": (
        Cause.EARLY,
        {
            **SOLVED,
            "error": 0.3,
            "course": {"falling": 0.05, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "solved, but a coefficient is not right yet": (
        Cause.EARLY,
        {
            **SOLVED,
            "off": {"k": 0.3},
            "course": {"falling": 0.05, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "solved, and the coefficient is right": (Cause.CLEAN, {**SOLVED, "off": {"k": 0.03}}),
    "solved, but u is not right, and nothing moves": (
        Cause.UNKNOWN,
        {
            **SOLVED,
            "error": 0.3,
            "course": {"falling": 0.001, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "no reason": (Cause.UNKNOWN, {}),
    "solved in single precision alone": (
        Cause.ROUNDING,
        {**SOLVED, "exact": {"pde": 1.0, "bc": 0.01}, "rounding": {"pde": 0.99, "bc": 0.0}},
    ),
    "saturated from the first": (Cause.SATURATED, {"saturated": 0.45}),
    "terms at odds": (Cause.CONTRADICTION, AT_ODDS),
    "at odds, though one outweighs the other": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "rms": {"pde": 0.9, "bc": 0.01}, "modes": {"pde": (0.9, 0.0)}},
    ),
    "at odds from early times on": (
        Cause.CAUSALITY,
        {
            **AT_ODDS,
            "concentration": {"pde": {"share": 0.35, "early": 1.0}},
            "ranges": {"pde": [(0.0, 1.0), (0.0, 1.0)]},
        },
    ),
    "at odds with data along a line, from early times on": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "concentration": {"pde": {"share": 0.9, "early": 1.0}}},
    ),
    "at odds, and the weight is a thousandth": (
        Cause.IMBALANCE,
        {**AT_ODDS, "rms": {"pde": 0.9, "bc": 0.01}, "weights": {"pde": 1e-5, "bc": 1.0}},
    ),
    "one function is free, and the loss falls": (
        Cause.NOT_UNIQUE,
        {
            "free": {"u": 0.09, "size": 3.0, "mode": 0.999},
            "course": {"falling": 0.2, "fallen": 3.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "four points in a plane": (
        Cause.POINTS,
        {
            **SOLVED,
            "free": {"u": 0.01, "size": 0.1},
            "n_points": 4,
            "ranges": {"pde": [(0.0, 1.0), (0.0, 1.0)]},
        },
    ),
    "a coefficient hardly told": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 1e-6, "size": 0.0, "k": 0.04}},
    ),
    "a start that is rounded away, where u = 0 solves the rest": (
        Cause.ROUNDING,
        {
            "rms": {"pde": 1e-3, "bc": 0.0},
            "zero": {"pde": 0.0, "bc": 0.0},
            "parts": {"pde": 0.1, "bc": 0.7},
            "size": 0.01,
            "exact": {"pde": 1e-3, "bc": 0.7},
            "error": 0.01,
        },
    ),
    "barely solved, by a step that leaves the rest": (
        Cause.CAUSALITY,
        {
            "rms": {"pde": 0.2, "bc": 0.01},
            "error": 0.04,
            "apart": {"pde": (0.99, 0.99), "bc": (0.0, 0.0)},
            "concentration": {"pde": {"share": 0.9, "early": 1.0}},
        },
    ),
    "many oscillations": (
        Cause.SPECTRAL_BIAS,
        {"phase": {"pde": [40.0]}, "concentration": {"pde": {"share": 0.3}}},
    ),
    "many oscillations in time": (Cause.CAUSALITY, {"phase": {"pde": [40.0]}}),
    "at odds, but there are initial values alone": (
        Cause.CAUSALITY,
        {**AT_ODDS, "order": {"pde": 1, "bc": 0}, "beginnings": True},
    ),
    "no condition at all": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 1e-4, "size": 2e-3}, "loose": True},
    ),
    "part of the loss changes, and no parameter moves it": (Cause.DETACHED, {"constant": 5.0}),
    "it falls slowly, and nothing is in its way": (
        Cause.EARLY,
        {
            "apart": {"pde": (0.1, 0.0), "bc": (0.2, 0.0)},
            "course": {"falling": 0.04, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "hardly any weight, while others fall": (
        Cause.IMBALANCE,
        {
            "rms": {"pde": 0.999, "bc": 1e-5},
            "zero": {"pde": 1.0, "bc": 0.0},
            "parts": {"bc": 1e-5},
            "weights": {"pde": 1e-9, "bc": 1.0},
            "course": {"falling": 0.12, "fallen": 5.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "a generator that is seeded at each step": (
        Cause.REPEATED_POINTS,
        {**SOLVED, "free": {"u": 0.7, "size": 5.0}, "redrawn": {"pde": 6}},
    ),
    "a handful of points in a plane": (
        Cause.POINTS,
        {**SOLVED, "n_points": 10, "fresh": {"pde": 7.0}, "ranges": {"pde": [(0, 1), (0, 1)]}},
    ),
    "a handful of points, unsolved": (
        Cause.POINTS,
        {"n_points": 4, "fresh": {}, "ranges": {"pde": [(0, 1), (0, 1)]}},
    ),
    "second order in time and no rate": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 2e-4, "size": 5e-3}, "without_rate": ["pde"]},
    ),
    "a field beside u that nothing tells": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free_beside": {"k": {"u": 0.02, "size": 0.6, "mode": 0.99}}},
    ),
    "u = 0 is as good, though not reached yet": (
        Cause.NOTHING_TO_FIND,
        {
            **SOLVED,
            "zero": {"pde": 0.0, "bc": 0.0},
            "parts": {"pde": 1.0, "bc": 1.0},
            "free": {"u": 0.5, "size": 100.0},
        },
    ),
    "barely solved, with parameters that nobody holds": (
        Cause.NOT_TRAINED,
        {"rms": {"pde": 0.2, "bc": 0.01}, "error": 0.01, "unheld": ["k"], "unheld_share": 0.3},
    ),
    "at odds, gradients cancel by two thirds": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "cancelling": 0.32},
    ),
    "at odds, with many oscillations and data": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "phase": {"pde": [30.0]}, "within": ["bc"]},
    ),
    "at odds, and hardly falling": (
        Cause.CONTRADICTION,
        {
            **AT_ODDS,
            "apart": {"pde": (0.99, 0.01), "bc": (1.3, 0.0)},
            "course": {"falling": 0.05, "fallen": 1.0, "rising": 0.5, "jitter": 0.01},
        },
    ),
    "slow modes of many oscillations, and falling": (
        Cause.SPECTRAL_BIAS,
        {
            "phase": {"pde": [60.0]},
            "modes": {"pde": (0.0, 0.99), "bc": (0.1, 0.5)},
            "course": {"falling": 0.09, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "a schedule that ended": (
        Cause.STEP_TOO_SHORT,
        {
            "scheduled": 0.3,
            "lr": 1e-6,
            "course": {"falling": 0.0, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "one reading many times, met up to rounding": (
        Cause.REPEATED_POINTS,
        {
            "rms": {"bc": 1e-8},
            "repeated": {"bc": (1, 50)},
            "torn": {"bc": 0.5},
            "order": {"bc": 0},
        },
    ),
    "a generator that is seeded at each step, of a few points": (
        Cause.REPEATED_POINTS,
        {**SOLVED, "free": {"u": 0.7, "size": 5.0}, "redrawn": {"pde": 6}, "n_points": 6},
    ),
    "a generator that is seeded at each step, of a handful": (
        Cause.REPEATED_POINTS,
        {
            **SOLVED,
            "n_points": 6,
            "fresh": {"pde": 7.0},
            "redrawn": {"pde": 6},
            "ranges": {"pde": [(0, 1), (0, 1)]},
        },
    ),
    "points that end before a wall": (
        Cause.POINTS,
        {**SOLVED, "free": {"u": 0.7, "size": 5.0}, "walled": {"pde": (0, 0.25, 1.0)}},
    ),
}

MOVED = {**START, "rates": {"pde": 5.0, "bc": 1.0}, "constant": 7.0}

BEFORE = {
    "thrown into saturation": (START,),
    "thrown until nothing moves": (MOVED,),
    "nothing to find": (START,),
    "nothing but u = 0 has a weight": (START,),
    "saturated from the first": ({**START, "saturated": 0.48},),
    "part of the loss changes, and no parameter moves it": ({**START, "constant": 7.0},),
    "hardly any weight, while others fall": ({**START, "rms": {"pde": 1.0, "bc": 0.1}},),
}


@pytest.mark.parametrize("name", SPEAKS)
def test_a_rule_speaks(name: str):
    cause, known = SPEAKS[name]
    verdict = judge(case(previous=BEFORE.get(name, ()), **known))
    assert verdict.cause is cause
    assert verdict.remedy
    assert len(verdict.lines()) <= 5


WEIGHED = {"lr": 0.01, "curvature_now": 1e4, "curvature_unbalanced": 50.0}


@pytest.mark.parametrize(
    ("findings", "known", "title"),
    [
        (WEIGHED, {"balanced": True}, "diverged by the weights of the balancer"),
        (WEIGHED, {"balanced": True, "plain": True}, "diverged by the weights of the balancer"),
        (WEIGHED, {"balanced": False}, "diverged"),
        ({**WEIGHED, "curvature_unbalanced": 9e3}, {"balanced": True}, "diverged"),
        ({**WEIGHED, "curvature_unbalanced": 300.0}, {"balanced": True, "plain": True}, "diverged"),
        ({}, {"balanced": True}, "diverged"),
    ],
)
def test_a_balancer_is_the_cause_where_steps_were_bearable_without_it(
    findings: dict[str, float], known: dict[str, Any], title: str
):
    verdict = judge(case(previous=(findings,), not_finite=300, **known))
    assert (verdict.cause, verdict.title) == (Cause.DIVERGED, title)


@pytest.mark.parametrize(
    ("before", "steps", "cause"),
    [(0.1, 500, Cause.EARLY), (0.1, 1, Cause.UNKNOWN), (0.4, 500, Cause.UNKNOWN)],
)
def test_a_residual_that_has_just_grown_is_waited_for(before: float, steps: int, cause: Cause):
    findings = {"rms": {"pde": before, "bc": before}, "steps": steps}
    assert judge(case(previous=(START, findings), moved={"pde": 1.0})).cause is cause
    assert judge(case(previous=(START, findings))).cause is Cause.UNKNOWN  # at the same place


SILENT: dict[str, tuple[Cause, dict[str, Any]]] = {
    "other points in float64": (
        Cause.ROUNDING,
        {**SOLVED, "exact": {"pde": 1.0, "bc": 0.01}, "rounding": {}},
    ),
    "solved in both precisions": (
        Cause.ROUNDING,
        {**SOLVED, "exact": {"pde": 0.012, "bc": 0.01}, "rounding": {"pde": 0.2, "bc": 0.0}},
    ),
    "saturated a little by steps": (Cause.SATURATED, {"saturated": 0.45}),
    "at odds, but it falls": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "course": {"falling": 0.05, "fallen": 1.0, "rising": 0.0, "jitter": 0.0}},
    ),
    "at odds, but gradients do not cancel": (Cause.CONTRADICTION, {**AT_ODDS, "cancelling": 0.6}),
    "a term that cannot be solved alone": (
        Cause.CONTRADICTION,
        {"cancelling": 0.05, "apart": {"pde": (0.9, 0.9), "bc": (0.1, 0.0)}},
    ),
    "the best step leaves hardly anything": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "rms": {"pde": 0.12, "bc": 0.01}},
    ),
    "many oscillations, but u is right": (
        Cause.SPECTRAL_BIAS,
        {**SOLVED, "phase": {"pde": [40.0]}, "concentration": {"pde": {"share": 0.3}}},
    ),
    "at odds in a boundary value problem": (
        Cause.CAUSALITY,
        {**AT_ODDS, "order": {"pde": 2, "bc": 0}, "beginnings": True},
    ),
    "early times that the best step solves": (
        Cause.CAUSALITY,
        {
            "concentration": {"pde": {"share": 0.9, "early": 1.0}},
            "apart": {"pde": (0.2, 0.0), "bc": (0.5, 0.0)},
        },
    ),
    "no condition, but an equation that needs none": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 1e-6, "size": 1e-5}, "loose": True},
    ),
    "a constant in the loss": (Cause.DETACHED, {"constant": 7.0}),
    "a loss that stands, though a step would solve all": (
        Cause.EARLY,
        {"apart": {"pde": (0.1, 0.0), "bc": (0.2, 0.0)}},
    ),
    "points drawn again that are enough": (
        Cause.REPEATED_POINTS,
        {**SOLVED, "redrawn": {"pde": 100}},
    ),
    "a wall, but nothing is free": (Cause.POINTS, {**SOLVED, "walled": {"pde": (0, 0.25, 1.0)}}),
    "few points of a batch": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 0.01, "size": 0.03}, "stays": False, "n_points": 64},
    ),
    "free between the few points of a batch in a plane": (
        Cause.NOT_UNIQUE,
        {
            **SOLVED,
            "free": {"u": 0.1, "size": 0.4},
            "stays": False,
            "n_points": 64,
            "ranges": {"pde": [(0.0, 1.0), (0.0, 1.0)]},
        },
    ),
    "few points that stay, of a problem that lacks a condition": (
        Cause.POINTS,
        {
            **SOLVED,
            "free": {"u": 0.7, "size": 5.0},
            "n_points": 300,
            "ranges": {"pde": 3 * [(0, 1)]},
        },
    ),
    "two points of a batch": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 0.1, "size": 0.4}, "stays": False, "n_points": 2},
    ),
    "free between points of a network with kinks": (
        Cause.NOT_UNIQUE,
        {
            **SOLVED,
            "free": {"u": 0.1, "size": 0.4},
            "activations": ["PowBackward0", "ReluBackward0"],
        },
    ),
    "what is free is noise between points": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 0.3, "size": 1.0, "mode": 0.3}},
    ),
    "kelvin, of a network that gives kelvin": (
        Cause.OUTPUTS_NOT_SCALED,
        {"demand": {"pde": 900.0, "bc": 1.0}, "unit": 900.0},
    ),
    "constant column of inputs": (Cause.INPUTS_NOT_SCALED, {"inputs": {}}),
    "inputs, but solved": (
        Cause.INPUTS_NOT_SCALED,
        {**SOLVED, "inputs": {"largest": 50.0, "spread": 9.0, "offset": 1.0}},
    ),
    "a condition at one point": (
        Cause.REPEATED_POINTS,
        {"repeated": {"pde": (40, 40), "bc": (1, 100)}},
    ),
    "walls": (Cause.REPEATED_POINTS, {"repeated": {"pde": (40, 40), "bc": (2, 100)}}),
    "saturated by steps": (Cause.SATURATED, {"saturated": 0.9}),
    "differences of float64": (Cause.DETACHED, {"cut": {"pde": 3e-4}}),
    "measured more than once": (
        Cause.REPEATED_POINTS,
        {"repeated": {"pde": (40, 40), "bc": (10, 40)}, "torn": {"bc": 0.2}},
    ),
    "noise of repeated measurements": (Cause.CONTRADICTION, {"torn": {"bc": 0.4}}),
    "zero as it should be": (
        Cause.ROUNDING,
        {"rms": {"pde": 0.01, "bc": 0.0}, "exact": {"pde": 0.01, "bc": 1e-9}},
    ),
    "hardly any weight, in slow modes": (
        Cause.IMBALANCE,
        {
            "rms": {"pde": 0.3, "bc": 0.9},
            "weights": {"pde": 1.0, "bc": 1e-4},
            "modes": {"bc": (1e-4, 0.99)},
        },
    ),
    "as good as kinks": (Cause.DERIVATIVE_VANISHES, {"saturated": 0.9, "kinks": {"pde": 3.0}}),
    "saturated in small steps": (Cause.STEP_TOO_LARGE, {"saturated": 0.9}),
    "a source of a high frequency": (
        Cause.OUTPUTS_NOT_SCALED,
        {"zero": {"pde": 2e3, "bc": 0.5}, "demand": {"pde": 0.7, "bc": 0.5}},
    ),
    "rounding of what is solved": (
        Cause.ROUNDING,
        {"rms": {"pde": 1e-3, "bc": 0.4}, "rounding": {"pde": 5.0}},
    ),
    "slow, and nearly solved": (
        Cause.SPECTRAL_BIAS,
        {"rms": {"pde": 0.11, "bc": 0.01}, "modes": {"pde": (1e-5, 0.99)}},
    ),
    "much less weight, in slow modes": (
        Cause.IMBALANCE,
        {
            "rms": {"pde": 0.002, "bc": 0.16},
            "rates": {"pde": 50.0, "bc": 1.0},
            "modes": {"bc": (0.01, 0.9)},
        },
    ),
    "much less weight, but not much worse": (
        Cause.IMBALANCE,
        {"rms": {"pde": 0.02, "bc": 0.16}, "rates": {"pde": 50.0, "bc": 1.0}},
    ),
    "a batch of data": (Cause.POINTS, {**SOLVED, "told": {"bc": -0.5}, "stays": False}),
    "a long time that is on its way": (
        Cause.CAUSALITY,
        {
            **SOLVED,
            "zero": {"pde": 0.0, "bc": 1.0},
            "parts": {"pde": 1.0},
            "duration": {"pde": {"times": 9.0, "sum": 0.8}},
            "error": 0.06,
            "course": {"falling": 0.2, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "data that say each other": (Cause.POINTS, {**SOLVED, "told": {"bc": 0.9}}),
    "u = 0 solves, but u is not 0": (
        Cause.NOTHING_TO_FIND,
        {"zero": {"pde": 0.0, "bc": 0.0}, **SOLVED},
    ),
    "u = 0 solves one term": (
        Cause.NOTHING_TO_FIND,
        {"zero": {"pde": 0.0, "bc": 1.0}, "size": 1e-3, **SOLVED},
    ),
    "jitter of mini-batches": (
        Cause.STEP_TOO_LARGE,
        {"stays": False, "course": {"falling": 0.0, "fallen": 0.5, "rising": 0.5, "jitter": 0.2}},
    ),
    "lr mu_max above 2 under Adam": (Cause.STEP_TOO_LARGE, {"lr": 10.0}),
    "jumps far below the start": (
        Cause.STEP_TOO_LARGE,
        {"course": {"falling": 0.0, "fallen": 4.0, "rising": 0.5, "jitter": 0.2}},
    ),
    "short, but begun": (Cause.STEP_TOO_SHORT, {"reach": 0.01, "steps": 3}),
    "short, but falling": (
        Cause.STEP_TOO_SHORT,
        {"reach": 0.5, "course": {"falling": 0.3, "fallen": 0.3, "rising": 0.0, "jitter": 0.0}},
    ),
    "noise of lr_eff": (Cause.STEP_TOO_SHORT, {"reach": -5.0}),
    "worst term in slow modes": (
        Cause.IMBALANCE,
        {"rms": {"pde": 0.01, "bc": 0.9}, "modes": {"bc": (0.01, 0.5)}},
    ),
    "nearly solved, though another learns faster": (
        Cause.IMBALANCE,
        {
            "rms": {"pde": 0.001, "bc": 0.12},
            "rates": {"pde": 60.0, "bc": 1.0},
            "modes": {"bc": (0.1, 0.5)},
        },
    ),
    "one function is free perhaps, and the loss falls": (
        Cause.NOT_UNIQUE,
        {
            "free": {"u": 0.09, "size": 3.0, "mode": 0.7},
            "course": {"falling": 0.2, "fallen": 3.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "a coefficient hardly told by one batch": (
        Cause.NOT_UNIQUE,
        {
            **SOLVED,
            "free": {"u": 1e-6, "size": 0.0, "k": 0.04},
            "stays": False,
            "n_points": 20,
        },
    ),
    "a coefficient told by few data": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 1e-6, "size": 0.0, "k": 0.004}},
    ),
    "jumps, and nearly solved": (
        Cause.STEP_TOO_LARGE,
        {
            "rms": {"pde": 0.15, "bc": 0.12},
            "course": {"falling": 0.0, "fallen": 1.7, "rising": 0.5, "jitter": 0.2},
        },
    ),
    "terms alike": (Cause.IMBALANCE, {"modes": {"pde": (0.9, 0.0), "bc": (0.9, 0.0)}}),
    "cancels, but solved": (Cause.CONTRADICTION, {**SOLVED, "cancelling": 1e-6}),
    "cancels in slow modes": (Cause.CONTRADICTION, {"cancelling": 1e-6}),
    "one term solved": (
        Cause.CONTRADICTION,
        {
            "rms": {"pde": 0.01, "bc": 0.5},
            "cancelling": 1e-6,
            "modes": {"pde": (0.8, 0.0), "bc": (0.8, 0.0)},
        },
    ),
    "a handful of points along a line": (Cause.POINTS, {**SOLVED, "n_points": 10}),
    "a handful of points of a batch": (
        Cause.POINTS,
        {**SOLVED, "n_points": 10, "stays": False, "ranges": {"pde": [(0, 1), (0, 1)]}},
    ),
    "a handful of points that are enough": (
        Cause.POINTS,
        {**SOLVED, "n_points": 10, "ranges": {"pde": [(0, 1), (0, 1)]}},
    ),
    "no rate, but it is given by construction": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "without_rate": ["pde"]},
    ),
    "a field beside u that is told": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free_beside": {"k": {"u": 1e-5, "size": 0.6, "mode": 0.99}}},
    ),
    "u = 0 is as good, for noise between points": (
        Cause.NOTHING_TO_FIND,
        {
            **SOLVED,
            "zero": {"pde": 0.0, "bc": 0.0},
            "parts": {"pde": 1.0, "bc": 1.0},
            "free": {"u": 0.5, "size": 100.0, "mode": 0.1},
        },
    ),
    "at odds, but the best step would end most of the loss": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "apart": {"pde": (0.36, 0.01), "bc": (0.1, 0.0)}},
    ),
    "at odds, with many oscillations": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "phase": {"pde": [30.0]}},
    ),
    "at odds, with data beyond the network": (
        Cause.CONTRADICTION,
        {**AT_ODDS, "apart": {"pde": (0.9, 0.01), "bc": (0.97, 0.96)}},
    ),
    "early times, which the best step would end": (
        Cause.CAUSALITY,
        {
            "concentration": {"pde": {"share": 0.9, "early": 1.0}},
            "apart": {"pde": (0.31, 0.0), "bc": (0.0, 0.0)},
        },
    ),
    "a loss that falls as fast as ever": (
        Cause.STEP_TOO_SHORT,
        {
            "scheduled": 0.04,
            "course": {"falling": 0.0085, "fallen": 0.07, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "frozen at the beginning": (
        Cause.NOT_TRAINED,
        {"frozen": ["net.0.weight"], "frozen_share": 0.8, "steps": 0},
    ),
    "at odds, and falling": (
        Cause.CONTRADICTION,
        {
            **AT_ODDS,
            "apart": {"pde": (0.7, 0.01), "bc": (0.1, 0.0)},
            "course": {"falling": 0.05, "fallen": 1.0, "rising": 0.5, "jitter": 0.1},
        },
    ),
    "slow modes, and falling": (
        Cause.SPECTRAL_BIAS,
        {
            "modes": {"pde": (0.0, 0.99), "bc": (0.1, 0.5)},
            "course": {"falling": 0.09, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "a window that moves over the inputs": (
        Cause.INPUTS_NOT_SCALED,
        {"inputs": {"largest": 1.0, "spread": 0.06, "offset": 17.0}, "moved": {"pde": 1.0}},
    ),
    "a window where u is small": (
        Cause.OUTPUTS_NOT_SCALED,
        {"demand": {"pde": 1e-4, "bc": 1e-4}, "moved": {"pde": 1.0}},
    ),
    "a small learning rate, and a loss that stands for a while": (
        Cause.STEP_TOO_SHORT,
        {
            "scheduled": 0.3,
            "lr": 1.5e-4,
            "course": {"falling": 0.0, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "at odds, beside a term of hardly any weight": (
        Cause.CONTRADICTION,
        {
            **AT_ODDS,
            "rms": {"pde": 0.5, "bc": 0.4, "start": 0.7},
            "zero": {"pde": 1.0, "bc": 1.0, "start": 0.7},
            "rates": {"pde": 10.0, "bc": 1.0, "start": 1.0},
            "weights": {"pde": 1.0, "bc": 1.0, "start": 1e-4},
        },
    ),
    "one reading measured many times": (
        Cause.REPEATED_POINTS,
        {
            "rms": {"bc": 0.3},
            "repeated": {"bc": (1, 50)},
            "torn": {"bc": 0.5},
            "order": {"bc": 0},
        },
    ),
    "free by the prior, small beside u": (
        Cause.NOT_UNIQUE,
        {**SOLVED, "free": {"u": 0.01, "size": 1e-3}},
    ),
    "small u": (Cause.NOT_UNIQUE, {**SOLVED, "free": {"u": 1e-6, "size": 30.0}}),
    "corners that nobody suffers from": (
        Cause.CONTRADICTION,
        {**SOLVED, "clash": ("ic", "bc", 0.6)},
    ),
    "a short time": (
        Cause.CAUSALITY,
        {
            **SOLVED,
            "zero": {"pde": 0.0, "bc": 1.0},
            "duration": {"pde": {"times": 2.0, "sum": 0.8}},
        },
    ),
    "a long time that is solved well": (
        Cause.CAUSALITY,
        {
            **SOLVED,
            "zero": {"pde": 0.0, "bc": 1.0},
            "duration": {"pde": {"times": 9.0, "sum": 0.1}},
        },
    ),
    "a long time in which u is right": (
        Cause.CAUSALITY,
        {
            **SOLVED,
            "zero": {"pde": 0.0, "bc": 1.0},
            "parts": {"pde": 1.0},
            "duration": {"pde": {"times": 9.0, "sum": 0.8}},
        },
    ),
    "far from solved, whatever u seems to be": (
        Cause.CLEAN,
        {"rms": {"pde": 0.5, "bc": 0.2}, "error": 0.02},
    ),
    "noise of data": (
        Cause.SPECTRAL_BIAS,
        {"rms": {"pde": 0.01, "bc": 0.2}, "modes": {"bc": (1e-4, 1.0)}, "explained": {"bc": 0.05}},
    ),
    "slow, and falling": (
        Cause.SPECTRAL_BIAS,
        {
            "modes": {"pde": (1e-5, 0.99)},
            "course": {"falling": 0.08, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "small weight, but solved by half": (
        Cause.IMBALANCE,
        {"rms": {"pde": 0.01, "bc": 0.2}, "weights": {"pde": 1.0, "bc": 1e-4}},
    ),
    "between the points, solved there too": (
        Cause.POINTS,
        {**SOLVED, "rms": {"pde": 1e-4, "bc": 0.01}, "error": 1e-4, "fresh": {"pde": 1e4}},
    ),
    "early, where conditions clash": (
        Cause.CAUSALITY,
        {
            "concentration": {"pde": {"share": 0.9, "early": 0.9}},
            "clash": ("ic", "bc", 0.9),
            "course": {"falling": 0.05, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "worst term on its way": (
        Cause.IMBALANCE,
        {
            "rms": {"pde": 0.01, "bc": 0.9},
            "modes": {"bc": (0.9, 0.0)},
            "course": {"falling": 0.08, "fallen": 1.0, "rising": 0.0, "jitter": 0.0},
        },
    ),
    "features of frozen layers": (
        Cause.INPUTS_NOT_SCALED,
        {"frozen": ["b"], "inputs": {"largest": 50.0, "spread": 9.0, "offset": 1.0}},
    ),
    "more or less early": (
        Cause.CAUSALITY,
        {"concentration": {"pde": {"share": 0.55, "early": 0.7}}},
    ),
    "late in time": (Cause.CAUSALITY, {"concentration": {"pde": {"share": 0.9, "early": 0.0}}}),
    "decay, but solved": (Cause.RANDOM_OR_DECAY, {**SOLVED, "decay": 5.0}),
    "a share of parameters too small to matter": (
        Cause.NOT_TRAINED,
        {"unheld": ["k"], "unheld_share": 0.0},
    ),
    "frozen features": (Cause.NOT_TRAINED, {"frozen": ["B"], "frozen_share": 0.2}),
    "data of one size, equation of another": (
        Cause.OUTPUTS_NOT_SCALED,
        {"zero": {"pde": 5e3, "bc": 1.0}, "rms": {"pde": 4e3, "bc": 0.9}},
    ),
    "a kernel that was not zero before": (
        Cause.DETACHED,
        {"rates": {"pde": 0.0, "bc": 1.0}},
    ),
    "a residual that changes with its points": (Cause.RANDOM_OR_DECAY, {"random": {}}),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_rule_is_silent(name: str):
    cause, known = SILENT[name]
    assert judge(case(previous=(MOVED,), **known)).cause is not cause


@pytest.mark.parametrize(
    ("earlier", "terms", "cause"),
    [
        ({"pde": 9.0}, {}, Cause.ROUNDING),
        ({"pde": 0.01}, {}, Cause.UNKNOWN),
        ({"pde": 9.0}, {"rms": {"pde": 0.01, "bc": 0.4}}, Cause.UNKNOWN),  # solved since
    ],
)
def test_rounding_at_an_earlier_step_is_not_forgotten(
    earlier: dict[str, float], terms: dict[str, Any], cause: Cause
):
    before = {**START, "rounding": earlier}
    assert judge(case(previous=(before, START), **terms)).cause is cause


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"pde": 1.0, "bc": 1.0}, "10 in place of 1,"),
        ({"pde": 1.0, "bc": 0.01}, "10 in place of 0.01"),
    ],
)
def test_the_weight_that_is_advised_makes_the_terms_alike(weights: dict[str, float], said: str):
    """Rates 10 and 1 by themselves: the slower term needs the weight 10, whatever it has now."""
    left = {"rms": {"pde": 0.01, "bc": 0.9}, "modes": {"bc": (0.9, 0.0)}}
    verdict = judge(case(previous=(START,), weights=weights, **left))
    assert verdict.cause is Cause.IMBALANCE
    assert said in verdict.remedy


def test_every_cause_is_reached_and_described():
    assert {cause for cause, _ in SPEAKS.values()} == set(Cause)
    assert ABOUT.keys() == {cause.name for cause in Cause}
    for about in ABOUT.values():
        assert about.title
        assert about.is_
        assert about.seen
        assert about.helps


def test_a_solved_case_is_accused_of_nothing_that_needs_an_unsolved_one():
    alarming = {
        name: known
        for name, (cause, known) in SPEAKS.items()
        if cause in ONLY_UNSOLVED and not {"fresh", "exact"} & set(known)  # solved there alone
    }
    for name, known in alarming.items():
        verdict = judge(
            case(previous=(START,), **{**known, **SOLVED, "zero": {"pde": 1.0, "bc": 1.0}})
        )
        assert not verdict.accuses, name


ONLY_UNSOLVED = {
    Cause.NOT_TRAINED, Cause.INPUTS_NOT_SCALED, Cause.SATURATED, Cause.OUTPUTS_NOT_SCALED,
    Cause.RANDOM_OR_DECAY, Cause.STEP_TOO_SHORT, Cause.EARLY, Cause.TOO_NARROW, Cause.ROUNDING,
    Cause.STEP_TOO_LARGE, Cause.IMBALANCE, Cause.CAUSALITY, Cause.CONTRADICTION,
    Cause.SPECTRAL_BIAS,
}  # fmt: skip


def test_a_case_of_which_nothing_is_known_is_not_accused():
    known = case()
    known.known.clear()  # no quantity can be had
    verdict = judge(known)
    assert verdict.cause in {Cause.UNKNOWN, Cause.EARLY}
    assert not verdict.accuses


def test_a_rule_that_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    def fails(_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(diagnose, "UNSOLVED", (fails, *diagnose.UNSOLVED))
    verdict = judge(case(modes={"pde": (1e-5, 0.99)}))
    assert verdict.cause is Cause.SPECTRAL_BIAS
    assert verdict.not_looked_at == ("fails (RuntimeError: no such luck)",)


def test_what_could_not_be_looked_at_is_said_by_its_reason():
    known = case()
    known.missing = {"u = 0": "no function", "float64": "no function", "fresh points": "none"}
    said = judge(known).not_looked_at
    assert said == ("u = 0, float64 (no function)", "fresh points (none)")


def test_a_verdict_goes_through_a_checkpoint():
    seen = Evidence("rms", 0.5, "below 0.1")
    verdict = Verdict(Cause.IMBALANCE, "bc", (seen,), also=("more",), findings={"rms": {"bc": 1.0}})
    again = Verdict.of_state(verdict.state_dict())
    assert again == verdict
    assert again.findings == verdict.findings


@pytest.mark.parametrize(
    ("before", "left", "cause"),
    [
        (Verdict(Cause.SPECTRAL_BIAS, "pde", (), LIKELY, step=7), 0.5, Cause.SPECTRAL_BIAS),
        (Verdict(Cause.SPECTRAL_BIAS, "pde", (), LIKELY, step=7), 0.01, Cause.UNKNOWN),
        (Verdict(Cause.SPECTRAL_BIAS, "other", (), LIKELY, step=7), 0.5, Cause.UNKNOWN),
        (Verdict(Cause.STEP_TOO_LARGE, "", (), LIKELY, step=7), 0.5, Cause.UNKNOWN),
        (Verdict(Cause.EARLY, step=7), 0.5, Cause.UNKNOWN),
    ],
)
def test_what_was_seen_before_is_recalled_where_nothing_is_known(
    before: Verdict, left: float, cause: Cause
):
    now = case(rms={"pde": left, "bc": 0.4})
    found = diagnose.recalled(judge(now), [before, Verdict(Cause.UNKNOWN)], now)
    assert found.cause is cause
    assert found.findings == judge(now).findings
    if cause is not Cause.UNKNOWN:
        assert found.confidence == "possible"
        assert str(found.evidence[0]) == "seen at step 7 (no longer)"
        again = diagnose.recalled(judge(now), [found], now)
        assert again.evidence == found.evidence


@pytest.mark.parametrize(("level", "word"), [(1.0, "constant"), (0.5, "unique")])
def test_a_constant_that_may_be_added_is_called_so(level: float, word: str):
    free = {"u": 0.7, "size": 5.0, "mode": 0.99, "a constant": level}
    found = judge(case(**SOLVED, free=free))
    assert found.cause is Cause.NOT_UNIQUE
    assert word in found.title
    assert found.about == ""
