"""A handful of the broken and healthy PINNs, trained: the verdict names what was planted.

All of them: ``python -m benchmarks.verdict``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.claims import false_claims
from benchmarks.verdict import counts, fails, judged
from benchmarks.verdict_page import PAGE, between, causes
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
    found = judged(name, 0, twin=False)
    assert found.named == BY_NAME[name].cause, found.sentence
    assert not found.false
    assert fails(found) == (BY_NAME[name].cause not in {"CLEAN", "EARLY"})


def test_a_cured_twin_is_not_accused():
    found = judged("broadcast-fit", 0, twin=True)
    assert found.named == "CLEAN"
    assert counts([found], set())["accused though cured"] == "0 of 1"


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
