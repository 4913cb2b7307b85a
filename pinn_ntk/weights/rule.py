"""What all balancing rules share: each gives a term a cost, and weighs terms inversely to it.

| symbol | meaning | unit |
| --- | --- | --- |
| c_a | cost of term a: how fast it would learn with weight 1 | of the rule |
| lambda_a | weight of term a, sum_b c_b / c_a | 1 |

Every weight is at least 1, the shares 1 / lambda_a add up to 1, and lambda_a c_a is the same for
all terms (Wang, Yu, Perdikaris 2022, eqs 6.5 and 6.6, with c_a the trace of the block).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from pinn_ntk.looks.look import Look

Costs: TypeAlias = dict[str, tuple[float, int]]
"""Term -> its cost times N^power, which may be added up over processes, and its rows N."""

ROUNDING = 4.0
"""Size of a row that is taken for rounding, in rounding units of the largest."""


class BalancingRule:
    """How the weight of a term follows from one measured step; see the module for the symbols.

    A rule of your own says what a term costs:

    >>> class Loudest(BalancingRule):
    ...     name = "loudest"
    ...
    ...     def cost(self, look, term):
    ...         return float(look.kernel.diagonal(term).max())
    >>> Loudest().weights({"pde": (9.0 * 3, 3), "bc": (1.0, 1)})
    {'pde': 1.1111111111111112, 'bc': 10.0}
    """

    name: ClassVar[str] = ""
    pointwise: ClassVar[bool] = False
    """Whether it also weighs the points of a term, by `points`, anew in every step."""
    power: int = 1
    """Of N in what is added up over processes: 1 where the cost is a mean over the rows."""

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return self.name.replace("_", " ") or type(self).__name__

    def cost(self, look: Look, term: str) -> float:
        """c_a of one term, 0 where nothing can be said of it now."""
        raise NotImplementedError

    def points(self, look: Look, term: str) -> Tensor:
        """Weight of each point of a term, (N,), of mean 1."""
        raise NotImplementedError

    def costs(self, look: Look) -> Costs:
        """Costs of all terms, 0 where no parameter moves a residual but for rounding."""
        kernel = look.kernel
        rows = {term: kernel.sampled(term)[1] for term in kernel.terms}
        still = unmoved(look)
        moved = {t: self.total(look, t, rows[t]) for t in kernel.terms if t not in still}
        return {term: (moved.get(term, 0.0), n) for term, n in rows.items()}

    def total(self, look: Look, term: str, rows: int) -> float:
        """c_a N^power."""
        return self.cost(look, term) * float(rows**self.power)

    def cost_errors(self, look: Look) -> dict[str, float]:
        """Standard errors of those of `costs` that are estimates, where they are known."""
        return {}

    def per_term(self, costs: Mapping[str, tuple[float, int]]) -> dict[str, float]:
        """c_a of the terms that have one; of all if none has."""
        known = {term: of_term for term, of_term in costs.items() if of_term[0] != 0} or costs
        return {term: cost / rows**self.power for term, (cost, rows) in known.items()}

    def weights(self, costs: Mapping[str, tuple[float, int]]) -> dict[str, float]:
        """lambda_a of the terms that have a cost; ValueError where one is not positive."""
        return inverse(self.per_term(costs))

    def errors(
        self,
        weights: Mapping[str, float],
        costs: Mapping[str, tuple[float, int]],
        of_costs: Mapping[str, float],
    ) -> dict[str, float]:
        """Standard errors of ``weights`` that follow from those of the costs, independent ones.

        To first order: of lambda_a = sum_b c_b / c_a a relative error e_b of c_b makes the share
        c_b / sum_c c_c of e_b, and -e_a of its own besides. ``of_costs`` are of c_a N_a^power.
        """
        per_term = self.per_term(costs)
        total = sum(per_term.values())
        shares = {term: own / total for term, own in per_term.items()}
        relative = {term: of_costs.get(term, 0.0) / costs[term][0] for term in per_term}
        found = {}
        for term, weight in weights.items():
            parts = [relative[b] * (shares[b] - (b == term)) for b in shares]
            found[term] = weight * math.hypot(*parts)
        return found


def inverse(costs: Mapping[str, float]) -> dict[str, float]:
    """lambda_a = sum_b c_b / c_a.

    >>> inverse({"pde": 4.0, "bc": 1.0})
    {'pde': 1.25, 'bc': 5.0}

    Raises:
        ValueError: A cost is zero, negative, NaN or inf.
    """
    for term, cost in costs.items():
        if not 0.0 < cost < math.inf:
            raise ValueError(
                f"the cost of term {term!r} (the trace of its block, or what the rule takes) is "
                f"{cost}; a weight needs a positive finite one. Likely the term does not depend "
                "on any trained parameter, its residual is exactly zero, or it holds NaN."
            )
    total = sum(costs.values())
    return {term: total / own for term, own in costs.items()}


def unmoved(look: Look) -> list[str]:
    """Terms that no parameter moves but for rounding: those that a hard constraint fulfils.

    What is sin(pi) there, or a difference of equal numbers, has rows of the size of its rounding
    beside those of other terms; its weight would mean nothing.
    """
    kernel = look.kernel
    rows = {term: kernel.sampled(term)[1] for term in kernel.terms}
    means = {term: look.trace(term) / rows[term] for term in kernel.terms}
    eps = {term: torch.finfo(look.residuals[term].dtype).eps for term in kernel.terms}
    return of_rounding(means, eps)


def of_rounding(means: Mapping[str, float], eps: Mapping[str, float]) -> list[str]:
    """Terms whose mean squared row is but rounding, with ``eps`` the unit of each residual.

    >>> of_rounding({"pde": 4.5, "bc": 1e-31}, {"pde": 2e-16, "bc": 2e-16})
    ['bc']
    """
    largest = max(filter(math.isfinite, means.values()), default=0.0)
    return [name for name, mean in means.items() if mean <= (ROUNDING * eps[name]) ** 2 * largest]
