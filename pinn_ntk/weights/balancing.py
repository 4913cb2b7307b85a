"""Weights of the terms of a loss in a training loop of one's own, by any of the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinn_ntk.looks.look import Look
from pinn_ntk.weights.limits import MAX_CHANGE, MAX_WEIGHT, Limits
from pinn_ntk.weights.registry import RuleName, rule_of
from pinn_ntk.weights.rule import BalancingRule
from pinn_ntk.weights.term_weights import TermWeights
from pinn_ntk.weights.trace import Convention


class Balancing:
    """Term -> weight lambda_a of its loss, from looks at single steps.

    Write the weights into the loss yourself, such as through `pinn_ntk.LossWeights`. Weights that
    the loss holds do not enter them: costs are of means without weights.

    Args:
        rule: "trace", "largest_eigenvalue", "gradient_norm", "residual_decay", "none", or a
            `BalancingRule`; `pinn_ntk.weights` has one file each. "pointwise" gives weights of
            terms here; those of points are ``Pointwise().points(look, term)``.
        convention: Of the rule "trace": "mean" (the default), "sum" or "rate".
        ema: Share of the old weight that an update keeps.
        min_weight: Smallest weight.
        max_weight: Largest weight.
        max_change: Factor by which an update changes a weight at most, save the first of a term.
        warmup_steps: Steps, as the look counts them, before the first update.
        freeze_after: Step after which weights stay as they are.

    Attributes:
        weights: Term -> weight in force, 1 before the first update.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> import pinn_ntk
        >>> w = torch.tensor(2.0, requires_grad=True)
        >>> r, b = w * torch.tensor([1.0, 2.0]) - 1, w * torch.tensor([1.0]) - 3
        >>> loss = r.square().mean() + b.square().mean()
        >>> balancing = Balancing("trace")
        >>> balancing.update(pinn_ntk.look(loss, [w], names=["pde", "bc"]))
        {'pde': 1.4, 'bc': 3.5}
    """

    def __init__(
        self,
        rule: RuleName | BalancingRule = "trace",
        convention: Convention | None = None,
        ema: float = 0.0,
        min_weight: float = 0.0,
        max_weight: float = MAX_WEIGHT,
        max_change: float = MAX_CHANGE,
        warmup_steps: int = 0,
        freeze_after: int | None = None,
    ) -> None:
        bounds = (ema, min_weight, max_weight, max_change)
        limits = Limits(*bounds, warmup_steps, freeze_after)
        found = rule_of(rule, convention)
        self._terms = None if found is None else TermWeights(found, limits)
        self.limits = limits
        self._step: int | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight in force."""
        return {} if self._terms is None else dict(self._terms.weights)

    def update(self, look: Look) -> dict[str, float]:
        """Measure a step, and give the weights of its terms from now on.

        Raises:
            ValueError: No term is moved by a parameter, a residual holds NaN or inf, or steps that
                are to be counted do not go on.
        """
        self._check_step(look.step)
        terms = self._terms
        if terms is not None and self.limits.allow(look.step):
            terms.begin()
            terms.update(terms.rule.costs(look))
        return {name: self.weights.get(name, 1.0) for name in look.residuals}

    def _check_step(self, step: int) -> None:
        counted = self.limits.warmup_steps or self.limits.freeze_after is not None
        if counted and self._step == step:
            raise ValueError(
                f"Balancing: two looks are of step {step}, and warmup_steps and freeze_after count "
                "steps. Say which one it is: pinn_ntk.look(..., step=step)."
            )
        self._step = step

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {} if self._terms is None else self._terms.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        if self._terms is not None and state:
            self._terms.load_state_dict(state)
