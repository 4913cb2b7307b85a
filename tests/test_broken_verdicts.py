"""A handful of the broken and healthy PINNs, trained: the verdict names what was planted.

All of them: ``python -m benchmarks.verdict``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.claims import false_claims
from benchmarks.verdict import Judged, judged
from benchmarks.verdict_page import (
    PAGE,
    between,
    causes,
    confusion,
    counts,
    fails,
    group,
    page,
)
from pinn_ntk import Cause, Evidence, Verdict
from tests.broken.measure import BY_NAME

pytestmark = pytest.mark.filterwarnings("ignore")  # of what a run was broken by

QUICK = [
    "broadcast-fit",
    "untrained-network-replaced",
    "vanishes-burgers-hardtanh",
    "contradiction-flux",
    "repeated-whole-numbers",
    "clean-fit-fourier-features",
    "early-heat",
]
SLOW = ["imbalance-decay-start", "spectral-fit", "rounding-background", "points-window-forgets"]


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_the_verdict_names_what_was_planted(name: str):
    one = judged(name, 0, twin=False)
    assert one.named == BY_NAME[name].cause, one.sentence
    assert not one.false
    assert fails(one) == (BY_NAME[name].cause not in {"CLEAN", "EARLY"})


def test_a_cured_twin_is_not_accused():
    one = judged("broadcast-fit", 0, twin=True)
    assert one.named == "CLEAN"
    assert counts([one])["accused though cured"] == "0 of 1"


def test_a_false_claim_is_seen():
    module = BY_NAME["broadcast-fit"].build(0).module
    clean = Verdict(Cause.CLEAN)
    assert false_claims(clean, module, "IMBALANCE", 0.9)
    assert not false_claims(clean, module, "CLEAN", 0.01)
    held = Verdict(Cause.NOT_TRAINED, next(name for name, _ in module.named_parameters()))
    assert false_claims(held, module, "NOT_TRAINED", 0.9)
    nan = Verdict(Cause.ROUNDING, evidence=(Evidence("change", float("nan"), ""),))
    assert false_claims(nan, module, "ROUNDING", 0.9)


def test_the_page_has_the_causes(tmp_path: Path):
    text = PAGE.read_text()
    assert between(text, "causes", causes()) == text, "run: python -m benchmarks.verdict"


def found(name: str, planted: str, named: str, **other: Any) -> Judged:
    plain = {"twin": False, "seed": 0, "half": "set", "confidence": "likely", "error": 0.5}
    return Judged(
        name, planted=planted, named=named, **{"estimate": None, "sentence": "x", **plain, **other}
    )


def test_the_page_has_each_group_of_runs(tmp_path: Path):
    copy = tmp_path / "verdict.md"
    copy.write_text(PAGE.read_text())
    runs = [
        found("a", "POINTS", "CLEAN", half="judge", false=["nothing wrong is seen"]),
        found("b", "POINTS", "POINTS", half="judge"),
        found("c", "POINTS", "EARLY", half="judge", error=0.1),  # did not fail
        found("d", "CLEAN", "CLEAN", seed=3, error=0.01, accused=["IMBALANCE"]),
    ]
    assert [group(run) for run in runs] == ["by strangers"] * 3 + ["other seeds"]
    assert confusion(runs).splitlines()[2:] == [
        "| POINTS | 2 | 1 | CLEAN 1 |",
        "| CLEAN | 1 | 1 | - |",
    ]
    page(runs, copy)
    text = copy.read_text()
    assert "| | by strangers | other seeds |" in text
    assert "| cause named | 1 of 2 | 0 of 0 |" in text
    assert "| accused though healthy or early | 0 of 0 | 1 of 1 |" in text
    assert "| with a false sentence | 1 of 3 | 0 of 1 |" in text
    assert "- a: x" in text
