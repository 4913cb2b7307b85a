"""Which step a trainer is at, which is its last, and steps that count on over several fits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytorch_lightning as pl


class StepCount:
    """Adds to the steps of a fit those of the fits before it.

    Example:
        >>> count = StepCount()
        >>> [count(step) for step in (0, 1)]
        [0, 1]
        >>> count.open(0)  # another fit
        >>> count(0)
        2
    """

    def __init__(self) -> None:
        self.offset = 0  # what is added to a step of Lightning's
        self.reached = -1  # the last step so far, counted so

    def open(self, step: int, *, resumed: bool = False, trained: bool = True) -> None:
        """A fit starts at a step of Lightning's; one resumed from a checkpoint goes on.

        Lightning's count may be ahead of a network that was not yet ``trained``, after its tuner.
        """
        if not trained and self.reached < 0:
            self.offset = -step
        elif not resumed and step + self.offset <= self.reached:
            self.offset = self.reached + 1 - step

    def at(self, step: int) -> int:
        """The step counted over all fits, whether it is reached or not."""
        return step + self.offset

    def __call__(self, step: int) -> int:
        """The same of a step that is reached."""
        self.reached = max(self.reached, step + self.offset)
        return step + self.offset

    def state_dict(self) -> dict[str, int]:
        """Plain numbers."""
        return {"offset": self.offset, "reached": self.reached}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on behind another count."""
        self.offset, self.reached = state["offset"], state["reached"]


def final_step(
    batches: float, max_steps: int, optimizer_steps_per_batch: float = 1.0
) -> int | None:
    """Last step of a fit that is limited by batches, by optimizer steps, by both or by nothing.

    Example:
        >>> final_step(100, -1), final_step(100, 30), final_step(float("inf"), 30, 2.0)
        (99, 29, 14)
        >>> final_step(float("inf"), -1) is None
        True
    """
    limits = [batches] if 0 <= batches < math.inf else []
    if max_steps >= 0:
        limits.append(math.ceil(max_steps / optimizer_steps_per_batch))
    return int(min(limits)) - 1 if limits else None


def logged_step(trainer: pl.Trainer) -> int:
    """The step under which Lightning logs the running batch.

    ``trainer.global_step`` counts every optimizer of a batch on its own and would put our points
    beside those of ``self.log``. The counter that ``self.log`` uses is private, hence the fallback.
    """
    loop = trainer.fit_loop.epoch_loop
    return int(getattr(loop, "_batches_that_stepped", trainer.global_step))


def last_step(trainer: pl.Trainer) -> int | None:
    """The last step of the running fit, counted as in `logged_step`; None where it is not known.

    To be asked before the first optimizer step of a batch.
    """
    left = -1 if trainer.max_steps < 0 else max(0, trainer.max_steps - trainer.global_step)
    further = final_step(_batches_left(trainer), left, _optimizer_steps_per_batch(trainer))
    return None if further is None else logged_step(trainer) + further


def _batches_left(trainer: pl.Trainer) -> float:
    """Batches with an optimizer step that the epochs still hold, this one included; -1: endless."""
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    if epochs < 0 or math.isinf(batches):
        return -1
    done = max(0, trainer.fit_loop.epoch_loop.batch_idx) // trainer.accumulate_grad_batches
    return math.ceil(batches) * (epochs - trainer.current_epoch) - done


def _optimizer_steps_per_batch(trainer: pl.Trainer) -> float:
    """One, unless the module takes them itself: then their mean so far."""
    done = trainer.fit_loop.total_batch_idx
    if trainer.lightning_module.automatic_optimization or done < 1 or not trainer.global_step:
        return 1.0
    return trainer.global_step / done


def loss_scale(trainer: pl.Trainer) -> float:
    """What the differentiated loss is of the loss as trained on: gradient scaler, accumulation."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return (1.0 if scaler is None else scaler.get_scale()) / trainer.accumulate_grad_batches
