"""What a balancer has to say of the loss that it weighs: once a fit each, as warnings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.weighting.weights_in_loss import WeightsInLoss
from pinn_ntk.graph.terms.learned import learned_weights
from pinn_ntk.looks.look import Look
from pinn_ntk.weights.rule import BalancingRule, Costs, unmoved

HARMLESS = 3.001
"""Ratio of two weights of the loss up to which they change little, and rounding."""

FEW = 4
"""Batches that a term may miss, where epochs are shorter than that."""

SAME = 1e-3
"""Relative difference of two weights that rounding may make."""


class Remarks:
    """Weights of the loss's own, terms that nothing moves, terms that stay away."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._own: dict[str, Own] | None = None
        self._learned: list[str] = []
        self._held: dict[str, Held] = {}
        self._still: list[str] = []  # terms that no parameter moves
        self._away: dict[str, int] = {}  # term -> last batch of an epoch that it missed first

    def note(self, look: Look, in_loss: WeightsInLoss | None) -> None:
        """What weighs the terms at an update; what else does, at the first of a fit."""
        weights = {} if in_loss is None else in_loss.by_term(look.found.terms)
        before, now = self._held, held(look, weights)
        self._held = before | now
        self._still = unmoved(look)
        if unheard := not_in_loss(before, now):
            self.guard.warn_once("unheard", unheard)
        if self._own is not None:
            return
        learned = [] if look.loss is None else [id(t) for t in learned_weights(look.loss)]
        self._learned = [name for name, tensor in look.trained.items() if id(tensor) in learned]
        self._own = {} if self._learned else own_weights(look, weights)

    def updated(self, costs: Costs, weights: Mapping[str, float], rule: BalancingRule) -> None:
        """There are new weights."""
        back = [name for name, (_, rows) in costs.items() if rows]
        self._away = {name: since for name, since in self._away.items() if name not in back}
        if self._learned:
            self.guard.warn_once(
                "learned weights",
                f"the loss trains weights of its terms ({', '.join(self._learned)}), which "
                "multiply with the balancer's; their own gradient is that of the unweighted loss. "
                "Let one of them weigh the terms: train the weights, or balance.",
            )
        said = multiplied(self._own or {}, weights, costs, rule.power)
        if said is not None:
            self.guard.warn_once("own weights", said)
        self._own = {}
        if listed := ", ".join(self._still):
            self.guard.warn_once(
                "unmoved",
                f"no trained parameter moves the residual of {listed} (trace 0), so it "
                "is left out of the balancing until one does, and the other terms are balanced. "
                "Right for a hard constraint; else look for a detach(), an activation without that "
                "derivative (ReLU has no second one), or units saturated by too large steps.",
            )

    def scaled(self, factor: float, lr: float) -> None:
        """The weights would have made gradient descent diverge."""
        self.guard.warn_once(
            "unstable",
            f"with the new weights the learning rate {lr:.3g} lies above the largest that plain "
            "gradient descent stands, 2 / lambda_max of the weighted kernel, so all of them were "
            f"multiplied by {factor:.3g}, which keeps their ratios. That is of the kernel as it "
            "was measured: update more often where it changes fast. Lower the learning rate by as "
            "much to have the weights as they are; keep_stable=False leaves them alone.",
        )

    def no_bound(self) -> None:
        """Nothing is known of stability, though it was asked for."""
        self.guard.warn_once(
            "no bound",
            "keep_stable=True is without effect here: the largest stable learning rate is known "
            "for sums of squares over all trained parameters under one optimizer only.",
        )

    def epoch_ends(self, waiting: Iterable[str], batch: int) -> None:
        """Terms that wait for their update were away for a whole epoch, and some batches."""
        self._away = {name: self._away.get(name, batch) for name in waiting}
        away = sorted(name for name, since in self._away.items() if batch - since >= FEW)
        if away:
            self.guard.warn_once(
                "away",
                f"{', '.join(away)} was in no batch of an epoch since an update fell due. It keeps "
                "its weight, and is updated when it is back.",
            )


class Held(NamedTuple):
    """A weight that a `LossWeights` holds, and what the whole weight in the loss is."""

    held: float
    whole: float


def held(look: Look, weights: Mapping[str, float]) -> dict[str, Held]:
    """Term -> its weights, where a `LossWeights` has one."""
    whole = {name: float(look.found.terms[name].weight.detach().sum()) for name in weights}
    return {name: Held(weight, whole[name] * look.scale) for name, weight in weights.items()}


def not_in_loss(before: Mapping[str, Held], now: Mapping[str, Held]) -> str:
    """That weights which were written do not reach the loss; empty where they do."""
    both = {name: (before[name], now[name]) for name in now if name in before}
    moved = [name for name, (old, new) in both.items() if not _same(old.held, new.held)]
    if not moved or not all(_same(old.whole, new.whole) for old, new in both.values()):
        return ""
    return (
        f"the weights of {', '.join(moved)} were written into the module's LossWeights, but those "
        "in the loss are what they were before: it is trained on without them. Multiply the terms "
        "by them, as in return self.weights({'pde': pde, 'bc': bc}), or hold no LossWeights: then "
        "weights are put on gradients."
    )


class Own(NamedTuple):
    """By what the loss weighs the mean of a term, without the weight of a balancer."""

    mean: float
    least: float  # the same, were all rows weighed as the one that it weighs least
    most: float


def own_weights(look: Look, in_loss: Mapping[str, float]) -> dict[str, Own]:
    """Term -> its weight in the loss; a norm has none that would mean a mean."""
    found: dict[str, Own] = {}
    for name, term in look.found.terms.items():
        weight = term.weight.detach().double() * (look.scale / in_loss.get(name, 1.0))
        if term.kind != "norm" and bool(weight.isfinite().all()) and float(weight.sum()) > 0:
            ends = (float(end) * weight.numel() for end in (weight.min(), weight.max()))
            found[name] = Own(float(weight.sum()), *ends)
    return found


def multiplied(
    own: Mapping[str, Own], weights: Mapping[str, float], costs: Costs, power: int
) -> str | None:
    """That two sources of weights multiply, with both numbers; None where they do not.

    A factor that all terms share changes nothing between them, and a small one little: the sum of
    means over three sides is three of their mean. Neither do weights of single points, unless all
    of a term weigh more than any of another. With ``power`` 0 (the convention
    "sum") neither do sums.
    """
    own = {name: weight for name, weight in own.items() if name in weights and name in costs}
    rows = {name: costs[name][1] for name in own}
    of_sums = [name for name, weight in own.items() if _same(weight.mean, rows[name])]
    sums = [name for name in of_sums if rows[name] > 1]
    fits = power == 0 and len(of_sums) == len(own)
    largest = min((weight.most for weight in own.values()), default=math.inf)
    if fits or all(weight.least <= HARMLESS * largest for weight in own.values()):
        return None
    listed = ", ".join(
        f"{name} {mean:.3g} x {weights[name]:.3g} = {mean * weights[name]:.3g}"
        for name, (mean, *_) in own.items()
    )
    counts = f" (a sum over rows counts as their number: {', '.join(sums)})" if sums else ""
    return (
        f"the loss weighs its terms itself{counts}, and its weights multiply with the balancer's: "
        f"{listed}. Drop yours, or leave a term out of the balancing with include=[...]."
    )


def _same(weight: float, other: float) -> bool:
    return math.isclose(weight, other, rel_tol=SAME)
