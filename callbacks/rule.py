"""How the balancer's weights follow from traces: Algorithm 1, averaged and bounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from pinn_ntk.balance import Convention, weights_from_traces
from pinn_ntk.callbacks.ranks import Traces


@dataclass(frozen=True)
class TraceRule:
    """lambda_a = sum_b Tr K_bb / Tr K_aa (Wang, Yu, Perdikaris 2022, eqs 6.5 and 6.6).

    Attributes:
        convention: Reading of the rule, see `pinn_ntk.balance`.
        ema: Share of the old weight that an update keeps.
        min_weight: Smallest weight.
        max_weight: Largest weight.

    Raises:
        ValueError: One of them is not as expected.

    Example:
        >>> TraceRule(ema=0.5).weights({}, {"pde": (9.0, 3), "bc": (1.0, 1)}, ["bc"])
        {'bc': 5.5}
    """

    convention: Convention = "sum"
    ema: float = 0.0
    min_weight: float = 0.0
    max_weight: float = math.inf

    def __post_init__(self) -> None:
        """Check what was given."""
        if self.convention not in get_args(Convention):
            raise ValueError(
                f"NTKBalancer: convention is {self.convention!r}; expected one of "
                f"{get_args(Convention)}."
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"NTKBalancer: ema is {self.ema!r}; expected a number in [0, 1).")
        if not 0 <= self.min_weight < math.inf or not self.min_weight < self.max_weight:
            raise ValueError(
                f"NTKBalancer: min_weight is {self.min_weight!r} and max_weight is "
                f"{self.max_weight!r}; expected 0 <= min_weight < max_weight."
            )

    def weights(
        self, old: Mapping[str, float], traces: Traces, measured: Iterable[str]
    ) -> dict[str, float]:
        """New weights.

        Args:
            old: Term -> weight so far; 1 where absent.
            traces: Term -> last trace and rows, of all terms.
            measured: The terms to give a new weight.

        Returns:
            Term -> weight, of the terms measured.

        Raises:
            ValueError: A trace is zero, or a weight not finite.
        """
        new = weights_from_traces(
            {name: trace for name, (trace, _) in traces.items()},
            {name: rows for name, (_, rows) in traces.items()},
            self.convention,
        )
        kept = {name: self.ema * old.get(name, 1.0) for name in measured}
        weights = {name: share + (1 - self.ema) * new[name] for name, share in kept.items()}
        if not all(map(math.isfinite, weights.values())):
            raise ValueError(f"the weights {weights} are not finite; the traces are {traces}.")
        low, high = self.min_weight, self.max_weight
        return {name: min(max(weight, low), high) for name, weight in weights.items()}
