"""Rules on terms that ask for what no function gives."""

from __future__ import annotations

from pinn_ntk.verdict.case import CLASH, FALLS, FINE, HALF, Case
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.remedies import EARLY_FIRST
from pinn_ntk.verdict.verdict import FACT, LIKELY, Evidence, Verdict

NOTICED = 0.05
"""What is left of a term that suffers from a clash."""


BEGUN = 30
"""Steps before which a term may not have been learned yet."""

FAST = 0.3
"""r^T K r / (lambda_max r^T r) from which a term could learn fast."""

HARDLY = 0.5
"""Share of r^2 in slow modes up to which a term is not held up by these."""

CANCELLED = 0.02
"""|sum of gradients| over the sum of their sizes where terms hold each other."""


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


def incompatible(case: Case) -> Verdict | None:
    """What a term asks for is not to be had with what the others ask for."""
    if len(case.rms) < 2 or not case.nearly_at_odds or _out_of_reach(case):
        return None
    term, after = case.stuck
    seen = (
        Evidence(f"what the best step for all terms would leave of {term}", after, "above 0.15"),
        Evidence(f"share that one for {term} alone would leave", case.apart[term][1], "below 0.1"),
    )
    if _from_the_start(case):
        return Verdict(Cause.CAUSALITY, term, seen, LIKELY, EARLY_FIRST)
    return Verdict(Cause.CONTRADICTION, term, seen, LIKELY, CHECK)


def _out_of_reach(case: Case) -> bool:
    """Whether it is the network that cannot follow: many oscillations, or a term beyond it."""
    beyond = any(case.apart.get(t, (0.0, 0.0))[1] > HALF for t in case.unsolved)
    return beyond or (case.turns > FINE and not case.within)


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
