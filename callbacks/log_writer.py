"""What a callback keeps of its readings and hands to loggers: scalars and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.loggers import log_tensors, publish
from pinn_ntk.callbacks.trainer.steps import StepCount
from pinn_ntk.diagnostics.base import Reading
from pinn_ntk.diagnostics.history import History

if TYPE_CHECKING:
    import pytorch_lightning as pl


class LogWriter:
    """Keeps all scalars of a callback, over fits and restarts, and logs them."""

    def __init__(self, guard: Guard, prefix: str) -> None:
        self.guard, self.prefix = guard, prefix  # the first part of all tags
        self.reset()

    def reset(self) -> None:
        """Another module is trained."""
        self.history, self.count = History(), StepCount()  # of all fits

    def keep(self, trainer: pl.Trainer, readings: Iterable[Reading]) -> dict[str, float]:
        """Add readings, each at its own step, and hand them to the loggers; tag -> number."""
        by_step: dict[int, dict[str, float]] = {}
        for reading in readings:
            by_step.setdefault(reading.step, {}).update(reading.values)
            if reading.tensors:
                write = partial(log_tensors, trainer, reading, self.prefix)
                self.guard.run("logging spectra", write)
        kept: dict[str, float] = {}
        for step, values in by_step.items():
            kept |= self.log(trainer, step, values)
        return kept

    def log(self, trainer: pl.Trainer, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """The same with plain scalars at one step."""
        tagged = {f"{self.prefix}/{tag}": float(value) for tag, value in values.items()}
        self.history.add(self.count.at(step), tagged)
        for logger in trainer.loggers:  # past ``log_every_n_steps``; one that fails is alone in it
            write = partial(logger.log_metrics, dict(tagged), step=step)
            self.guard.run(f"logging scalars to {type(logger).__name__}", write, retry=True)
        publish(trainer, tagged)
        return tagged

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {"history": self.history.state_dict(), "count": self.count.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind what another one has kept."""
        self.history.load_state_dict(state["history"])
        self.count.load_state_dict(state["count"])
