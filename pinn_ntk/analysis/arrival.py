"""When a curve is below a bound for good: a search over times, or over numbers of steps.

The loss of one term may rise before it falls, so that the first time below says little. The curve
is looked at on a grid whose neighbours differ by 3 %, and bisected after the last time above.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

RATIO = 1.03
"""Ratio of neighbouring times that are looked at; it rises and falls between them unseen."""

_CHUNK = 256
"""Times looked at together."""


def for_good(
    below: Callable[[Tensor], Tensor],
    settled: Callable[[float], bool],
    unit: float,
    *,
    whole: bool = False,
) -> float:
    """The first time from which on a curve stays below.

    Args:
        below: Times (n,), float64, to whether the curve is below at each of them, (n,).
        settled: Whether a time is one from which on the curve is sure to stay below.
        unit: A time in which next to nothing changes.
        whole: Whether to count in whole numbers, up to the rounding of float64.

    Returns:
        The time; 0 where the curve is never above, inf where it never settles.

    Example:
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
    grid = _grid(unit, end, whole)
    last = _last_above(below, grid)
    if last is None:
        return 0.0
    low, high = grid[[last, min(last + 1, len(grid) - 1)]].tolist()
    return _bisected(
        lambda time: bool(below(torch.tensor([time], dtype=torch.float64))), low, high, whole
    )


def _grid(unit: float, end: float, whole: bool) -> Tensor:
    """0, and times that grow by `RATIO` from a unit on, (n,)."""
    count = math.ceil((math.log(end) - math.log(unit)) / math.log(RATIO)) + 1
    powers = torch.pow(RATIO, torch.arange(count, dtype=torch.float64))
    times = torch.cat([torch.zeros(1), (unit * powers).clamp(max=end)])
    distinct: Tensor = (times.round() if whole else times).unique()
    return distinct


def _last_above(below: Callable[[Tensor], Tensor], grid: Tensor) -> int | None:
    """Place of the last time at which the curve is not below."""
    for start in reversed(range(0, len(grid), _CHUNK)):
        above = torch.nonzero(~below(grid[start : start + _CHUNK]).cpu())
        if len(above):
            return start + int(above[-1])
    return None


def _bisected(holds: Callable[[float], bool], low: float, high: float, whole: bool) -> float:
    """Where something starts to hold that does not at ``low``, down to rounding."""
    while True:
        middle = (low + high) / 2
        middle = float(math.floor(middle)) if whole else middle
        if not low < middle < high:
            return high
        low, high = (low, middle) if holds(middle) else (middle, high)
