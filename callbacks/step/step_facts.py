"""What a verdict needs of the steps of a training besides the kernel.

The loss of each step, how far the optimizer went in some, and copies of those that are measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from pinn_ntk.callbacks.step.kept_step import restored, state_of
from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.step_again import StepAgain
from pinn_ntk.callbacks.step.term_checks import TermChecks
from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.callbacks.step.untrained import CAUSES
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.steps import loss_scale
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.kernel.bounds import Bounds
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.progress import Progress, largest
from pinn_ntk.looks.rerun import Rerun

if TYPE_CHECKING:
    import pytorch_lightning as pl

TITLE = "the progress of the training"


class StepFacts:
    """Keeps them where they are ``wanted``; else it costs nothing."""

    def __init__(self, finder: TermFinder, guard: Guard, bounds: Bounds, *, wanted: bool) -> None:
        self.finder, self.guard, self.wanted = finder, guard, wanted
        self.again = StepAgain(finder, bounds)
        self.reset()
        self.restart()

    def reset(self) -> None:
        """Another module is trained."""
        self.progress = Progress()
        self._first: Rerun | None = None
        self._before: Rerun | None = None
        self._kept: list[Mapping[str, Any]] = []  # both, of a checkpoint, until there is a module

    def restart(self) -> None:
        """A fit starts."""
        self._open = False  # a step whose optimizer has not moved yet
        self._moving: Optimizer | None = None
        self.again.restart()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_first": None, "_before": None, "_moving": None}

    def batch_starts(self, trainer: pl.Trainer, module: Any, batch: Any, idx: int) -> None:
        """A batch that may be measured, before its forward pass."""
        if self.wanted:
            begins = partial(self.again.begins, trainer, module, batch, idx)
            self.guard.run("the copy of the step", begins)

    def step_begins(self, at: Backward) -> None:
        """The first backward pass of a step."""
        if self.wanted and at.trainer.is_global_zero:
            self._open = True
            loss = None if at.loss is None else plain(at.loss)
            self.progress.loss(loss, loss_scale(at.trainer))

    def moves(self, optimizer: Optimizer) -> None:
        """The gradients are there, and an optimizer is about to move; of several, the first."""
        if self._moving is not None and self._moving is not optimizer:
            self._moved()
        elif self._open and self._moving is None:
            self._open = False
            if self.progress.wants_step():
                self._moving = optimizer
                self.guard.run(TITLE, partial(self._begin, optimizer))

    def _begin(self, optimizer: Optimizer) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        self.progress.step_begins(params, largest(optimizer.param_groups))

    def _moved(self) -> None:
        self._moving = None
        self.guard.run(TITLE, self.progress.step_ends)

    def batch_ends(self) -> None:
        """The optimizer has moved."""
        if self._moving is not None:
            self._moved()
        self.again.end()

    def put_into(self, look: Look, at: Backward, checks: TermChecks) -> None:
        """Let a look have them."""
        if self.wanted:
            look.progress = self.progress
            said = checks.remarks(at, look).get("untrained", "")
            look.untrained = said if said.endswith(CAUSES) else ""
            again = self.guard.run("the step once more", partial(self.again.of, at, look.found))
            look.rerun, look.no_rerun = again or (None, "it failed")
            if look.rerun is not None and self._kept:
                self.guard.run("steps of the checkpoint", partial(self._restore, look.rerun))
            look.earlier = [old for old in (self._first, self._before) if old is not None]

    def _restore(self, like: Rerun) -> None:
        kept, self._kept = self._kept, []
        steps = [restored(state, like) if state else None for state in kept]
        self._first, self._before = steps

    def was_read(self, look: Look) -> None:
        """Keep the first step measured, and the last one, for what comes."""
        if look.rerun is not None:
            look.rerun.forget()
        if look.rerun is not None and self.finder.probe is None:
            if self._first is None:
                self._first = look.rerun
            else:
                self._before = look.rerun

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        if not self.wanted:
            return {}
        earlier = self._kept or self.guard.run("the state of steps measured", self._states)
        return self.progress.state_dict() | {"earlier": earlier or []}

    def _states(self) -> list[Mapping[str, Any]]:
        steps = (self._first, self._before)
        return [{} if step is None else state_of(step) for step in steps]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; states of earlier versions have none."""
        if state:
            self.progress.load_state_dict(state)
            self._kept = list(state["earlier"])
