"""When to measure, as functions of the step, and which step a trainer is at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pinn_ntk.callbacks.trainer.checks import at_least


class Schedule:
    """When to act: by one rule for the steps, and within a share of the wall time.

    The rule is ``steps`` where given, else ``per_decade`` where given, else ``every_n_steps``. The
    last step of a fit counts as due under each of them. A due step that the budget does not allow
    is made up for as soon as it does; the last step is acted on whatever it costs. Steps count from
    0, and a last step that is not known is None. ``per_decade`` means step 0 and
    round(10^(k / per_decade)) for k = 0, 1, ...; ``budget`` is a share of the wall time in (0, 1].

    Example:
        >>> schedule = Schedule("NTKMonitor", 500, per_decade=3)
        >>> [step for step in range(101) if schedule.is_due(step)]
        [0, 1, 2, 5, 10, 22, 46, 100]
        >>> Schedule("NTKMonitor", 500, budget=0.05).affords(spent=2.0, elapsed=60.0)
        True
    """

    def __init__(
        self,
        owner: str,
        every_n_steps: int,
        steps: Sequence[int] | None = None,
        per_decade: int | None = None,
        budget: float | None = None,
    ) -> None:
        if steps is not None and per_decade is not None:
            raise ValueError(
                f"{owner}: steps is {steps!r} and per_decade is {per_decade!r}; give one of them."
            )
        self.every_n_steps = at_least(owner, "every_n_steps", every_n_steps, 1)
        self.steps = None if steps is None else _checked_steps(owner, steps)
        if per_decade is not None:
            at_least(owner, "per_decade", per_decade, 1)
        self.per_decade = per_decade
        self.budget = None if budget is None else _checked_budget(owner, budget)
        self._postponed = False
        self._expected = 0.0  # seconds that what is put off will take

    def is_due(self, step: int, last_step: int | None = None) -> bool:
        """Whether the rule asks for a step, whatever the budget."""
        if step == last_step:
            return True
        if self.steps is not None:
            return step in self.steps
        if self.per_decade is not None:
            return _is_evenly_spaced(step, self.per_decade)
        return is_due(step, self.every_n_steps)

    def asks(self, step: int, since: int | None, last_step: int | None = None) -> bool:
        """The same of this step and of those after ``since``, which had no backward pass."""
        first = step if since is None else min(since + 1, step)
        return any(self.is_due(passed, last_step) for passed in range(first, step + 1))

    def affords(self, spent: float, elapsed: float) -> bool:
        """Whether the share of the wall time spent so far is within the budget."""
        return self.budget is None or spent <= self.budget * elapsed

    def due(
        self,
        step: int,
        last_step: int | None,
        spent: float,
        elapsed: float,
        since: int | None = None,
    ) -> bool:
        """Whether to act now, be it to make up for an earlier step; to be asked once a step."""
        if not self.may_be_due(step, last_step, since):
            return False
        affordable = self.affords(spent + self._expected, elapsed)
        self._postponed = step != last_step and not affordable
        if not self._postponed:
            self._expected = 0.0
        return not self._postponed

    def put_off(self, expected: float) -> None:
        """What is due takes these seconds, which are not affordable yet."""
        self._postponed, self._expected = True, expected

    def may_be_due(self, step: int, last_step: int | None, since: int | None = None) -> bool:
        """What `due` would say at this step, were there no budget; nothing is put off."""
        return self._postponed or self.asks(step, since, last_step)

    def state_dict(self) -> dict[str, Any]:
        """Whether a due step is still to be made up for."""
        return {"postponed": self._postponed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; the rule stays that of the constructor."""
        self._postponed = bool(state.get("postponed", False))


def _checked_steps(owner: str, steps: object) -> frozenset[int]:
    listed = list(steps) if isinstance(steps, Iterable) and not isinstance(steps, str) else []
    if not listed:
        raise ValueError(f"{owner}: steps is {steps!r}; expected a list of steps, as in [0, 1000].")
    plain = [int(step) if isinstance(step, np.integer) else step for step in listed]
    return frozenset(at_least(owner, f"steps[{i}]", step, 0) for i, step in enumerate(plain))


def _checked_budget(owner: str, budget: float) -> float:
    number = isinstance(budget, int | float) and not isinstance(budget, bool)
    if not number or not 0 < budget <= 1:
        raise ValueError(
            f"{owner}: budget is {budget!r}; expected a share of the wall time in (0, 1], as in "
            "0.05 for 5 %."
        )
    return float(budget)


def _is_evenly_spaced(step: int, per_decade: int) -> bool:
    if step < 1:
        return step == 0
    k = per_decade * math.log10(step)
    return step in {round(10 ** (j / per_decade)) for j in (math.floor(k), math.ceil(k))}


def is_due(step: int, every_n_steps: int, last_step: int | None = None) -> bool:
    """Whether to act at a step: every n-th from 0 on, and the last.

    Example:
        >>> [step for step in range(8) if is_due(step, 3, last_step=7)]
        [0, 3, 6, 7]
    """
    return step % every_n_steps == 0 or step == last_step
