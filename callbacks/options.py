"""Arguments of the balancer, checked."""

from __future__ import annotations

import math
from typing import get_args

from pinn_ntk.balance import Convention


def check_rule(
    rule: str, convention: str, ema: float, min_weight: float, max_weight: float
) -> None:
    """Check what decides on the weights.

    Args:
        rule: How weights follow from the kernel.
        convention: Reading of the trace rule.
        ema: Share of the old weight that an update keeps.
        min_weight: Smallest weight.
        max_weight: Largest weight.

    Raises:
        ValueError: One of them is not as expected.
    """
    if rule != "trace":
        raise ValueError(f"NTKBalancer: rule is {rule!r}; expected 'trace'.")
    if convention not in get_args(Convention):
        raise ValueError(
            f"NTKBalancer: convention is {convention!r}; expected one of {get_args(Convention)}."
        )
    if not 0 <= ema < 1:
        raise ValueError(f"NTKBalancer: ema is {ema!r}; expected a number in [0, 1).")
    if not 0 <= min_weight < math.inf or not min_weight < max_weight:
        raise ValueError(
            f"NTKBalancer: min_weight is {min_weight!r} and max_weight is {max_weight!r}; expected "
            "0 <= min_weight < max_weight."
        )
