"""An update of the weights: whether it is due, which it stays until it was made of all terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.weighting.distributed import Traces, from_all_ranks
from pinn_ntk.callbacks.weighting.remarks import Remarks
from pinn_ntk.callbacks.weighting.term_weights import TermWeights
from pinn_ntk.callbacks.weighting.weights_in_loss import WeightsInLoss
from pinn_ntk.weights.trace import TraceRule

if TYPE_CHECKING:
    import pytorch_lightning as pl

TITLE = "weighting the loss"


class WeightUpdate:
    """Due when the schedule asks, and from the first step on while there was no update at all.

    A due step that has no backward pass, or whose measurement fails, is made up for: in the next
    step, then after 2, 4, 8, ... further ones, until the schedule asks again. Terms that are known
    and absent are waited for.
    """

    def __init__(self, rule: TraceRule) -> None:
        self.terms = TermWeights(rule)
        self._open = False

    def restart(self, guard: Guard) -> None:
        """A fit starts."""
        self.guard, self._remarks = guard, Remarks(guard)
        self.in_loss: WeightsInLoss | None = None
        self.step: int | None = None
        self.now, self._failures, self._retry = False, 0, 0
        self._alone = True
        self._errors: dict[str, float] = {}  # standard errors of traces that were estimated

    def fit_starts(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Look for weights in the loss, which go on from where they are."""
        self._alone = trainer.world_size == 1
        self.in_loss = WeightsInLoss.of(module)
        if self.in_loss is not None:
            self.terms.weights = self.in_loss.as_dict()

    @property
    def ends(self) -> str:
        """Which steps of a fit are due whatever the schedule says."""
        return "" if self.terms.measured else "first"

    def begins(self, step: int, *, asked: bool) -> None:
        """A step begins; whether the schedule asked for an update since the last one."""
        if asked:
            self._failures, self._retry = 0, 0
        due = asked or not (self.terms.measured or self._open)
        self.step, self._open = step, self._open or due
        self.now = self._open and self._may_try
        if due:
            self.terms.begin()

    @property
    def _may_try(self) -> bool:
        return (self.step or 0) >= self._retry

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

    def measured(self, measure: Callable[[Remarks], Traces]) -> Traces | None:
        """Traces of this rank, none where there is nothing to weigh; None where that fails."""
        local = self.guard.run(TITLE, partial(measure, self._remarks), retry=True)
        if local is None or self._alone:
            return local
        return dict.fromkeys(self.terms.weights, (0.0, 0)) | local

    def take(self, trainer: pl.Trainer, local: Traces | None) -> dict[str, float]:
        """New weights from the traces of all ranks, which must all call it; empty without any."""
        gathered = from_all_ranks(trainer, local, partial(self.guard.warn_once, "names"))
        traces, weights = gathered or {}, None
        if any(rows for _, rows in traces.values()):
            weights = self.guard.run(TITLE, partial(self._new, traces), retry=True)
        if weights is not None:
            self._remarks.updated(self._grouped(traces), weights, self.terms.rule.convention)
            self._open, self._failures, self._retry = False, 0, 0
        elif (gathered != {} or not self.now) and self._may_try:  # of a step, one failure counts
            self._retry = (self.step or 0) + 2**self._failures
            self._failures += 1
        return weights or {}

    def estimated(self, errors: Mapping[str, float]) -> None:
        """Standard errors of the traces that this rank estimated, by term."""
        squares = self._grouped({name: (error**2, 1) for name, error in errors.items()})
        self._errors = {name: math.sqrt(square) for name, (square, _) in squares.items()}

    def tagged(self, weights: Mapping[str, float]) -> dict[str, float]:
        """New weights by tag, and their standard errors where a trace was estimated."""
        errors = self.terms.errors(self._errors) if self._errors and weights else {}
        said = {f"weight_error/{name}": errors[name] for name in weights if name in errors}
        return {f"weight/{name}": weight for name, weight in weights.items()} | said

    def _new(self, traces: Traces) -> dict[str, float]:
        weights = self.terms.update(self._grouped(traces))
        if self.in_loss is not None:
            self.in_loss.prepare(weights)
        return weights

    def _grouped(self, traces: Traces) -> Traces:
        return traces if self.in_loss is None else self.in_loss.grouped(traces)

    def epoch_ends(self, batch: int) -> None:
        """Say which terms are waited for in vain."""
        self._remarks.epoch_ends(self.terms.waiting if self.terms.measured else [], batch)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.terms.state_dict(), "due": self._open}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.terms.load_state_dict(state)
        self._open = bool(state.get("due", False))
