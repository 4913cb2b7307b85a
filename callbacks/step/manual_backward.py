"""Backward passes for which Lightning has no hook: raw ``loss.backward()``, manual optimisation.

There the moment to look is when the first gradient reaches a tapped residual: the graph below is
still whole then. Without taps there is nothing to see, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from pinn_ntk.callbacks.step.measuring import is_measuring
from pinn_ntk.callbacks.step.recorder import Recorder
from pinn_ntk.callbacks.trainer.state import StatefulCallback
from pinn_ntk.graph.nodes import accumulates
from pinn_ntk.looks.parameters import trained_parameters

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from pinn_ntk.callbacks.trainer.guard import Guard

PATIENCE = 100
"""Batches without a backward pass seen after which it is said, if the epoch is not over before."""


class Backward(NamedTuple):
    """A backward pass that begins; the loss is None where Lightning does not see it."""

    trainer: pl.Trainer
    module: pl.LightningModule
    loss: Tensor | None


class ManualBackward:
    """Calls ``look`` at the first gradient that reaches each tapped residual, and weighs it."""

    def __init__(
        self,
        recorder: Recorder,
        look: Callable[[Backward], None],
        weight: Callable[[str], float],
    ) -> None:
        self.recorder, self.look, self.weight = recorder, look, weight
        self._manual = self._speaks = False
        self._by_lightning = False
        self._backwards = self._batches = 0

    def attach(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A fit starts."""
        self._manual = not module.automatic_optimization
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        first = next(callback for callback in callbacks if isinstance(callback, StatefulCallback))
        self._speaks = getattr(first, "manual", None) is self  # one warning is enough
        self._backwards = self._batches = 0
        at = Backward(trainer, module, None)
        self.recorder.on_tap = partial(self._listen, at) if self._manual else None

    def begin(self) -> None:
        """A batch starts."""
        self._by_lightning = False

    def lightning_saw_it(self) -> None:
        """The hook of Lightning ran: in this batch nothing is left to do here."""
        self._by_lightning = True
        self._backwards += 1
        self.recorder.backward_began()

    def end(self, guard: Guard) -> None:
        """The batch is over."""
        self._batches += 1
        if self._batches == PATIENCE:
            self.epoch_end(guard)

    def epoch_end(self, guard: Guard) -> None:
        """Say, once a fit, if no backward pass was seen so far."""
        if self._manual and self._speaks and self._batches and not self._backwards:
            guard.warn_once(
                "raw backward",
                f"in {self._batches} batches no backward pass was seen, so nothing is measured and "
                "the loss is trained on as it is. Likely training_step calls loss.backward(), "
                "which Lightning has no hook for. Call self.manual_backward(loss) instead, or "
                "mark each residual with r = pinn_ntk.tap(r, 'name') before it is squared.",
            )

    def _listen(self, at: Backward, name: str, residual: Tensor) -> None:
        residual.register_hook(partial(self._arrived, at, name))

    def _arrived(self, at: Backward, name: str, gradient: Tensor) -> Tensor | None:
        if self._by_lightning or is_measuring(at.module):
            return None
        if not accumulates(trained_parameters(at.trainer.optimizers, at.module).values()):
            return None  # the step takes gradients for itself
        self._backwards += 1
        self.recorder.backward_began()
        self.look(at)
        return self.weight(name) * gradient
