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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.looks.look import Look
from pinn_ntk.weights.rule import BalancingRule, inverse

Convention: TypeAlias = Literal["sum", "mean", "rate"]
"""Which reading of the trace rule is used."""

DEFAULT: Convention = "mean"
"""What does not depend on how many points were drawn."""

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
    return inverse({n: trace / rows[n] ** _EXPONENT[convention] for n, trace in traces.items()})


@dataclass(frozen=True)
class Trace(BalancingRule):
    """c_a = Tr K_aa / N_a, or what else the convention says; see the module.

    Raises:
        ValueError: Unknown convention.

    >>> Trace().weights({"pde": (9.0, 3), "bc": (1.0, 1)}), Trace("sum").title
    ({'pde': 1.3333333333333333, 'bc': 4.0}, 'traces (convention="sum")')
    """

    convention: Convention = DEFAULT
    name: ClassVar[str] = "trace"

    def __post_init__(self) -> None:
        if self.convention not in get_args(Convention):
            raise ValueError(
                f"convention is {self.convention!r}; expected one of {get_args(Convention)}."
            )

    @property
    def power(self) -> int:  # type: ignore[override]
        """Of N in Tr K_aa / N^power."""
        return _EXPONENT[self.convention]

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return f'traces (convention="{self.convention}")'

    def cost(self, look: Look, term: str) -> float:
        """In (r / theta)^2."""
        rows = look.kernel.sampled(term)[1]
        return look.trace(term) / float(rows**self.power)

    def total(self, look: Look, term: str, _rows: int) -> float:
        """Tr K_aa."""
        return look.trace(term)

    def cost_errors(self, look: Look) -> dict[str, float]:
        """Those of the traces of terms of which rows were left out."""
        return {term: look.kernel.trace_error(term) for term in look.kernel.sampled_terms}
