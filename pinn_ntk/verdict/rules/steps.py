"""Rules on the optimizer and its steps."""

from __future__ import annotations

import math

from pinn_ntk.analysis.wording import number
from pinn_ntk.verdict.case import ERROR, SOLVABLE, STANDS, WRONG, Case
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.verdict import FACT, LIKELY, Evidence, Verdict

RANDOM = 0.01
"""Relative change of a residual from call to call."""

DECAY = 0.2
"""Pull of a weight decay over that of the loss."""

REACH = 2.0
"""Sum of lr_eff mu_max below which not even the fastest mode is learned."""

FALLING = 0.1
"""Decades by which a loss that still falls does so in the last tenth of the steps."""

LEARNED = 1.0
"""Sum of the learning rates below which Adam has not come far."""

WAY = 0.1
"""Longest step times the steps, over the parameters, below which these have hardly moved."""

ENOUGH = 200
"""Steps from which all of them together can be called too short."""

BEGUN = 30
"""Steps before which nothing is said of how training goes."""

RISING, JITTER, STAYS_UP, HIGH = 0.3, 0.05, 2.0, 0.2
"""Share of rising steps, decades by which, decades that the loss fell in all, what is left."""

THROWN, LEAP = 0.5, 0.1
"""Share of units thrown into saturation; longest step over the parameters that does so."""

UNSTABLE = 2.0
"""lr mu_max from which plain descent is unstable."""


def random(case: Case) -> Verdict | None:
    """Residuals change from call to call at the same points."""
    noisy = {t: x for t, x in case.random.items() if x > RANDOM and t in case.rms}
    if not noisy:
        return None
    term = max(noisy, key=noisy.__getitem__)
    evidence = (Evidence(f"change of {term} between two calls", noisy[term], "above 0.01"),)
    remedy = "Take dropout and noise out of the network; derivatives do not survive them."
    title = "the residual is random"
    return Verdict(Cause.RANDOM_OR_DECAY, term, evidence, FACT, remedy, title)


def decay(case: Case) -> Verdict | None:
    """A decay of the parameters pulls harder than the loss."""
    first = case.previous[0].get("decay") if case.previous else None
    pull = max(case.decay or 0.0, (first or 0.0) * ("AdamW" in case.optimizers))
    if not pull > DECAY:
        return None
    evidence = (Evidence("weight decay over gradient", pull, "above 0.2"),)
    remedy = "weight_decay=0: a PINN is held by its equation, and need not have small parameters."
    return Verdict(Cause.RANDOM_OR_DECAY, "", evidence, LIKELY, remedy, "weight decay")


def step_too_short(case: Case) -> Verdict | None:
    """All steps together do not reach the fastest mode."""
    if case.steps < ENOUGH or case.course.get("falling", 0.0) > FALLING:
        return None
    way = case.steps * case.leap if case.leap else math.inf
    if case.reach is not None and 0 <= case.reach < REACH:
        quantity = f"progress along the fastest mode, lr_eff mu_max over {case.steps} steps"
        evidence = (Evidence(quantity, case.reach, "below 2 nothing is learned"),)
        factor = number(max(10.0, 100 / max(case.reach, 1e-9)), 1)
    elif way < WAY:
        quantity = f"way of {case.steps} steps at most, over the size of the parameters"
        evidence = (Evidence(quantity, way, f"below {WAY:g}"),)
        factor = number(10 / way, 1)
    else:
        return None
    remedy = (
        f"A learning rate larger by 10 to {factor}; and look for clipping, a schedule that falls "
        "to zero, or a tiny factor before the loss."
    )
    return Verdict(Cause.STEP_TOO_SHORT, "", evidence, LIKELY, remedy)


STOPPED, SLOWER = 0.01, 0.5
"""Decades in the last tenth of the steps below which a loss stands; the same over their mean, and
the learning rate over its mean, of a loss that stands because that has fallen."""


def stopped(case: Case) -> Verdict | None:
    """An adaptive optimizer came to a stand before it had come far."""
    falling, fallen = case.course.get("falling", math.nan), case.course.get("fallen", 0.0)
    if not case.adaptive or case.steps < ENOUGH or not abs(falling) < STOPPED:
        return None
    if falling > SLOWER * fallen / 10:  # as fast as ever
        return None
    if (case.lr or 0.0) > SLOWER * (case.scheduled or 0.0) / case.steps:  # no schedule
        return None
    if case.scheduled is None or not case.scheduled < LEARNED:
        return None
    evidence = (
        Evidence("learning rate times steps", case.scheduled, "below 1"),
        Evidence("decades that the loss fell in the last tenth", falling, "it stands"),
    )
    remedy = "A schedule that falls more slowly, and not to zero; or a larger learning rate."
    return Verdict(Cause.STEP_TOO_SHORT, "", evidence, LIKELY, remedy)


def begun(case: Case) -> Verdict | None:
    """Too few steps were taken to say how training goes."""
    if case.steps >= BEGUN:
        return None
    evidence = (Evidence("steps so far", case.steps, ""),)
    return Verdict(Cause.EARLY, "", evidence, FACT, "Wait: training has just begun.")


MOVED = 0.3
"""Share of the last points outside of the new ones from which these are elsewhere."""

GROWN = 3.0
"""Residual of the worst term over that of the last measurement from which it has just grown."""


def just_grown(case: Case) -> Verdict | None:
    """The worst term was much smaller at the last measurement: what follows is not known yet."""
    last = case.previous[-1] if case.previous else {}
    before = last.get("rms", {}).get(case.worst)
    if not before or last.get("steps", 0) < BEGUN or case.rms[case.worst] < GROWN * before:
        return None
    if not max(case.moved.values(), default=0.0) > MOVED:
        return None
    growth = case.rms[case.worst] / before
    quantity = f"{case.worst} over that of the last measurement"
    remedy = "Wait: its points are new, and lie where the last ones did not."
    title = "early at new points"
    return Verdict(
        Cause.EARLY, case.worst, (Evidence(quantity, growth, "above 3"),), LIKELY, remedy, title
    )


def on_its_way(case: Case) -> Verdict | None:
    """Terms are solved, u or a coefficient is not right yet, and the loss still falls."""
    falling = case.course.get("falling", 0.0)
    name, error = case.amiss
    if not error > WRONG or not falling > STANDS:
        return None
    evidence = (
        Evidence(ERROR.format(name), error, f"above {WRONG:g}"),
        Evidence("decades that the loss fell in the last tenth", falling, f"above {STANDS:g}"),
    )
    return Verdict(Cause.EARLY, "", evidence, LIKELY, _wait(case, falling))


def early(case: Case) -> Verdict | None:
    """The loss still falls."""
    falling = case.course.get("falling", 0.0)
    if falling > FALLING and case.worst_falls:
        evidence = (Evidence("decades that the loss fell in the last tenth", falling, "above 0.1"),)
        return Verdict(Cause.EARLY, "", evidence, LIKELY, _wait(case, falling))
    if case.adaptive and case.scheduled is not None and case.scheduled < LEARNED:
        evidence = (Evidence("learning rate times steps", case.scheduled, "below 1"),)
        remedy = f"Wait, or a larger learning rate: {case.steps} steps so far are few for it."
        return Verdict(Cause.EARLY, "", evidence, LIKELY, remedy)
    return None


def going(case: Case) -> Verdict | None:
    """The loss falls slowly, and nothing is in its way: one step would solve all terms."""
    falling = case.course.get("falling", 0.0)
    most = max((both for both, _ in case.apart.values()), default=1.0)
    if not falling > STANDS or not most < SOLVABLE:
        return None
    evidence = (
        Evidence("decades that the loss fell in the last tenth", falling, f"above {STANDS:g}"),
        Evidence("largest share of a term that the best step would leave", most, "below 0.3"),
    )
    return Verdict(Cause.EARLY, "", evidence, LIKELY, _wait(case, falling))


def _wait(case: Case, falling: float) -> str:
    """How many more steps the worst term takes, at the pace of the last tenth."""
    decades = 2 * max(0.0, _log10(case.left.get(case.worst, 1.0) / 0.1))
    steps = max(case.steps / 10 * decades / falling, case.steps / 10)
    return f"Wait: at this pace {number(steps, 1)} more steps, and more if it slows down."


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else 0.0


def thrown(case: Case) -> Verdict | None:
    """Steps have thrown units into saturation."""
    grown = (case.saturated or 0.0) - case.saturated_first
    long = case.leap is None or case.leap > LEAP
    if not grown > THROWN or not long or "LBFGS" in case.optimizers:  # whose steps may be long
        return None
    evidence = [Evidence("growth of the share of flat units", grown, "above 0.5")]
    if case.leap is not None:
        quantity = "longest step over the size of the parameters"
        evidence.append(Evidence(quantity, case.leap, "above 0.1"))
    return Verdict(Cause.STEP_TOO_LARGE, "", tuple(evidence), LIKELY, _smaller(case))


def unstable(case: Case) -> Verdict | None:
    """Plain descent takes steps beyond its bound."""
    if not case.plain or not case.lr or not case.curvature_now:
        return None
    size = case.lr * case.curvature_now
    if not size > UNSTABLE:
        return None
    evidence = (Evidence("lr mu_max", size, "unstable above 2"),)
    return Verdict(Cause.STEP_TOO_LARGE, "", evidence, LIKELY, _smaller(case))


def jumps(case: Case) -> Verdict | None:
    """The loss jumps up and down and stays high, at points that stay."""
    course = case.course
    if not course or not case.stays or not course["fallen"] < STAYS_UP:
        return None
    if not max(case.left.values(), default=1.0) > HIGH:
        return None
    if not course["rising"] > RISING or not course["jitter"] > JITTER:
        return None
    evidence = (
        Evidence("share of steps at which the loss rose", course["rising"], "above 0.3"),
        Evidence("decades from step to step", course["jitter"], "above 0.05"),
    )
    return Verdict(Cause.STEP_TOO_LARGE, "", evidence, LIKELY, _smaller(case))


def _smaller(case: Case) -> str:
    if case.plain and case.mu_max:
        return f"A learning rate smaller by 10, and below 2 / mu_max = {2 / case.mu_max:.1g}."
    return "A learning rate smaller by 10."
