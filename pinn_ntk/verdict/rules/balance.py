"""Rules on the terms beside each other: imbalance, and early times."""

from __future__ import annotations

from pinn_ntk.analysis.wording import number
from pinn_ntk.verdict.case import CLASH, FALLS, SOLVABLE, Case
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.remedies import EARLY_FIRST
from pinn_ntk.verdict.verdict import LIKELY, Evidence, Verdict

TIMES, ADDED, OFF = 7.0, 0.5, 0.05
"""How often u changes by its own size until the end; what the residual adds up to, over |u|; the
error of u that residuals amount to."""


def long_time(case: Case) -> Verdict | None:
    """A small residual adds up over a long time, from a start that is solved."""
    if case.course.get("falling", 0.0) > FALLS:
        return None
    off = case.error is None or case.error > OFF
    for term, of_term in case.duration.items():
        others = [t for t in case.unsolved if t != term]
        autonomous = term in case.homogeneous
        if others or not autonomous or case.steps < BEGUN:
            continue
        if of_term.get("times", 0.0) > TIMES and of_term["sum"] > ADDED and off:
            evidence = (
                Evidence(
                    f"{term}, added up to the end, over the size of u", of_term["sum"], "above 0.5"
                ),
                Evidence("times that u changes by its size", of_term["times"], "above 7 is long"),
            )
            return Verdict(Cause.CAUSALITY, term, evidence, LIKELY, EARLY_FIRST)
    return None


BEGUN = 30
"""Steps before which a term may not have been learned yet."""

WORSE = 10.0
"""What is left of the worst term over that of the best one."""

HEAVY = 10.0
"""Weight in force from which a larger one is tried in small steps."""

LARGE = 0.3
"""What is left of a term from which its small weight may be the cause."""

LEAST = 1e-3
"""What is left of a term below which it does not count how much less."""

FAST = 0.3
"""r^T K r / (lambda_max r^T r) from which a term could learn fast."""

FAR_SLOWER = 1000.0
"""The same from which a term is held up though it falls."""

OUTWEIGHED, ALSO_WORSE, MUCH = 100.0, 20.0, 0.15
"""Rate 2 w mean(K_ii) of the fastest term over that of an unsolved one, by itself; both this and
what is left of them, of which much is left."""

SLOW, NOT_SLOW = 0.9, 0.6
"""Share of r^2 in slow modes above which weights do not help, and below which they do."""

CONCENTRATED, LESS = 0.65, 0.5
"""Share of r^2 in a tenth of the points; the same where all of these are early."""

LEAST_SHARE = 0.3
"""The same where no step for all terms solves the equation."""

SPARED = 0.1
"""Share of the loss that the best step leaves, below which nothing but more steps is lacking."""

AT_START, ALL_EARLY = 0.5, 0.9
"""Share of these points that are early in time; all of them."""


def imbalance(case: Case) -> Verdict | None:
    """A term could learn fast and is outweighed."""
    left = {t: x for t, x in case.left.items() if t in case.rms}
    term = case.worst
    if len(left) < 2 or term not in case.unsolved or _on_its_way(case) or case.at_odds:
        return None
    best = min(left, key=left.__getitem__)
    ratio = left[term] / max(left[best], LEAST)
    if not ratio > WORSE or not case.align.get(term, 0.0) > FAST:
        return None
    evidence = (
        Evidence(f"what is left of {term}", left[term], "1 at u = 0, below 0.1 is solved"),
        Evidence(f"times worse than {best}", ratio, f"above {WORSE:g}"),
        Evidence("share of that which it could learn fast", case.align[term], f"above {FAST:g}"),
    )
    return Verdict(Cause.IMBALANCE, term, evidence, LIKELY, _weight(case, term, best))


def _on_its_way(case: Case, ratio: float = 0.0) -> bool:
    """Whether the worst term falls with the loss: it may be learned yet, if not far slower."""
    return ratio < FAR_SLOWER and case.course.get("falling", 0.0) > FALLS and case.worst_falls


def left_out(case: Case) -> Verdict | None:
    """A term has the weight 0."""
    out = [t for t in case.unsolved if case.weights.get(t, 1.0) == 0]
    if not out:
        return None
    evidence = (
        Evidence(f"weight of {out[0]}", 0.0, "it is left out"),
        Evidence(f"what is left of {out[0]}", case.left[out[0]], "below 0.1 is solved"),
    )
    return Verdict(Cause.IMBALANCE, out[0], evidence, LIKELY, f"Give {out[0]} a weight.")


def outweighed(case: Case) -> Verdict | None:
    """A term has hardly any weight beside another."""
    term = case.worst
    rates = {t: case.weights.get(t, 1.0) * rate for t, rate in case.rates.items() if t in case.rms}
    if len(rates) < 2 or not rates.get(term):
        return None
    best = max(rates, key=rates.__getitem__)
    ratio = rates[best] / rates[term]
    if _on_its_way(case, ratio):
        return None
    worse = case.left[term] / max(case.left[best], LEAST)
    slow = case.slow.get(term, 0.0)
    alone = ratio > OUTWEIGHED and case.unsolved.get(term, 0.0) >= LARGE and slow < SLOW
    both = min(ratio, worse) > ALSO_WORSE and case.slow.get(term, 1.0) < NOT_SLOW
    both = both and case.left[term] > MUCH
    if term not in case.unsolved or not (alone or both) or case.at_odds:
        return None
    evidence = (
        Evidence(f"what is left of {term}", case.left[term], "1 at u = 0, below 0.1 is solved"),
        Evidence(
            f"times that {best} learns faster, weights in force",
            ratio,
            f"above {OUTWEIGHED if alone else ALSO_WORSE:g}",
        ),
    )
    return Verdict(Cause.IMBALANCE, term, evidence, LIKELY, _weight(case, term, best))


def _weight(case: Case, term: str, best: str) -> str:
    weight = case.weights.get(term, 1.0)
    rates = {t: case.weights.get(t, 1.0) * rate for t, rate in case.rates.items()}
    factor = 100.0
    if rates.get(term, 0.0) > 0 and rates.get(best, 0.0) > rates[term]:
        factor = min(1e4, max(10.0, rates[best] / rates[term]))
    factor = min(factor, 10.0) if weight > HEAVY else factor
    said = f"Give {term} a larger weight in the loss: {number(weight * factor, 1)}"
    if case.balanced:
        return f"{said}, by hand: the balancer in use leaves it at {number(weight, 2)}."
    return f"{said} in place of {number(weight, 2)}, or callbacks=[NTKBalancer(), ...]."


def causality(case: Case) -> Verdict | None:
    """What is left of an equation sits in a few points, early in time."""
    if case.clash is not None and case.clash[2] > CLASH:
        return None  # it sits where conditions meet
    if case.kept < SPARED:
        return None
    along_a_line = all(len(axes) == 1 for axes in case.ranges.values())
    if case.at_odds and along_a_line and not case.beginnings:
        return None  # data say otherwise
    for term, where in case.concentration.items():
        early = where.get("early", 0.0)
        share = LESS if early > ALL_EARLY else CONCENTRATED
        if early > ALL_EARLY and case.stuck[0] == term:
            share = LEAST_SHARE
        if case.apart.get(term, (1.0, 0.0))[0] < SOLVABLE:
            continue
        if term in case.unsolved and where["share"] > share and early > AT_START:
            evidence = (
                Evidence(
                    f"share of {term} in a tenth of its points", where["share"], f"above {share:g}"
                ),
                Evidence("of these in the first 30 % of time", early, "above 0.5"),
            )
            return Verdict(Cause.CAUSALITY, term, evidence, LIKELY, EARLY_FIRST)
    return None
