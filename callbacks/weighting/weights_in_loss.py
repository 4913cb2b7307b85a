"""Weights that stand in the loss itself, in each `LossWeights` of the user's module.

They change when the step is over: within one, L-BFGS compares values of one and the same loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim import Optimizer

from pinn_ntk.callbacks.trainer.checks import is_lbfgs
from pinn_ntk.callbacks.weighting.distributed import total
from pinn_ntk.weights.loss_weights import LossWeights
from pinn_ntk.weights.rule import Costs

if TYPE_CHECKING:
    import pytorch_lightning as pl


class WeightsInLoss:
    """Writes new weights into `LossWeights` when the step that they were measured in is over.

    A name has one weight, which stands in all that have the name.
    """

    def __init__(self, *parts: LossWeights) -> None:
        self.parts = parts
        self._new: dict[str, float] = {}

    @classmethod
    def of(cls, module: pl.LightningModule) -> WeightsInLoss | None:
        """Those of all `LossWeights` in a module; None without any."""
        found = [part for part in module.modules() if isinstance(part, LossWeights)]
        return cls(*found) if found else None

    @property
    def names(self) -> list[str]:
        """All that have a weight."""
        return list(dict.fromkeys(name for part in self.parts for name in part.names))

    def as_dict(self) -> dict[str, float]:
        """Name -> weight in force; of several, that of the first."""
        held: dict[str, float] = {}
        for part in self.parts:
            held = part.as_dict() | held
        return held

    def grouped(self, costs: Costs) -> Costs:
        """Costs added up by the names of the weights; one may stand before several terms."""
        return total({self._name(term): measured} for term, measured in costs.items())

    def groups(self, terms: Iterable[str]) -> set[str]:
        """Names of the weights of these terms, as far as they have one."""
        return {name for name in map(self._known, terms) if name is not None}

    def by_term(
        self, terms: Iterable[str], weights: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Term -> weight that stands before it, or would with other ``weights`` of the names."""
        named = {term: self._known(term) for term in terms}
        held = self.as_dict() if weights is None else weights
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
        for part in self.parts:
            part.update({name: weight for name, weight in new.items() if name in part.names})
        for optimizer in trainer.optimizers:
            if is_lbfgs(optimizer):
                _restart(optimizer)

    def _known(self, term: str) -> str | None:
        base, _, number = term.rpartition("_")
        tried = (term, base if number.isdigit() else term)
        return next((name for name in tried if name in self.names), None)

    def _name(self, term: str) -> str:
        name = self._known(term)
        if name is not None:
            return name
        raise ValueError(
            f"term {term!r} has no weight in LossWeights({self.names}). Likely the "
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
