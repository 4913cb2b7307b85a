"""Rules on the points of the terms, and on what they leave free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pinn_ntk.verdict.case import BARELY, SOLVED, WRONG, Case, worst_of
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.directions import CONSTANT
from pinn_ntk.verdict.verdict import FACT, LIKELY, POSSIBLE, Evidence, Verdict

BETWEEN, APART = 100.0, 20.0
"""Mean square between the points over that at them; the same at points further away."""

FREE, FREE_OF_SIZE, FREE_COEFFICIENT = 5e-4, 0.012, 0.02
"""Variance that the terms leave: of u over the prior one and over u^2, both; of a coefficient."""


FEWEST = 10
"""Points, of a batch along each of two coordinates, from which these tell what is free."""

HANDFUL, MORE = 16, 3.0
"""Points that are few in a plane; mean square between them over that at them, where known."""

SAME = 0.2
"""Distance of the ends of points from those of the last measurement, over what they lack."""

ONE_MODE = 0.5
"""Share of the largest mode in what is free, above which it is a function and not noise."""

LOOSE, LOOSE_RATE = 2e-4, 2e-3
"""Variance over u^2 from which u is free where there are equations alone; where no u_t is given."""

FIX = "Add what fixes it: an initial value, a boundary condition, a datum."

FREE_IN_BATCH, COEFFICIENT_IN_BATCH, FEW_POINTS = 0.05, 0.1, 100
"""Variance over u^2, and of a coefficient, that so few points leave, others at the next step."""


def between(case: Case) -> Verdict | None:
    """The equation holds at its points and not between them."""
    term, ratio = worst_of(case.fresh)
    if not ratio > BETWEEN:
        return None
    off = (case.error or 0.0) * math.sqrt(ratio)  # of u, were the residual that between the points
    if not _left_there(case, term, ratio) > BARELY and not off > WRONG:
        return None
    if (same := _redrawn(case)) is not None:
        return same
    quantity = f"{term}, mean square between its points over that at them"
    evidence = (Evidence(quantity, ratio, f"above {BETWEEN:g}"),)
    remedy = f"More points than {case.n_points or 'these'}, or new ones at every step."
    return Verdict(Cause.POINTS, term, evidence, FACT, remedy, "too few points")


def _left_there(case: Case, term: str, ratio: float) -> float:
    """What is left of a term elsewhere."""
    return case.left.get(term, 0.0) * math.sqrt(ratio)


def points(case: Case) -> Verdict | None:
    """The equation holds at its points and not elsewhere, or no longer at old ones."""
    if (few := between(case)) is not None:
        return few
    term, ratio = worst_of(case.outside)
    if ratio > APART and _left_there(case, term, ratio) > SOLVED:
        quantity = f"{term}, mean square where it has no points over that at them"
        evidence = (Evidence(quantity, ratio, f"above {APART:g}"),)
        remedy = "Draw points from the whole domain, up to where the other terms have theirs."
        title = "points miss a part of the domain"
        return Verdict(Cause.POINTS, term, evidence, FACT, remedy, title)
    term, ratio = case.forgotten or ("", 0.0)
    if ratio > APART and _left_there(case, term, ratio) > SOLVED:
        evidence = (
            Evidence(f"{term}, mean square at old points over that at today's", ratio, "above 20"),
        )
        remedy = "Keep old points beside the new ones."
        return Verdict(Cause.POINTS, term, evidence, FACT, remedy, "old points are forgotten")
    return None


TOLD = 0.25
"""R^2 of data by straight lines between their neighbours, below which these are too few."""


def too_few_data(case: Case) -> Verdict | None:
    """Data that the network meets say nothing of what lies between them; all data, no batch."""
    told = {t: x for t, x in case.told.items() if x < TOLD}
    if not told or not case.stays:
        return None
    term = min(told, key=told.__getitem__)
    evidence = (Evidence(f"R^2 of {term} by their neighbours", told[term], "below 0.25"),)
    remedy = "More data, or an equation: between these the network may do anything."
    return Verdict(Cause.POINTS, term, evidence, POSSIBLE, remedy, "too few data")


def unconditioned(case: Case) -> Verdict | None:
    """There are equations along a line, and nothing says where u begins."""
    of_size = case.free.get("size", 0.0)
    if not of_size > LOOSE or not case.loose:
        return None
    return _missing(of_size, LOOSE, Evidence("terms beside the equations", 0, "and no ansatz"))


def without_rate(case: Case) -> Verdict | None:
    """An equation is of second order in time, and nothing gives u_t at the start."""
    of_size = case.free.get("size", 0.0)
    if not of_size > LOOSE_RATE or not case.without_rate:
        return None
    seen = Evidence(f"order of {case.without_rate[0]} in time", 2, "values alone at the start")
    return _missing(of_size, LOOSE_RATE, seen)


def _missing(of_size: float, bound: float, seen: Evidence) -> Verdict:
    left = Evidence("variance of u that the equations leave, over u^2", of_size, f"above {bound:g}")
    return Verdict(Cause.NOT_UNIQUE, "", (seen, left), LIKELY, FIX)


SURE, SURE_OF_SIZE, ALL_OF_IT = 0.01, 0.1, 0.95
"""The same, and the share of one mode in it, from which a loss that still falls does not matter."""


def never_unique(case: Case) -> Verdict | None:
    """One function may be added to u while no residual changes, however long it is waited."""
    free = case.free
    sure = free.get("u", 0.0) > SURE and free.get("size", 0.0) > SURE_OF_SIZE
    return not_unique(case) if sure and free.get("mode", 0.0) > ALL_OF_IT else None


def not_unique(case: Case) -> Verdict | None:
    """u, a field beside it, or a coefficient may change while no residual does."""
    few = not case.stays and (case.n_points or FEW_POINTS) < FEW_POINTS
    name, variance = worst_of({n: v for n, v in case.free.items() if n not in OF_FIELD})
    most = COEFFICIENT_IN_BATCH if few else FREE_COEFFICIENT
    if variance > most:
        what = f"variance of {name} that the terms leave"
        evidence = (Evidence(what, variance, f"above {most:g}"),)
        remedy = "Data that tell the coefficients apart, or fewer of them."
        title = "coefficients are not determined"
        return Verdict(Cause.NOT_UNIQUE, name, evidence, LIKELY, remedy, title)
    kinked = case.kinked and bool(case.activations)  # which leave u free between the points
    if kinked or (few and _sparse(case)):
        return None
    bound = FREE_IN_BATCH if few else FREE_OF_SIZE
    of_fields = {"u": case.free, **case.free_beside}
    loose = (n for n, free in of_fields.items() if _is_free(free, bound))
    return next((_free(case, n, bound) for n in loose), None)


OF_FIELD = ("u", "size", "mode", CONSTANT)
"""What `Case.free` says of u; all else in it is of coefficients."""


def _is_free(free: Mapping[str, float], bound: float) -> bool:
    of_prior, of_size = free.get("u", 0.0), free.get("size", 0.0)
    return of_prior > FREE and of_size > bound and free.get("mode", 1.0) > ONE_MODE


def _free(case: Case, name: str, bound: float) -> Verdict:
    """Of u or another field, why it is."""
    free = case.free if name == "u" else case.free_beside[name]
    few = case.stays and (case.n_points or FEWEST) < FEWEST
    places = (_redrawn, _too_few if few else _ended, short) if name == "u" else ()
    if (said := next((v for rule in places if (v := rule(case)) is not None), None)) is not None:
        return said
    seen = (
        Evidence(
            f"variance of {name} that the terms leave, over {name}^2",
            free["size"],
            f"above {bound:g}",
        ),
        Evidence("the same over the prior one", free["u"], "1e-6 where nothing is free"),
    )
    about = "" if name == "u" else name
    if free.get(CONSTANT, 0.0) > LEVEL:
        return Verdict(Cause.NOT_UNIQUE, about, seen, LIKELY, ANCHOR, UP_TO_A_CONSTANT)
    return Verdict(Cause.NOT_UNIQUE, about, seen, LIKELY, FIX)


LEVEL = 0.95
"""Share of what is free that is a constant, of each output."""

UP_TO_A_CONSTANT = "the solution is determined up to a constant"

ANCHOR = "Fix its value at one point; nothing is wrong if its derivatives alone are wanted."


def _too_few(case: Case) -> Verdict:
    """u is free between a handful of points."""
    evidence = (
        Evidence("points of the equation", case.n_points or 0, ""),
        Evidence("variance of u that the terms leave, over u^2", case.free["size"], "above 0.012"),
    )
    return Verdict(Cause.POINTS, "", evidence, LIKELY, "More points.", "too few points")


def handful(case: Case) -> Verdict | None:
    """An equation in a plane or in space has a handful of points, the same in each step."""
    axes = max(map(len, case.ranges.values()), default=1)
    if axes < 2 or not case.stays or (case.n_points or HANDFUL + 1) > HANDFUL:
        return None
    if max(case.fresh.values(), default=MORE) < MORE:
        return None
    if (same := _redrawn(case)) is not None:
        return same
    evidence = (Evidence(f"points of the equation, in {axes} dimensions", case.n_points or 0, ""),)
    return Verdict(Cause.POINTS, "", evidence, LIKELY, "More points.", "too few points")


def _sparse(case: Case) -> bool:
    """Whether the points of one batch lie so far apart that u is free between them."""
    axes = max(map(len, case.ranges.values()), default=1)
    return case.n_points is not None and case.n_points < FEWEST ** min(axes, 2)


def _redrawn(case: Case) -> Verdict | None:
    """Points that a step draws are the same each time."""
    for term, count in case.redrawn.items():
        evidence = (Evidence(f"points of {term} that are drawn again at each step", count, ""),)
        remedy = (
            "Mend the sampler: seed its generator once, so that each step has points of its own."
        )
        title = "the same points are drawn at each step"
        return Verdict(Cause.REPEATED_POINTS, term, evidence, LIKELY, remedy, title)
    return None


def short(case: Case) -> Verdict | None:
    """Points reach one end of the domain that the network is scaled to, and not the other."""
    before = case.previous[-1].get("ranges", {}) if case.previous else {}
    for term, (axis, end, of) in case.short.items():
        if not _same(before.get(term, []), case.ranges.get(term, []), abs(of - end)):
            continue  # a window that moves, perhaps
        evidence = (
            Evidence(f"where points of {term} end along coordinate {axis}", end, ""),
            Evidence("where the domain does that the network is scaled to", of, ""),
        )
        remedy = "Draw points from the whole domain, if u is asked for there."
        title = "points miss a part of the domain"
        return Verdict(Cause.POINTS, term, evidence, POSSIBLE, remedy, title)
    return None


def _same(box: Sequence[Sequence[float]], other: Sequence[Sequence[float]], size: float) -> bool:
    """Whether two boxes have the same ends, as far as random points tell."""
    ends = [[end for side in one for end in side] for one in (box, other)]
    apart = (abs(a - b) for a, b in zip(*ends, strict=True))
    return len(ends[0]) == len(ends[1]) > 0 and max(apart) < SAME * size


def _ended(case: Case) -> Verdict | None:
    """u is free where an ansatz reaches beyond the points."""
    for term, (axis, end, wall) in case.walled.items():
        evidence = (
            Evidence(f"last point of {term} along coordinate {axis}", end, ""),
            Evidence("where u holds by construction behind it", wall, ""),
        )
        remedy = "Draw points from the whole domain, up to where u holds by construction."
        title = "points miss a part of the domain"
        return Verdict(Cause.POINTS, term, evidence, LIKELY, remedy, title)
    return None
