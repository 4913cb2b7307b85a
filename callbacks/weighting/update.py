"""An update of the weights: whether it is due, which it stays until it was made of all terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.weighting.distributed import from_all_ranks, largest_of_all_ranks
from pinn_ntk.callbacks.weighting.remarks import Remarks
from pinn_ntk.callbacks.weighting.weights_in_loss import WeightsInLoss
from pinn_ntk.graph.residuals import named_residuals
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.parameters import largest_rate, may_descend_plainly
from pinn_ntk.weights.limits import Limits
from pinn_ntk.weights.rule import BalancingRule, Costs
from pinn_ntk.weights.stability import Sharpness, sharpness
from pinn_ntk.weights.term_weights import TermWeights

if TYPE_CHECKING:
    import pytorch_lightning as pl

TITLE = "weighting the loss"


class WeightUpdate:
    """Due when the schedule asks, and from the first step on while there was no update at all.

    A due step that has no backward pass, or whose measurement fails, is made up for: in the next
    step, then after 2, 4, 8, ... further ones, until the schedule asks again. Terms that are known
    and absent are waited for.
    """

    def __init__(
        self, rule: BalancingRule, limits: Limits, keep_stable: bool | None = None
    ) -> None:
        self.terms, self.limits = TermWeights(rule, limits), limits
        self.keep_stable = keep_stable
        self._open, self._sharp = False, Sharpness()

    def reset(self) -> None:
        """Another module is trained."""
        self.terms.reset()
        self._sharp = Sharpness()

    def restart(self, guard: Guard) -> None:
        """A fit starts."""
        self.guard, self._remarks = guard, Remarks(guard)
        self.in_loss: WeightsInLoss | None = None
        self.step: int | None = None
        self.look: Look | None = None  # that is measured
        self.now, self._failures, self._retry = False, 0, 0
        self._alone = True
        self._errors: dict[str, float] = {}  # standard errors of costs that were estimated

    def fit_starts(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Look for weights in the loss, which go on from where they are."""
        self._alone = trainer.world_size == 1
        self.in_loss = WeightsInLoss.of(module)
        if self.in_loss is not None:
            self.terms.weights = self.in_loss.as_dict()

    @property
    def ends(self) -> str:
        """Which steps of a fit are due whatever the schedule says."""
        return "" if self.terms.measured or self.limits.warmup_steps else "first"

    def begins(self, step: int, *, asked: bool) -> None:
        """A step begins; whether the schedule asked for an update since the last one."""
        if asked:
            self._failures, self._retry = 0, 0
        if self.limits.are_over(step):
            self._open = False
        due = self.limits.allow(step) and (asked or not (self.terms.measured or self._open))
        self.step, self._open = step, self._open or due
        self.now = self._open and self._may_try
        if due:
            self.terms.begin()

    @property
    def _may_try(self) -> bool:
        step = self.step or 0
        return step >= self._retry and self.limits.allow(step)

    def wants(self, present: Callable[[], Iterable[str]]) -> bool:
        """Whether to measure a loss of this step: at once, or since a term waits that is there."""
        if self.now or not (self._may_try and self.terms.waiting):
            return self.now
        return not self._alone or not set(self.terms.waiting).isdisjoint(self._groups(present()))

    def meet(self, names: Iterable[str]) -> None:
        """These terms are there; under several ranks they tell each other at updates."""
        if self._alone:
            self.terms.meet(self._groups(names))

    def pass_over(self, names: Iterable[str]) -> None:
        """These are there without a residual to measure; under several ranks all wait alike."""
        if self._alone:
            self.terms.pass_over(self._groups(names))

    def _groups(self, names: Iterable[str]) -> set[str]:
        return set(names) if self.in_loss is None else self.in_loss.groups(names)

    def points_of(self, look: Look) -> dict[str, Tensor]:
        """Weights that the rule puts on single points, (N,)."""
        rule = self.terms.rule
        moved = [t for t in look.kernel.terms if look.trace(t) > 0] if rule.pointwise else []
        return {term: rule.points(look, term) for term in moved}

    def costs_of(self, look: Look) -> Costs:
        """What the terms of a look cost; remarks on what weighs them."""
        named_residuals(look.found.residuals)  # says what is wrong with a residual
        costs = self.terms.rule.costs(look)
        self.look = look
        self._remarks.note(look, self.in_loss)
        errors = self._grouped({n: (e**2, 1) for n, e in self.terms.rule.cost_errors(look).items()})
        self._errors = {name: math.sqrt(square) for name, (square, _) in errors.items()}
        return costs

    def measured(self, measure: Callable[[], Costs]) -> Costs | None:
        """Costs of this rank, none where there is nothing to weigh; None where that fails."""
        local = self.guard.run(TITLE, measure, retry=True)
        if local is None or self._alone:
            return local
        return dict.fromkeys(self.terms.weights, (0.0, 0)) | local

    def take(self, trainer: pl.Trainer, local: Costs | None) -> dict[str, float]:
        """New weights from the costs of all ranks, which must all call it; empty without any."""
        gathered = from_all_ranks(trainer, local, partial(self.guard.warn_once, "names"))
        costs, weights = gathered or {}, None
        if any(rows for _, rows in costs.values()):
            weights = self.guard.run(TITLE, partial(self._new, costs), retry=True)
        if weights is not None:
            self._remarks.updated(self._grouped(costs), weights, self.terms.rule)
            self._open, self._failures, self._retry = False, 0, 0
        elif (gathered != {} or not self.now) and self._may_try:  # of a step, one failure counts
            self._retry = (self.step or 0) + 2**self._failures
            self._failures += 1
        if weights and self.keeps_stable(trainer):
            self._stabilise(trainer)
        self.look = None
        return {name: self.terms.weights[name] for name in weights or {}}

    def tagged(self, weights: Mapping[str, float]) -> dict[str, float]:
        """New weights by tag, and their standard errors where a cost was estimated."""
        errors = self.terms.errors(self._errors) if self._errors and weights else {}
        said = {f"weight_error/{name}": errors[name] for name in weights if name in errors}
        return {f"weight/{name}": weight for name, weight in weights.items()} | said

    def _new(self, costs: Costs) -> dict[str, float]:
        weights = self.terms.update(self._grouped(costs))
        if self.in_loss is not None:
            self.in_loss.prepare(weights)
        return weights

    def _grouped(self, costs: Costs) -> Costs:
        return costs if self.in_loss is None else self.in_loss.grouped(costs)

    def keeps_stable(self, trainer: pl.Trainer) -> bool:
        """Whether the learning rate is held against the bound of plain descent."""
        plain = all(map(may_descend_plainly, trainer.optimizers))
        return plain if self.keep_stable is None else self.keep_stable

    def _stabilise(self, trainer: pl.Trainer) -> None:
        """Scale all weights down where plain descent would diverge; all ranks must call it."""
        look, found = self.look, None
        if look is not None:
            found = self.guard.run("the stable step", partial(self._sharpness, look))
        if found is None and self.keep_stable:
            self._remarks.no_bound()
        own = self._sharp.measured(() if look is None else look.residuals, found or 0.0)
        self._sharp.total = largest_of_all_ranks(trainer, own)
        self._sharp.rate = largest_rate(trainer.optimizers)
        self.follow(trainer)

    def _sharpness(self, look: Look) -> float | None:
        return sharpness(look, self._factors(look), self.points_of(look))

    def follow(self, trainer: pl.Trainer) -> None:
        """Scale by the learning rate of now: it may have risen since weights were measured."""
        rate = largest_rate(trainer.optimizers)
        factor = self._sharp.factor(rate)
        if factor is None or rate is None or factor == self.terms.factor:
            return
        self.terms.scale(factor)
        if self.in_loss is not None:
            self.in_loss.prepare(self.terms.weights)
        if factor < 1:
            self._remarks.scaled(factor, rate)

    def _factors(self, look: Look) -> dict[str, float]:
        """Term -> what the rule's weights multiply its weight in the differentiated loss with."""
        new = self.terms.by_rule
        if self.in_loss is None:
            return {name: look.scale * new.get(name, 1.0) for name in look.terms}
        held = self.in_loss.by_term(look.terms)
        by_term = self.in_loss.by_term(look.terms, new)
        return {n: look.scale * by_term.get(n, 1.0) / held.get(n, 1.0) for n in look.terms}

    def epoch_ends(self, batch: int) -> None:
        """Say which terms are waited for in vain, unless it is measuring that fails."""
        absent = self.terms.measured and not self._failures
        self._remarks.epoch_ends(self.terms.waiting if absent else [], batch)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.terms.state_dict(), "due": self._open, "sharp": self._sharp.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.terms.load_state_dict(state)
        self._open = bool(state.get("due", False))
        self._sharp = Sharpness.of_state(state.get("sharp", {}))
