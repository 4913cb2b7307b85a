"""The balancing rules by name.

| rule | c_a, in lambda_a = sum_b c_b / c_a | source |
| --- | --- | --- |
| "trace" | mean diagonal of K_aa | Wang, Yu, Perdikaris 2022, eqs 6.5 and 6.6 |
| "largest_eigenvalue" | lambda_max of K_aa / N_a, the stiffest direction | as above, eq. 6.3 |
| "gradient_norm" | norm of the gradient of the term | Wang, Teng, Perdikaris 2021; jaxpi |
| "residual_decay" | rate of decay of its residual, g^T K_aa g / L_a, with a floor | as eq. 6.3 |
| "pointwise" | harmonic mean of the diagonal; each point by its own K_ii besides | jaxpi |
| "none" | all weights stay 1 | |

Costs are of means without weights, so none depends on how many points were drawn, but for the
conventions "sum" and "rate" of "trace". Over several processes they are averaged by rows: that is
exact for traces, and an average of norms, eigenvalues and rates for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

from pinn_ntk.weights.gradient_norm import GradientNorm
from pinn_ntk.weights.largest_eigenvalue import LargestEigenvalue
from pinn_ntk.weights.pointwise import Pointwise
from pinn_ntk.weights.residual_decay import ResidualDecay
from pinn_ntk.weights.rule import BalancingRule
from pinn_ntk.weights.trace import DEFAULT, Convention, Trace

RuleName: TypeAlias = Literal[
    "trace", "largest_eigenvalue", "gradient_norm", "residual_decay", "pointwise", "none"
]
"""Names of the rules; "none" leaves all weights at 1."""

_RULES: dict[str, Callable[[], BalancingRule]] = {
    "largest_eigenvalue": LargestEigenvalue,
    "gradient_norm": GradientNorm,
    "residual_decay": ResidualDecay,
    "pointwise": Pointwise,
}


def rule_of(
    rule: RuleName | BalancingRule, convention: Convention | None = None, owner: str = "Balancing"
) -> BalancingRule | None:
    """The rule of a name, or one that was given; None for "none".

    Raises:
        ValueError: No such rule, or a convention for another rule than "trace".

    >>> rule_of("trace", "sum"), rule_of("none")
    (Trace(convention='sum'), None)
    """
    if rule == "trace":
        return _trace(convention, owner)
    if convention is not None:
        raise ValueError(
            f"{owner}: convention is {convention!r} and rule is {rule!r}; only rule='trace' has "
            "conventions. Leave it out: the other rules do not depend on how many points are drawn."
        )
    if isinstance(rule, BalancingRule):
        return rule
    if rule == "none":
        return None
    if not isinstance(rule, str) or rule not in _RULES:
        raise ValueError(
            f"{owner}: rule is {rule!r}; expected one of {get_args(RuleName)}, or an object of a "
            "subclass of BalancingRule."
        )
    return _RULES[rule]()


def _trace(convention: Convention | None, owner: str) -> Trace:
    try:
        return Trace(DEFAULT if convention is None else convention)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None
