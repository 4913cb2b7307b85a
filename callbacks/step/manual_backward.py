"""Backward passes for which Lightning has no hook: raw ``loss.backward()``, manual optimisation.

There the moment to look is when the first gradient of parameters reaches a tapped residual, be it
one that the step takes for itself: the graph below is still whole then. Residuals of a function,
which need no graph of the step, are looked at before the optimizer moves. Without either there is
nothing to see, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from pinn_ntk.callbacks.step.measuring import is_measuring
from pinn_ntk.callbacks.trainer.checks import has_lbfgs
from pinn_ntk.callbacks.trainer.state import StatefulCallback
from pinn_ntk.graph.nodes import accumulates, is_asked_for
from pinn_ntk.graph.subclasses import on_gradient
from pinn_ntk.looks.parameters import trained_parameters

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from pinn_ntk.callbacks.step.term_finder import TermFinder
    from pinn_ntk.callbacks.trainer.guard import Guard

PATIENCE = 100
"""Batches without a backward pass seen after which it is said, if the epoch is not over before."""


class Backward(NamedTuple):
    """A backward pass that begins; the loss is None where Lightning does not see it."""

    trainer: pl.Trainer
    module: pl.LightningModule
    loss: Tensor | None


class ManualBackward:
    """Calls ``look`` where Lightning sees no backward pass, and weighs gradients of taps."""

    def __init__(
        self,
        finder: TermFinder,
        look: Callable[[Backward], None],
        weighed: Callable[[str, Tensor], Tensor],
    ) -> None:
        self.recorder, self.functions = finder.recorder, finder.by_function
        self.look, self.weighed = look, weighed
        self._manual = self._speaks = False
        self._handles: list[RemovableHandle] = []
        self._restart()

    def _restart(self) -> None:
        self._by_lightning = self._looked = False  # in this batch
        self._backwards = self._batches = self._steps = self._own = 0

    def attach(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A fit starts."""
        self.detach()
        self._restart()
        self._manual = not module.automatic_optimization
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        ours = [callback for callback in callbacks if isinstance(callback, StatefulCallback)]
        first = getattr(ours[0], "manual", None) if ours else self
        self._speaks = first is self  # one warning is enough
        at = Backward(trainer, module, None)
        self.recorder.on_tap = partial(self._listen, at) if self._manual else None
        if self._manual and self.functions:
            moves = partial(self._moves, at)
            self._handles = [o.register_step_pre_hook(moves) for o in trainer.optimizers]

    def detach(self) -> None:
        """The fit is over."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_handles": []}

    def begin(self) -> None:
        """A batch starts."""
        self._by_lightning = self._looked = False

    def begun(self, at: Backward) -> None:
        """Its points are known; where nobody but the step itself moves parameters, look now."""
        unseen = self._batches and not self._backwards and not self._steps
        if self._manual and self.functions and unseen:
            self._take(at)

    def lightning_saw_it(self) -> None:
        """The hook of Lightning ran: in this batch nothing is left to do here."""
        self._by_lightning = True
        self._backwards += 1
        self.recorder.backward_began()

    def end(self, guard: Guard, unweighed: str) -> None:
        """The batch is over."""
        self._batches += 1
        if self._batches == PATIENCE:
            self.epoch_end(guard, unweighed)

    def epoch_end(self, guard: Guard, unweighed: str) -> None:
        """Say, once a fit, if no backward pass was seen; ``unweighed`` is what follows then."""
        if not self._manual or not self._batches or self._backwards:
            return
        unseen = (
            f"in {self._batches} batch{'es' if self._batches > 1 else ''} no backward pass was seen"
        )
        if self._own and unweighed:
            guard.warn_once("raw backward", f"{unseen}, {unweighed}")
        elif self._speaks and not self._own:
            guard.warn_once(
                "raw backward",
                f"{unseen}, so nothing is measured and the loss is trained on as it is. Likely "
                "training_step calls loss.backward(), which Lightning has no hook for, or takes "
                "its gradients itself. Call self.manual_backward(loss) instead, or mark each "
                "residual with r = pinn_ntk.tap(r, 'name') before it is squared; or give the "
                "callback residuals='method', which returns {'name': r, ...} for a batch.",
            )

    def _listen(self, at: Backward, name: str, residual: Tensor) -> None:
        on_gradient(residual, partial(self._arrived, at, name))

    def _arrived(self, at: Backward, name: str, gradient: Tensor) -> Tensor | None:
        if self._by_lightning or is_measuring(at.module):
            return None
        leaves = trained_parameters(at.trainer.optimizers, at.module).values()
        if accumulates(leaves):
            self._backwards += 1
            self.recorder.backward_began()
            self.look(at)
            return self.weighed(name, gradient)
        if is_asked_for(leaves):  # what the step takes for itself is not weighed
            self._own += 1
            self.look(at)
        return None

    def _moves(self, at: Backward, *_: Any) -> None:
        """An optimizer is about to move parameters, or to ask a closure for their gradients."""
        self._steps += 1
        if not self._backwards and not has_lbfgs(at.trainer):
            self._take(at)

    def _take(self, at: Backward) -> None:
        if not self._looked:
            self._looked = True
            self._own += 1
            self.look(at)
