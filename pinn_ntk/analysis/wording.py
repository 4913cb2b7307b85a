"""Numbers in sentences: few digits, no exponents where people would write none, and plurals."""

from __future__ import annotations

import math


def number(value: float, digits: int = 2) -> str:
    """A number to some digits; below a million without exponent.

    >>> number(123.4), number(0.0456), number(2.0), number(1.5e8), number(1e300 * 1e300)
    ('120', '0.046', '2', '1.5e+08', 'over 1e+308')
    """
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}over 1e+308"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded + 0.0:g}" if abs(rounded) < 1e6 else f"{rounded:.{digits}g}"


def percent(share: float) -> str:
    """A share of something.

    >>> percent(0.999), percent(0.0214), percent(1e-9), percent(0)
    ('100 %', '2.1 %', 'under 0.01 %', 'none')
    """
    if share <= 0:
        return "none"
    return f"{number(100 * share)} %" if share >= 1e-4 else "under 0.01 %"


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "row"), counted(2, "row")
    ('1 row', '2 rows')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def came_true(ratio: float, predicted: float | None) -> str:
    """What a loss did beside what was ``predicted`` of it, ``ratio`` times that.

    >>> came_true(1.0, 0.5)
    'fell as much as the kernel says'
    """
    foretold, opposite, noun = "fell", "rose", "fall"
    if predicted is None:
        foretold, opposite, noun = "changed", "changed", "change"
    elif predicted < 0:
        foretold, opposite, noun = "rose", "fell", "rise"
    times = number(ratio)
    if ratio < 0:
        size = "" if times == "-1" else f"{times.removeprefix('-')} times "
        return f"{opposite}, by {size}the {noun} that the kernel says"
    much = "as much as" if times == "1" else f"by {times} times what"
    return f"{foretold} {much} the kernel says"
