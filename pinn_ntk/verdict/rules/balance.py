"""Rules on the terms beside each other: imbalance, causality, contradiction."""

from __future__ import annotations

from pinn_ntk.analysis.wording import number
from pinn_ntk.verdict.case import SOLVABLE, Case, worst_of
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.remedies import EARLY_FIRST
from pinn_ntk.verdict.verdict import FACT, LIKELY, Evidence, Verdict

CLASH, NOTICED = 0.2, 0.05
"""Difference of two values asked for at one place; what is left of a term that suffers from it."""


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

FALLS = 0.07
"""Decades in the last tenth of the steps by which a loss falls that is not held up yet."""

HEAVY = 10.0
"""Weight in force from which a larger one is tried in small steps."""

LARGE = 0.3
"""What is left of a term from which its small weight may be the cause."""

LEAST = 1e-3
"""What is left of a term below which it does not count how much less."""

FAST = 0.3
"""r^T K r / (lambda_max r^T r) from which a term could learn fast."""

HARDLY = 0.5
"""Share of r^2 in slow modes up to which a term is not held up by these."""

FAR_SLOWER = 1000.0
"""The same from which a term is held up though it falls."""

OUTWEIGHED, ALSO_WORSE = 100.0, 20.0
"""Rate 2 w mean(K_ii) of the fastest term over that of an unsolved one, by itself; both this and
what is left of them."""

SLOW, NOT_SLOW = 0.9, 0.6
"""Share of r^2 in slow modes above which weights do not help, and below which they do."""

CONCENTRATED, LESS = 0.65, 0.5
"""Share of r^2 in a tenth of the points; the same where all of these are early."""

LEAST_SHARE = 0.3
"""The same where no step for all terms solves the equation."""

AT_START, ALL_EARLY = 0.5, 0.9
"""Share of these points that are early in time; all of them."""

CANCELLED = 0.02
"""|sum of gradients| over the sum of their sizes where terms hold each other."""


def imbalance(case: Case) -> Verdict | None:
    """A term could learn fast and is outweighed."""
    left = {t: x for t, x in case.left.items() if t in case.rms}
    term = case.worst
    if len(left) < 2 or term not in case.unsolved or _on_its_way(case) or _at_odds(case):
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
    if term not in case.unsolved or not (alone or both) or _at_odds(case):
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
    weight, rates = case.weights.get(term, 1.0), case.rates
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
    for term, where in case.concentration.items():
        early = where.get("early", 0.0)
        share = LESS if early > ALL_EARLY else CONCENTRATED
        if early > ALL_EARLY and stuck(case)[0] == term:
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


def clash(case: Case) -> Verdict | None:
    """Two conditions ask for different values where they meet."""
    if case.clash is None or case.steps < BEGUN or case.course.get("falling", 0.0) > FALLS:
        return None
    a, b, apart = case.clash
    left = max(case.left.get(a, 0.0), case.left.get(b, 0.0))
    if not apart > CLASH or not left > NOTICED:
        return None
    evidence = (
        Evidence("difference asked for at one place, over the largest value", apart, "above 0.2"),
        Evidence("what is left of the worse of the two", left, "above 0.05"),
    )
    remedy = "Let both agree where they meet, or leave out points near there."
    title = "conditions contradict each other where they meet"
    return Verdict(Cause.CONTRADICTION, f"{a}, {b}", evidence, LIKELY, remedy, title)


TORN = 0.8
"""Share of r^2 that differs at equal points, from which data contradict each other."""


def torn(case: Case) -> Verdict | None:
    """Data ask for several values at one point."""
    shares = {t: x for t, x in case.torn.items() if t in case.unsolved and x > TORN}
    if not shares:
        return None
    term = max(shares, key=shares.__getitem__)
    evidence = (
        Evidence(f"share of {term} that differs at equal points", shares[term], "above 0.8"),
        Evidence(f"what is left of {term}", case.left[term], "below 0.1 is solved"),
    )
    remedy = "No u has two values at one point: look for exchanged or double data, or for noise."
    title = "data contradict each other at equal points"
    return Verdict(Cause.CONTRADICTION, term, evidence, FACT, remedy, title)


STUCK, ALONE, CALM = 0.2, 0.25, 0.2
"""What is left of a term after the best step for all terms; share that one for it alone leaves;
|sum of gradients| over the sum of their sizes of a loss at rest."""


def stuck(case: Case) -> tuple[str, float]:
    """Term that could be solved by itself, and what the best step for all terms leaves of it."""
    left = case.left
    after = {t: both * left[t] for t, (both, alone) in case.apart.items() if alone < ALONE}
    term, most = worst_of({t: x for t, x in after.items() if t in case.rms})
    return (term, most) if most > STUCK else ("", 0.0)


def _at_odds(case: Case) -> bool:
    """Whether the loss is at rest where no step helps all terms."""
    calm = (1.0 if case.cancelling is None else case.cancelling) < CALM
    return calm and case.stationary and bool(stuck(case)[0])


def incompatible(case: Case) -> Verdict | None:
    """What a term asks for is not to be had with what the others ask for."""
    if len(case.rms) < 2 or not _at_odds(case):
        return None
    term, after = stuck(case)
    seen = (
        Evidence(f"what the best step for all terms would leave of {term}", after, "above 0.2"),
        Evidence(f"share that one for {term} alone would leave", case.apart[term][1], "below 0.25"),
    )
    if _from_the_start(case):
        return Verdict(Cause.CAUSALITY, term, seen, LIKELY, EARLY_FIRST)
    return Verdict(Cause.CONTRADICTION, term, seen, LIKELY, CHECK)


def _from_the_start(case: Case) -> bool:
    """Whether there are equations of first order in time and their initial values: no conflict."""
    first = all(case.order.get(t, 0) <= 1 for t in case.rms)
    timed = [t for t in case.concentration if case.timed(t)]
    return first and bool(timed) and case.beginnings


CHECK = "Check signs, coefficients and data, and whether conditions agree where they meet."


def contradiction(case: Case) -> Verdict | None:
    """Several terms are not solved, each could learn fast, and what helps one harms another."""
    unsolved = list(case.unsolved)
    if len(unsolved) < 2 or case.cancelling is None or not case.stationary:
        return None
    fast = any(case.align.get(t, 0.0) > FAST for t in unsolved)
    slow = any(case.slow.get(t, 1.0) > HARDLY for t in unsolved)
    if case.cancelling > CANCELLED or not fast or slow:
        return None
    least = min(case.unsolved.values())
    evidence = (
        Evidence("sum of gradients over sum of their sizes", case.cancelling, "below 0.02"),
        Evidence("least of what is left of these terms", least, "below 0.1 is solved"),
    )
    return Verdict(Cause.CONTRADICTION, ", ".join(unsolved[:3]), evidence, LIKELY, CHECK)
