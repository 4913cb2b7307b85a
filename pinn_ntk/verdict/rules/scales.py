"""Rules on what goes into the network and what is to come out of it."""

from __future__ import annotations

from pinn_ntk.analysis.wording import number
from pinn_ntk.verdict.case import HALF, Case, worst_of
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.verdict import FACT, LIKELY, Evidence, Verdict

LARGE_INPUT, SMALL_SPREAD, FAR_MEAN = 20.0, 0.01, 10.0
"""|x|, standard deviation, and |mean| over that, from which inputs are not scaled."""

FLAT, FLAT_AT_FIRST, DEAD = 0.5, 0.3, 0.9
"""Share of units at which no gradient passes; the same from the first measurement on."""

REPEATED = 0.5
"""Share of the points that repeat others."""

NO_ROUNDING = 1e-5
"""What is left of a term from which rows differ by more than rounding."""

MEASURED = 0.01
"""Share of r^2 that differs at equal points, from which these were measured more than once."""

FEW_PLACES = 3
"""Different points up to which a condition may well hold at these alone."""

LARGE, SMALL = 100.0, 3e-3
"""Size of u that the terms ask for, from which outputs are not scaled."""

COMMON = 0.2
"""Size of u by itself, from which it is near 1."""

NEAR_ZERO = 0.1
"""|u| over its size at the first measurement below which the network is zero."""


def repeated_points(case: Case) -> Verdict | None:
    """Inputs of the network are equal, entry by entry."""
    for term, (different, every) in case.repeated.items():
        others = term not in case.equations and len(case.rms) > 1
        if case.torn.get(term, 0.0) > MEASURED and case.left.get(term, 1.0) > NO_ROUNDING:
            continue
        condition = others and different <= FEW_PLACES
        if every >= 4 and different < (1 - REPEATED) * every and not condition:
            evidence = (Evidence(f"different points of {term}", different, f"of {every}"),)
            remedy = "Mend the sampler: draw points that differ, or each of them once."
            return Verdict(Cause.REPEATED_POINTS, term, evidence, FACT, remedy)
    return None


MOVES = 0.3
"""Share of the last points that lie outside of those of now, from which these are a window."""


def _window(case: Case) -> bool:
    """Whether points are those of a part of the domain, for now."""
    return max(case.moved.values(), default=0.0) > MOVES


def inputs_not_scaled(case: Case) -> Verdict | None:
    """The first layer sees numbers far from [-1, 1]."""
    seen = case.inputs
    if not seen or case.frozen:  # behind frozen layers, the first that is trained sees features
        return None
    said = [
        ("largest |x| that the first layer sees", seen["largest"], LARGE_INPUT),
        ("mean over spread of an input", seen["offset"], FAR_MEAN),
    ]
    evidence = [Evidence(what, x, f"above {most:g}") for what, x, most in said if x > most]
    if _window(case) and not seen["largest"] > LARGE_INPUT:
        return None
    if seen["spread"] < SMALL_SPREAD:
        evidence.append(Evidence("spread of an input", seen["spread"], f"below {SMALL_SPREAD:g}"))
    if not evidence:
        return None
    remedy = (
        "Scale inside of the network: x -> 2 (x - min) / (max - min) - 1, so that derivatives "
        "with respect to x stay what they are."
    )
    return Verdict(Cause.INPUTS_NOT_SCALED, "", tuple(evidence), FACT, remedy)


def saturated(case: Case) -> Verdict | None:
    """Most units are flat at most points, or dead at all of them; not if steps have made it so."""
    flat, dead = case.saturated or 0.0, case.dead or 0.0
    begun_so = min(flat, case.saturated_first)
    if begun_so > FLAT_AT_FIRST or (flat > FLAT and flat - case.saturated_first <= FLAT):
        least = FLAT_AT_FIRST if begun_so > FLAT_AT_FIRST else FLAT
        evidence = (Evidence("share of flat units", flat, f"above {least:g}"),)
        remedy = "A smaller initialisation (torch.nn.init.xavier_normal_ for tanh), scaled inputs."
        return Verdict(Cause.SATURATED, "", evidence, FACT, remedy, "saturated units")
    if dead > DEAD:
        evidence = (Evidence("share of dead units in a layer", dead, f"above {DEAD:g}"),)
        remedy = "Another initialisation of the biases, a smaller learning rate, or SiLU."
        return Verdict(Cause.SATURATED, "", evidence, FACT, remedy, "dead units")
    return None


def nothing_to_find(case: Case) -> Verdict | None:
    """u = 0 solves all terms, and the network has found it, or nothing keeps it from there."""
    terms = {t for t in case.rms if case.weights.get(t, 1.0)}
    if not terms or case.undefined or not terms <= set(case.homogeneous):
        return None
    size, first = case.size, case.size_first
    if size is None or (size > NEAR_ZERO * max(first or 0.0, 1.0) and not _anything(case)):
        return None
    evidence = [Evidence("root mean square of u", size, "all terms hold at u = 0")]
    evidence += [
        Evidence(f"weight of {t}", 0.0, "it is left out") for t in case.rms if t not in terms
    ]
    remedy = (
        "Add the condition that excludes u = 0: an initial velocity, a source, a normalisation; "
        "or check that targets are not zero by mistake."
    )
    return Verdict(Cause.NOTHING_TO_FIND, "", tuple(evidence), FACT, remedy)


def _anything(case: Case) -> bool:
    """Whether one function of the size of u may be added to it while no residual changes."""
    return case.free.get("size", 0.0) > 1 and case.free.get("mode", 1.0) > HALF


def outputs_not_scaled(case: Case) -> Verdict | None:
    """What is sought is far from 1 in size."""
    driven = {t: z for t, z in case.zero.items() if t not in case.homogeneous and t in case.rms}
    if not driven:
        return None
    unit = case.unit or 1.0
    asked = {t: x / unit for t, x in case.demand.items() if t in driven}
    term, most = worst_of(asked)
    if not (most > LARGE or (most < SMALL and not _window(case))):
        return None
    threshold = f"above {LARGE:g}" if most > LARGE else f"below {SMALL:g}"
    quantity = f"size of u that {term} asks for"
    if not COMMON < unit < 1 / COMMON:
        quantity += f", over the {number(unit, 2)} that the network gives for 1"
    evidence = (Evidence(quantity, most, threshold),)
    size = number(most * unit, 1)
    remedy = (
        f"u = scale * net(x) with a scale near {size}, and each residual over its size; or the "
        "equations in units in which u is near 1."
    )
    return Verdict(Cause.OUTPUTS_NOT_SCALED, term, evidence, LIKELY, remedy)
