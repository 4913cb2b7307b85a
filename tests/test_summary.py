"""The summary as a whole: its table, its order, and what no single diagnostic says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pinn_ntk.diagnostics import Diagnostic, Reading
from pinn_ntk.diagnostics.registry import chosen
from pinn_ntk.diagnostics.summary import summary
from pinn_ntk.looks.step_terms import PROBE
from tests.looks import ask, facts_of, look_at, rows, said, says, spectrum, told

NINE = {"pde": 9, "bc": 2}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "**Kernel at step 20** on the training batch\n"),
        *(({}, f"NOT {unsaid}") for unsaid in ("Undefined", "Names", "Rows")),
        ({}, "\n| pde | 3 | 111 | 100 | 1.2 | 1.0e+01 | 0.2 |\n"),
        ({}, "\n| bc | 2 | 3 | 2 | 1.8 | 2.0e+00 | 0.01 |\n"),
        ({"drift": {"drift": {}}}, "| pde | 3 | 111 | 100 | 1.2 | 1.0e+01 | - |"),
        ({"drift": {"drift": {"pde": math.nan}}}, "| pde | 3 | 111 | 100 | 1.2 | 1.0e+01 | - |"),
        (
            {"spectrum": {"terms": {"bc": facts_of(spectrum(0.0, 0.0, floor=0.0))}}},
            "| bc | 2 | 3 | 0 | 0 | - | 0.01 |",
        ),
        ({"spectrum": None, "drift": None}, "\n| pde | 3 | 111 | - | - | - | - |\n"),
        ({"traces": None}, "\n| bc | 2 | - | 2 | 1.8 | 2.0e+00 | 0.01 |\n"),
        ({"step": {"points": PROBE}}, "**Kernel at step 20** on a fixed probe"),
        ({"step": {"undefined": ["ic"]}}, "Undefined: ic, whose residual holds NaN or inf."),
        ({"step": {"undefined": ["ic"]}}, "| ic | - | undefined | - | - | - | - |"),
        ({"step": {"undefined": ["term_2"]}}, "- Names: term_2 (not logged before the backward"),
        ({"step": {"rows": {"term_0": 1}}, "spectrum": None, "traces": None}, "- Names: term_0"),
        (
            {"step": {"rows": NINE}},
            "- Rows left out: 3 of 9 of pde are in the blocks, evenly strided (max_points=4).",
        ),
        ({"step": {"rows": {"pde": 9, "bc": 5}}}, "out: 3 of 9 of pde, 2 of 5 of bc are in the"),
        ({"step": {"rows": NINE, "sampled": {"pde": [3, 9]}}}, "NOT Rows left out"),
        (
            {"step": {"rows": NINE, "points": PROBE}},
            "3 of 9 of pde are in the blocks, drawn from equal strata (max_points=4)",
        ),
        (
            {"step": {"sampled": {"pde": [2, 3]}}},
            "- Rows measured (~): 2 of 3 of pde, drawn from equal strata",
        ),
        (
            {
                "step": {"sampled": {"pde": [2, 3], "bc": [1, 2]}},
                "traces": {"errors": {"pde": 11.1}},
            },
            "2 of 3 of pde (standard error of the trace 10 %), 1 of 2 of bc, drawn",
        ),
    ],
)
def test_what_it_says(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)


class Own(Diagnostic):
    name = "own"

    def sentences(self, readings: Any) -> list[str]:
        return [f"Own: {readings['own'].facts['x']}."]


def test_one_s_own_diagnostic_speaks_before_the_certificate_and_may_fail_alone():
    failed: list[str] = []

    def say(what: str, part: Any) -> Any:
        try:
            return part()
        except KeyError:
            failed.append(what)
            return None

    every = [Own(), *chosen()]
    lines = summary(told(own={"x": 1}), every, say).splitlines()[7:]
    starts = [line.split(":")[0] for line in lines]
    order = ["Rank", "Step size", "Own", "Certificate"]
    assert starts == [f"- {said}" for said in order]
    assert failed == []
    broken = {**told(own={}), "step_size": Reading(20)}
    assert "Certificate" in summary(broken, every, say)
    assert failed == ["the sentence on largest stable learning rate", "the sentence on own"]


def test_a_measurement_without_a_kernel_has_a_summary():
    panel = ask(look_at({"pde": math.nan * rows(2)}, 7))
    assert "| pde | - | undefined | - | - | - | - |" in panel.summary().splitlines()
