"""Loss weights from kernel traces: Wang, Yu, Perdikaris 2022, Algorithm 1.

A term whose kernel block has a small trace learns slowly; its weight is raised until all terms
learn at one rate. With unequal numbers of rows N_a three readings of that rule exist, and they are
not equivalent:

| convention | c_a, in lambda_a = sum_b c_b / c_a | says |
| --- | --- | --- |
| "mean" | Tr K_aa / N_a | equal mean diagonals: equal rates of means of squares, over all modes |
| "sum" | Tr K_aa | equal traces (the paper's eqs 6.5 and 6.6): those of sums of squares |
| "rate" | Tr K_aa / N_a^2 | equal mean eigenvalues of the operators of means of squares |

All three agree when every N_a is the same, as in the paper. Of a mean of squares over points drawn
from one region only "mean" does not depend on how many were drawn, hence it is the default; "sum"
is what fits a loss of sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pinn_ntk.kernel.ntk import NTK

Convention: TypeAlias = Literal["sum", "mean", "rate"]
"""Which reading of the trace rule is used."""

DEFAULT: Convention = "mean"
"""What does not depend on how many points were drawn."""

ROUNDING = 4.0
"""Size of a row that is taken for rounding, in rounding units of the largest."""

_EXPONENT = {"sum": 0, "mean": 1, "rate": 2}


def trace_weights(kernel: NTK, convention: Convention = DEFAULT) -> dict[str, float]:
    """Loss weights that equalise how fast the terms learn.

    lambda_a = sum_b c_b / c_a with c_a = Tr K_aa / N_a, from the blocks of the unweighted
    residuals; for equal numbers of rows this is Wang, Yu, Perdikaris 2022, Algorithm 1, eqs 6.5
    and 6.6.

    Args:
        kernel: Kernel of the terms.
        convention: "mean", "sum" (the paper's equations as they stand) or "rate"; see the module.

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
    traces: Mapping[str, float], rows: Mapping[str, int], convention: Convention = DEFAULT
) -> dict[str, float]:
    """`trace_weights` from numbers, Tr K_aa and N_a of each term.

    >>> weights_from_traces({"pde": 9.0, "bc": 1.0}, {"pde": 2, "bc": 1})
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


def unmoved(
    traces: Mapping[str, float], rows: Mapping[str, int], eps: Mapping[str, float]
) -> list[str]:
    """Terms that no parameter moves but for rounding: those that a hard constraint fulfils.

    ``eps`` is the rounding unit of each residual. What is sin(pi) there, or a difference of equal
    numbers, has rows of this size beside those of other terms; its weight would mean nothing.

    >>> unmoved({"pde": 9.0, "bc": 1e-31}, {"pde": 2, "bc": 1}, {"pde": 2e-16, "bc": 2e-16})
    ['bc']
    """
    means = {name: trace / rows[name] for name, trace in traces.items() if math.isfinite(trace)}
    largest = max(means.values(), default=0.0)
    return [name for name, mean in means.items() if mean <= (ROUNDING * eps[name]) ** 2 * largest]


@dataclass(frozen=True)
class TraceRule:
    """lambda_a = sum_b c_b / c_a, between bounds; ``ema`` of the old weight is kept.

    >>> TraceRule(ema=0.5).weights({}, {"pde": (9.0, 3), "bc": (1.0, 1)}, ["bc"])
    {'bc': 2.5}
    """

    convention: Convention = DEFAULT
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
        moved = {name: of_term for name, of_term in traces.items() if of_term[0] != 0}
        cost = {name: trace / rows**power for name, (trace, rows) in moved.items()}
        total = sum(cost.values())
        shares = {name: own / total for name, own in cost.items()}
        relative = {name: of_traces.get(name, 0.0) / trace for name, (trace, _) in moved.items()}
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

        An old weight that is absent is 1. Terms of trace zero are left out, unless all are.
        ValueError where those are all, or a weight is not finite.
        """
        moved = {name: of_term for name, of_term in traces.items() if of_term[0] != 0} or traces
        new = weights_from_traces(
            {name: trace for name, (trace, _) in moved.items()},
            {name: rows for name, (_, rows) in moved.items()},
            self.convention,
        )
        kept = {name: self.ema * old.get(name, 1.0) for name in measured if name in moved}
        weights = {name: share + (1 - self.ema) * new[name] for name, share in kept.items()}
        if not all(map(math.isfinite, weights.values())):
            raise ValueError(f"the weights {weights} are not finite; the traces are {traces}.")
        low, high = self.min_weight, self.max_weight
        return {name: min(max(weight, low), high) for name, weight in weights.items()}
