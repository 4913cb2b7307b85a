"""Weights that stand in the loss itself, in a `LossWeights` of the user's module.

They change when the step is over: within one, L-BFGS compares values of one and the same loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim import Optimizer

from pinn_ntk.callbacks.trainer.checks import is_lbfgs
from pinn_ntk.callbacks.weighting.distributed import Traces, total
from pinn_ntk.weights.loss_weights import LossWeights

if TYPE_CHECKING:
    import pytorch_lightning as pl


class WeightsInLoss:
    """Writes new weights into a `LossWeights` when the step that they were measured in is over."""

    def __init__(self, weights: LossWeights) -> None:
        self.weights = weights
        self._new: dict[str, float] = {}

    @classmethod
    def of(cls, module: pl.LightningModule) -> WeightsInLoss | None:
        """That of the first `LossWeights` in a module; None without one."""
        found = [part for part in module.modules() if isinstance(part, LossWeights)]
        return cls(found[0]) if found else None

    def grouped(self, traces: Traces) -> Traces:
        """Traces added up by the names of the weights; one may stand before several terms."""
        return total({self._name(term): measured} for term, measured in traces.items())

    def groups(self, terms: Iterable[str]) -> set[str]:
        """Names of the weights of these terms, as far as they have one."""
        return {name for name in map(self._known, terms) if name is not None}

    def by_term(self, terms: Iterable[str]) -> dict[str, float]:
        """Term -> weight that stands before it."""
        named = {term: self._known(term) for term in terms}
        held = self.weights.as_dict()
        return {term: held[name] for term, name in named.items() if name is not None}

    def prepare(self, weights: Mapping[str, float]) -> None:
        """Keep new weights for the end of the step."""
        self._new |= weights

    def write(self, trainer: pl.Trainer) -> None:
        """Set them after the step; one that the buffer cannot hold is a ValueError, and is dropped.

        L-BFGS starts anew, since its memory is of another loss.
        """
        new, self._new = self._new, {}  # weights that cannot be written are not tried again
        if not new:
            return
        self.weights.update(new)
        for optimizer in trainer.optimizers:
            if is_lbfgs(optimizer):
                _restart(optimizer)

    def _known(self, term: str) -> str | None:
        base, _, number = term.rpartition("_")
        tried = (term, base if number.isdigit() else term)
        return next((name for name in tried if name in self.weights.names), None)

    def _name(self, term: str) -> str:
        name = self._known(term)
        if name is not None:
            return name
        raise ValueError(
            f"term {term!r} has no weight in LossWeights({list(self.weights.names)}). Likely the "
            "loss adds a term beside it, or logs it under another name; pass "
            "weights({'name': loss, ...}) all terms, or the callback include=[...]."
        )


def _restart(optimizer: Optimizer) -> None:
    """Put an L-BFGS back to where its constructor left it."""
    kept_by_name = not all(isinstance(key, Tensor) for key in optimizer.state)
    optimizer.state.clear()
    if kept_by_name:  # as packages do that fill the state in their constructors, and rely on it
        params = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.state.update(type(optimizer)(params, **optimizer.defaults).state)
