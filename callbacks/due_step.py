"""Whether the running step of a fit is one to measure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pinn_ntk.callbacks.schedule import Schedule
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.steps import last_step, logged_step
from pinn_ntk.errors import UnavailableError
from pinn_ntk.looks.look import Look

if TYPE_CHECKING:
    import pytorch_lightning as pl


class OverBudgetError(RuntimeError):
    """Rows that have to be taken one by one would take longer than the budget allows."""


class DueStep:
    """Asks the schedule once a step; the first step of a fit that is not resumed is due as well."""

    def __init__(self, schedule: Schedule, guard: Guard) -> None:
        self.schedule, self.guard = schedule, guard
        self.restart(resumed=False)

    def restart(self, *, resumed: bool) -> None:
        """A fit starts."""
        self._resumed = resumed
        self._seen: int | None = None
        self._due, self._was_due = resumed, False  # the step before may have been measured

    @property
    def recent(self) -> bool:
        """Whether the running step, or the one before, is due."""
        return self._due or self._was_due

    def begins(self, trainer: pl.Trainer) -> bool:
        """Whether no backward pass of the running step was seen before."""
        return logged_step(trainer) != self._seen

    def now(self, trainer: pl.Trainer, *, several: bool) -> bool:
        """Whether to measure at this backward pass; of several in one step, at each."""
        step, before = logged_step(trainer), self._seen
        if step == before:
            return self._due and several
        self._seen, self._was_due = step, self._due
        spent, elapsed = self.guard.seconds, self.guard.elapsed()
        due = self.schedule.due(step, last_step(trainer), spent, elapsed)
        self._due = due or (before is None and not self._resumed)
        return self._due

    def too_dear(self, trainer: pl.Trainer, look: Look) -> bool:
        """Whether rows would be taken one by one for longer than affordable: then put off."""
        if self.schedule.budget is None:
            return False
        look.allow = partial(self._allow, trainer)
        try:
            _ = look.kernel
        except UnavailableError as error:
            return isinstance(error.__cause__, OverBudgetError)
        return False

    def _allow(self, trainer: pl.Trainer, seconds: float) -> None:
        spent, elapsed = self.guard.seconds + seconds, self.guard.elapsed()
        last = logged_step(trainer) == last_step(trainer)
        if not last and not self.schedule.affords(spent, elapsed):
            self._due = False
            self.schedule.put_off(seconds)
            said = f"that is put off until budget={self.schedule.budget} allows it."
            self.guard.warn_once("put off", said)
            raise OverBudgetError

    def may_come(self, trainer: pl.Trainer) -> bool:
        """Whether a step that begins may be measured, which the clock may still prevent."""
        step = logged_step(trainer)
        if self._seen is None or step == self._seen:
            return self._seen is None
        return self.schedule.may_be_due(step, last_step(trainer))

    def will_look(self, trainer: pl.Trainer) -> bool:
        """The same at a backward pass: of a step that is due, at each."""
        return self.may_come(trainer) if self.begins(trainer) else self._due
