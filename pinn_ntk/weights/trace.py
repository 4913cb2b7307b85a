"""Loss weights from kernel traces: Wang, Yu, Perdikaris 2022, Algorithm 1.

A term whose kernel block has a small trace learns slowly; its weight is raised until all terms
learn at one average rate. With unequal numbers of rows three readings of that rule exist, and
they are not equivalent:

| convention | c_a, in lambda_a = sum_b c_b / c_a | says |
| --- | --- | --- |
| "sum" | Tr K_aa | equal traces (the paper's eqs 6.5 and 6.6) |
| "mean" | Tr K_aa / N_a | equal mean diagonals |
| "rate" | Tr K_aa / N_a^2 | equal mean convergence rates of a mean-of-squares loss |

All three agree when every N_a is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pinn_ntk.kernel.ntk import NTK

Convention: TypeAlias = Literal["sum", "mean", "rate"]
"""Which reading of the trace rule is used."""

_EXPONENT = {"sum": 0, "mean": 1, "rate": 2}


def trace_weights(kernel: NTK, convention: Convention = "sum") -> dict[str, float]:
    """Loss weights that equalise how fast the terms learn.

    lambda_a = sum_b Tr K_bb / Tr K_aa (Wang, Yu, Perdikaris 2022, Algorithm 1, eqs 6.5 and 6.6),
    from the blocks of the unweighted residuals.

    Args:
        kernel: Kernel of the terms.
        convention: "sum" (the paper), "mean" or "rate"; see the module.

    Returns:
        Term -> weight.

    Raises:
        ValueError: Unknown convention, or a block of trace zero, NaN or inf.

    Example:
        >>> import torch
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> kernel = empirical_ntk({"pde": 3.0 * w[:1], "bc": w[1:]}, [w])
        >>> trace_weights(kernel)
        {'pde': 1.1111111111111112, 'bc': 10.0}
    """
    traces = {name: kernel.trace(name) for name in kernel.terms}
    rows = {name: kernel.sampled(name)[1] for name in kernel.terms}
    return weights_from_traces(traces, rows, convention)


def weights_from_traces(
    traces: Mapping[str, float], rows: Mapping[str, int], convention: Convention = "sum"
) -> dict[str, float]:
    """`trace_weights` from numbers, Tr K_aa and N_a of each term.

    >>> weights_from_traces({"pde": 9.0, "bc": 1.0}, {"pde": 2, "bc": 1}, "mean")
    {'pde': 1.2222222222222223, 'bc': 5.5}
    """
    if convention not in _EXPONENT:
        raise ValueError(f"convention is {convention!r}; expected one of {get_args(Convention)}.")
    for name, trace in traces.items():
        if not 0.0 < trace < float("inf"):
            raise ValueError(
                f"the block of term {name!r} has trace {trace}; a weight needs a positive finite "
                "one. Likely the term does not depend on any trained parameter, or it holds NaN."
            )
    cost = {name: trace / rows[name] ** _EXPONENT[convention] for name, trace in traces.items()}
    total = sum(cost.values())
    return {name: total / own for name, own in cost.items()}


@dataclass(frozen=True)
class TraceRule:
    """lambda_a = sum_b Tr K_bb / Tr K_aa, between bounds; ``ema`` of the old weight is kept.

    >>> TraceRule(ema=0.5).weights({}, {"pde": (9.0, 3), "bc": (1.0, 1)}, ["bc"])
    {'bc': 5.5}
    """

    convention: Convention = "sum"
    ema: float = 0.0
    min_weight: float = 0.0
    max_weight: float = math.inf

    def __post_init__(self) -> None:
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

    def errors(
        self,
        weights: Mapping[str, float],
        traces: Mapping[str, tuple[float, int]],
        of_traces: Mapping[str, float],
    ) -> dict[str, float]:
        """Standard errors of ``weights`` that follow from those of the traces, independent ones.

        To first order: of lambda_a = sum_b c_b / c_a a relative error e_b of c_b makes the share
        c_b / sum_c c_c of e_b, and -e_a of its own besides. What ``ema`` keeps has none.

        >>> rule = TraceRule(convention="sum")
        >>> errors = rule.errors({"pde": 2.0}, {"pde": (1.0, 1), "bc": (1.0, 1)}, {"bc": 0.1})
        >>> errors["pde"]  # half of 10 % of 2
        0.1
        """
        power = _EXPONENT[self.convention]
        cost = {name: trace / rows**power for name, (trace, rows) in traces.items()}
        total = sum(cost.values())
        shares = {name: own / total for name, own in cost.items()}
        relative = {name: of_traces.get(name, 0.0) / trace for name, (trace, _) in traces.items()}
        found = {}
        for name, weight in weights.items():
            parts = [relative[b] * (shares[b] - (b == name)) for b in shares]
            found[name] = (1 - self.ema) * weight * math.hypot(*parts)
        return found

    def weights(
        self,
        old: Mapping[str, float],
        traces: Mapping[str, tuple[float, int]],
        measured: Iterable[str],
    ) -> dict[str, float]:
        """New weights of the terms measured, from the last trace and rows of all terms.

        An old weight that is absent is 1. ValueError where a trace is zero, or a weight not finite.
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
