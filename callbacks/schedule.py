"""When to measure, as pure functions of the step, and which step a trainer is at."""

from __future__ import annotations

import math

import pytorch_lightning as pl


def is_due(step: int, every_n_steps: int, last_step: int | None = None) -> bool:
    """Whether to act at a step: every n-th from 0 on, and the last.

    Args:
        step: The running step, counted from 0.
        every_n_steps: n.
        last_step: The last step, None where it is not known.

    Returns:
        Whether the step is due.

    Example:
        >>> [step for step in range(8) if is_due(step, 3, last_step=7)]
        [0, 3, 6, 7]
    """
    return step % every_n_steps == 0 or step == last_step


def final_step(
    batches: float, max_steps: int, optimizer_steps_per_batch: float = 1.0
) -> int | None:
    """Last step of a fit that is limited by batches, by optimizer steps, by both or by nothing.

    Args:
        batches: Batches that step in all epochs together; inf or negative where unknown.
        max_steps: Limit on optimizer steps; negative for none.
        optimizer_steps_per_batch: How many optimizer steps one batch makes.

    Returns:
        The last step counted from 0, or None when nothing limits the fit.

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

    Returns:
        The step, counted from 0.
    """
    loop = trainer.fit_loop.epoch_loop
    return int(getattr(loop, "_batches_that_stepped", trainer.global_step))


def last_step(trainer: pl.Trainer) -> int | None:
    """The last step of the running fit, counted as in `logged_step`; None where it is not known.

    To be asked before the first optimizer step of a batch.

    Returns:
        The step; None for an endless fit, and too late a one where ``max_time`` or early stopping
        ends the fit before ``max_steps`` and ``max_epochs`` do.
    """
    step = logged_step(trainer)
    per_batch = trainer.global_step / step if step and trainer.global_step else 1.0
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    endless = epochs < 0 or math.isinf(batches)
    return final_step(-1 if endless else math.ceil(batches) * epochs, trainer.max_steps, per_batch)
