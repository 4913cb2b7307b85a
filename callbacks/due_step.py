"""Whether the running step of a fit is one to measure."""

from __future__ import annotations

from collections.abc import Iterable
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
    """Asks the schedule once a step; the first step of a fit that is not resumed is due as well.

    A due step that had no backward pass is made up for at the next one. So is what the step at that
    time did not log or tap, but others had before, where it comes within the epoch or the next.
    """

    def __init__(self, schedule: Schedule, guard: Guard) -> None:
        self.schedule, self.guard = schedule, guard
        self.restart(resumed=False)

    def restart(self, *, resumed: bool) -> None:
        """A fit starts."""
        self._resumed = resumed
        self._seen: int | None = None
        self._due, self._was_due = resumed, False  # the step before may have been measured
        self.late = False  # whether only what was missing when it was due is measured now
        self._known: set[str] = set()
        self._missing: set[str] = set()
        self._until = -1  # the last epoch in which that is waited for

    @property
    def ends(self) -> str:
        """Which steps of a fit are due whatever the schedule says."""
        return "last" if self._resumed else "first last"

    @property
    def recent(self) -> bool:
        """Whether the running step, or the one before, is due."""
        return self._due or self._was_due

    def begins(self, trainer: pl.Trainer) -> bool:
        """Whether no backward pass of the running step was seen before."""
        return logged_step(trainer) != self._seen

    def now(self, trainer: pl.Trainer, told: Iterable[str] = (), *, several: bool) -> bool:
        """Whether to measure at this backward pass; of several in one step, at each.

        ``told`` are the keys that the step logged and tapped.
        """
        step, before = logged_step(trainer), self._seen
        if step == before:
            return self._due and several
        self._seen, self._was_due = step, self._due
        spent, elapsed = self.guard.seconds, self.guard.elapsed()
        due = self.schedule.due(step, last_step(trainer), spent, elapsed, before)
        self._due = due or (before is None and not self._resumed)
        self.late = not self._due and self._comes_late(trainer, told, spent, elapsed)
        self._known |= set(told)
        if self._due:
            self._missing, self._until = self._known - set(told), trainer.current_epoch + 1
        self._due = self._due or self.late
        return self._due

    def _comes_late(
        self, trainer: pl.Trainer, told: Iterable[str], spent: float, elapsed: float
    ) -> bool:
        """Whether the step tells of something that was missing; under several ranks never."""
        if not self._waits(trainer) or self._missing.isdisjoint(told):
            return False
        affordable = self.schedule.affords(spent, elapsed)
        self._missing -= set(told) if affordable else set()
        return affordable

    def _waits(self, trainer: pl.Trainer) -> bool:
        in_time = trainer.current_epoch <= self._until
        return bool(self._missing) and in_time and trainer.world_size == 1

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
        due = self.schedule.may_be_due(step, last_step(trainer), self._seen)
        return due or self._waits(trainer)

    def will_look(self, trainer: pl.Trainer) -> bool:
        """The same at a backward pass: of a step that is due, at each."""
        return self.may_come(trainer) if self.begins(trainer) else self._due
