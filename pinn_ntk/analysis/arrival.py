"""When a loss is below a bound for good: a search over times, or over numbers of steps.

The loss of one term may rise before it falls, so that the first time below says little. The curve
is looked at on a grid whose neighbours differ by 3 %, and bisected after the last time above.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pinn_ntk.analysis.dynamics import LinearizedTraining
from pinn_ntk.analysis.propagators import Propagator

RATIO = 1.03
"""Ratio of neighbouring times that are looked at; it rises and falls between them unseen."""

_CHUNK = 256  # times looked at together


class LossCurve:
    """1/2 |D^(1/2) r|^2 in the rows of a trained term, or in all, as the modes fall."""

    def __init__(self, training: LinearizedTraining, term: str | None) -> None:
        self.coefficients, self.rates = training.coefficients, training.rates
        self.modes = None if term is None else training.modes[training.rows(term)]

    def at(self, kept: Tensor) -> Tensor:
        """The loss where that much of each mode is left, (*times,)."""
        c = self.coefficients
        left = torch.where(c == 0, 0.0, kept * c)  # not 0 * inf
        if self.modes is not None:
            left = left @ self.modes.mT
        return left.square().sum(-1) / 2

    def resting(self, still: Tensor) -> float:
        """|D^(1/2) r| of what is left in the end, of the modes that stand still or swing."""
        c = torch.where(still, self.coefficients, 0.0)
        if self.modes is None:
            return float(c.norm())
        stays = self.modes @ torch.where(self.rates == 0, c, 0.0)
        swings = self.modes @ torch.where(self.rates > 0, c, 0.0)
        return max(float((stays + swings).norm()), float((stays - swings).norm()))

    def sizes(self) -> Tensor:
        """|D^(1/2) r| of each mode at the start, (R,)."""
        sizes = self.coefficients.abs()
        return sizes if self.modes is None else sizes * self.modes.square().sum(0).sqrt()


def check_trained(training: LinearizedTraining, term: str | None) -> None:
    """Raise a KeyError for a term that has no modes."""
    if term is not None and term not in training.terms:
        raise KeyError(f"no term {term!r} is trained; there are {list(training.terms)}.")


def time_to_loss(
    training: LinearizedTraining,
    loss: float,
    term: str | None,
    decrements: Tensor,
    propagator: Callable[[Tensor], Propagator],
    unit: float,
    *,
    whole: bool = False,
) -> float:
    """The first time, or number of steps, from which on a loss stays at a value or below.

    Each mode falls as exp(-decrement t), (R,), and as the propagator says.
    """
    if math.isnan(loss):
        raise ValueError("expected the loss to reach, a number, got nan.")
    check_trained(training, term)
    if bool(((training.coefficients.square() / 2 > 0) & (decrements < 0)).any()):
        return math.inf
    curve = LossCurve(training, term)
    sizes = torch.where(decrements > 0, curve.sizes(), 0.0)
    room = math.sqrt(2 * loss) - curve.resting(decrements == 0) if loss >= 0 else -math.inf
    if room < 0 or (room == 0 and bool(sizes.any())):
        return math.inf

    def below(times: Tensor) -> Tensor:  # of steps two, since a mode may change sign in each
        both = [times, times + 1] if whole else [times]
        return torch.stack([curve.at(propagator(t).kept) <= loss for t in both]).all(0)

    def settled(time: float) -> bool:
        left = sizes * propagator(torch.tensor(time, dtype=torch.float64)).kept.abs()
        return float(left.sum()) <= room

    return for_good(below, settled, unit, whole=whole)


def for_good(
    below: Callable[[Tensor], Tensor],
    settled: Callable[[float], bool],
    unit: float,
    *,
    whole: bool = False,
) -> float:
    """The first time from which on a curve stays below; 0 if it always is, inf if it never settles.

    ``below`` says of times (n,), float64, whether the curve is below at each; ``settled`` whether
    it is sure to stay there from a time on. In a ``unit`` of time next to nothing changes. With
    ``whole``, times are whole numbers, up to the rounding of float64.

    >>> for_good(lambda t: t >= 7.5, lambda t: t >= 7.5, 0.03)
    7.5
    >>> for_good(lambda n: n >= 7.5, lambda n: n >= 7.5, 1.0, whole=True)
    8.0
    """
    end = unit
    while end < math.inf and not settled(end):
        end *= 2
    if math.isinf(end):
        return math.inf
    times = grid(unit, end, whole=whole)
    last = _last_above(below, times)
    if last is None:
        return 0.0
    low, high = map(float, times[[last, min(last + 1, len(times) - 1)]])
    while True:  # bisect, down to rounding
        middle = (low + high) / 2
        middle = float(math.floor(middle)) if whole else middle
        if not low < middle < high:
            return high
        holds = bool(below(torch.tensor([middle], dtype=torch.float64)))
        low, high = (low, middle) if holds else (middle, high)


def grid(unit: float, end: float, *, whole: bool) -> Tensor:
    """0, and times that grow by `RATIO` from a unit on, (n,)."""
    count = math.ceil((math.log(end) - math.log(unit)) / math.log(RATIO)) + 1
    powers = torch.pow(RATIO, torch.arange(count, dtype=torch.float64))
    times = torch.cat([torch.zeros(1), (unit * powers).clamp(max=end)])
    distinct: Tensor = (times.round() if whole else times).unique()
    return distinct


def _last_above(below: Callable[[Tensor], Tensor], times: Tensor) -> int | None:
    """Place of the last time at which the curve is not below."""
    for start in reversed(range(0, len(times), _CHUNK)):
        above = torch.nonzero(~below(times[start : start + _CHUNK]).cpu())
        if len(above):
            return start + int(above[-1])
    return None
