"""Rules on what can be represented, and what the points and the precision let through."""

from __future__ import annotations

import math

from pinn_ntk.analysis.wording import number
from pinn_ntk.verdict.case import ERROR, FALLS, FINE, SOLVED, WRONG, Case, worst_of
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.remedies import EARLY_FIRST
from pinn_ntk.verdict.verdict import FACT, LIKELY, POSSIBLE, Evidence, Verdict

UNREACHED, MOSTLY = 0.9, 0.4
"""Share of the residual outside of the range of J; the same with very few parameters."""

ROUNDED = 0.05
"""Relative change of a residual when it is computed in float64."""

COUNTS = 0.1
"""Share of the loss from which rounding in a term is in the way of others."""

FALLING = 0.1
"""Decades in the last tenth of the steps by which it falls that needs nothing but time."""

SLOW, MUCH = 0.65, 0.2
"""Share of r^2 in slow modes; what is left of a term, from which that is a bias."""

EXPLAINED, LITTLE = 0.25, 0.4
"""R^2 of data by their neighbours, and what is left of them, below which that is like noise."""


def too_narrow(case: Case) -> Verdict | None:
    """No direction of the parameters is left along which the residual falls."""
    rows = sum(case.rows.values())
    bound = MOSTLY if case.n_params < rows / 4 else UNREACHED
    if case.unreached is None or case.unreached < bound:
        return None
    evidence = (
        Evidence(
            "share of the residual outside of the range of J", case.unreached, f"above {bound:g}"
        ),
        Evidence("parameters", case.n_params, f"for {rows} rows"),
    )
    remedy = "A wider or deeper network: several times as many parameters as rows do no harm."
    return Verdict(Cause.TOO_NARROW, case.worst, evidence, LIKELY, remedy)


FEW_PARAMETERS = 30
"""Parameters of a network, fewer than rows, that are few for any solution."""


def few_parameters(case: Case) -> Verdict | None:
    """A network of a handful of parameters has not solved its terms."""
    rows = sum(case.rows.values())
    if case.n_params > FEW_PARAMETERS or case.n_params >= rows or not case.activations:
        return None
    evidence = (Evidence("parameters", case.n_params, f"for {rows} rows"),)
    remedy = "A wider or deeper network: several times as many parameters as rows do no harm."
    return Verdict(Cause.TOO_NARROW, case.worst, evidence, LIKELY, remedy)


DOUBLE = (
    "Trainer(precision='64-true'), with points in float64 there and wherever the model is called "
    "later; or a larger step in a difference quotient, 1e-2 of the domain say, or autograd in its "
    "place."
)


def rounding(case: Case) -> Verdict | None:
    """The same parameters give another residual in float64."""
    hurt = {t: x for t, x in case.rounding.items() if t in case.unsolved or _all_of_it(case, t)}
    term, change = worst_of(hurt)
    if not change > ROUNDED:
        return None
    evidence = (Evidence(f"relative change of {term} in float64", change, "above 0.05"),)
    return Verdict(Cause.ROUNDING, term, evidence, FACT, DOUBLE)


def rounded_before(case: Case) -> Verdict | None:
    """Nothing else is known, and rounding was in the way of an unsolved term before."""
    before = {
        term: change
        for one in case.previous
        for term, change in one.get("rounding", {}).items()
        if term in case.unsolved and change > ROUNDED
    }
    term, change = worst_of(before)
    if not before:
        return None
    evidence = (
        Evidence(f"relative change of {term} in float64, at an earlier step", change, "above 0.05"),
    )
    return Verdict(Cause.ROUNDING, term, evidence, LIKELY, DOUBLE)


SWALLOWED, HIDDEN = 1e-3, 0.5
"""Residual in float64, over the size of u, that was never anything but 0; residual over that in
float64, below which rounding hides it."""


def swallowed(case: Case) -> Verdict | None:
    """A residual that is solved is not so in float64."""
    hidden = {t: case.exact.get(t, 0.0) for t, x in case.rms.items() if _hidden(case, t, x)}
    term, exact = worst_of(hidden)
    size = case.baseline.get(term, 0.0)
    if not exact > (SOLVED * size if size else SWALLOWED * (case.size or math.inf)):
        return None
    evidence = (
        Evidence(f"{term}, root mean square", case.rms[term], ""),
        Evidence("the same in float64", exact, ""),
    )
    remedy = "Trainer(precision='64-true'), or take the large number off before it is added."
    title = "rounded to nothing" if case.rms[term] == 0 else ""
    return Verdict(Cause.ROUNDING, term, evidence, FACT, remedy, title)


def _hidden(case: Case, term: str, rms: float) -> bool:
    """Whether a residual is much larger in float64, at the same points."""
    if rms == 0:
        return True
    same = case.rounding.get(term, 0.0) > ROUNDED
    return same and rms < HIDDEN * case.exact.get(term, 0.0)


def _all_of_it(case: Case, term: str) -> bool:
    """Whether a term is nothing but rounding, and counts in the loss."""
    parts = {t: case.weights.get(t, 1.0) * x**2 for t, x in case.rms.items()}
    return case.rounding[term] > 1 and parts.get(term, 0.0) > COUNTS * sum(parts.values())


def noisy(case: Case, term: str) -> bool:
    """Whether what is left of a term without derivatives is little, and like noise."""
    explained = case.explained.get(term)
    return explained is not None and explained < EXPLAINED and case.left[term] < LITTLE


def spectral_bias(case: Case) -> Verdict | None:
    """What is left lies in slow modes of its own kernel."""
    slow = {t: x for t, x in case.slow.items() if t in case.unsolved}
    term = case.worst
    if (
        not slow.get(term, 0.0) > SLOW
        or not case.left[term] > MUCH
        or case.course.get("falling", 0.0) > (FALLING if case.turns > FINE else FALLS)
        or noisy(case, term)
    ):
        return None
    evidence = (
        Evidence(f"share of {term} in modes below 1e-3 of the fastest", slow[term], "above 0.65"),
    )
    return Verdict(Cause.SPECTRAL_BIAS, term, evidence, LIKELY, FEATURES)


def fine(case: Case) -> Verdict | None:
    """u is wrong, the loss stands, and the equation asks for many oscillations or a thin layer."""
    falls = case.course.get("falling", 0.0) > FALLS
    if falls or case.error is None or not case.error > WRONG:
        return None
    term, phase = worst_of({t: max(phases, default=0.0) for t, phases in case.phase.items()})
    if not phase > FINE:
        return None
    evidence = (
        Evidence(f"phase by which {term} turns or falls off across its domain", phase, "above 15"),
        Evidence(ERROR.format("u"), case.error, f"above {WRONG:g}"),
    )
    if case.timed(term):
        return Verdict(Cause.CAUSALITY, term, evidence, POSSIBLE, EARLY_FIRST)
    return Verdict(Cause.SPECTRAL_BIAS, term, evidence, POSSIBLE, FEATURES)


FEATURES = (
    "Fourier features or sin activations with the frequency of the solution, or a second-order "
    "method; weights do not help."
)


def clean(case: Case) -> Verdict | None:
    """All terms are solved."""
    name, error = case.amiss
    if not case.solved or error > WRONG:
        return None
    term, left = case.worst, case.left[case.worst]
    evidence = [Evidence(f"what is left of {term}", left, "1 at u = 0, below 0.1 is solved")]
    if name:
        evidence.append(Evidence(ERROR.format(name), error, ""))
    remedy = (
        f"Nothing in the training. That is said of the equation as written{_where(case)}: if u is "
        "wrong all the same, put a known solution in the place of the network, each residual must "
        "then be near 0."
    )
    return Verdict(Cause.CLEAN, "", tuple(evidence), LIKELY, remedy)


def _where(case: Case) -> str:
    """The box of the points of the equation, in words."""
    box = next(iter(case.ranges.values()), [])
    sides = [f"{number(low, 2)} to {number(high, 2)}" for low, high in box[:3]]
    return f" and its points, {' by '.join(sides)}" if sides else ""


def unknown(case: Case) -> Verdict:
    """No rule reaches its threshold: the most unusual numbers."""
    term = case.worst
    seen = [Evidence(f"what is left of {term}", case.left.get(term, 1.0), "below 0.1 is solved")]
    name, error = case.amiss
    if name:
        seen.append(Evidence(ERROR.format(name), error, ""))
    if term in case.align:
        seen.append(Evidence("share of that in fast modes of its kernel", case.align[term], ""))
        seen.append(Evidence("share of that in slow ones", case.slow[term], ""))
    if case.cancelling is not None:
        seen.append(Evidence("sum of gradients over sum of their sizes", case.cancelling, ""))
    remedy = "No cause that is known here; look at this term first."
    if noisy(case, term):
        remedy = (
            f"What is left of {term} looks like noise; if its data have that, nothing is wrong."
        )
    return Verdict(Cause.UNKNOWN, term, tuple(seen[:3]), POSSIBLE, remedy)
