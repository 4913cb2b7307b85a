"""How far and when weights may move, the same for all rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_CHANGE = 10.0
"""Factor by which one update after the first may change a weight."""


MAX_WEIGHT = 1e12
"""Largest weight unless told otherwise: float32 overflows at 3e38, and gradients are multiplied."""


@dataclass(frozen=True)
class Limits:
    """An average over updates, bounds, a largest change, and steps between which weights move.

    Args:
        ema: Share of the old weight that an update keeps; 0 replaces it, as the paper does.
        min_weight: Smallest weight.
        max_weight: Largest weight, so that gradients do not overflow where a first cost is tiny.
        max_change: Factor by which an update changes a weight at most, save the first of a term.
        warmup_steps: Steps before the first update, in which all weights are 1.
        freeze_after: Step after which weights stay as they are; None for never.
        owner: Who is named in errors.

    Raises:
        ValueError: A number is out of range.

    >>> Limits(ema=0.5).after(1.0, 9.0, first=True), Limits().after(1.0, 90.0, first=False)
    (5.0, 10.0)
    """

    ema: float = 0.0
    min_weight: float = 0.0
    max_weight: float = MAX_WEIGHT
    max_change: float = MAX_CHANGE
    warmup_steps: int = 0
    freeze_after: int | None = None
    owner: str = "Balancing"

    def __post_init__(self) -> None:
        for name, text in self._wrong():
            raise ValueError(f"{self.owner}: {name} is {getattr(self, name)!r}; expected {text}.")
        if not 0 <= self.min_weight < math.inf or not self.min_weight < self.max_weight:
            raise ValueError(
                f"{self.owner}: min_weight is {self.min_weight!r} and max_weight is "
                f"{self.max_weight!r}; expected 0 <= min_weight < max_weight."
            )

    def _wrong(self) -> list[tuple[str, str]]:
        last = self.freeze_after
        count = last is not None and _is_count(last) and last >= self.warmup_steps
        expected = {
            "ema": (_is_number(self.ema) and 0 <= self.ema < 1, "a number in [0, 1)"),
            "max_change": (
                _is_number(self.max_change) and self.max_change > 1,
                "a factor above 1, or inf for none",
            ),
            "warmup_steps": (_is_count(self.warmup_steps), "an integer of at least 0"),
            "freeze_after": (
                last is None or count,
                "a step, an integer of at least warmup_steps, or None to go on",
            ),
        }
        return [(name, text) for name, (fits, text) in expected.items() if not fits]

    def allow(self, step: int) -> bool:
        """Whether weights may move at a step.

        >>> limits = Limits(warmup_steps=10, freeze_after=20)
        >>> [step for step in (9, 10, 20, 21) if limits.allow(step)]
        [10, 20]
        """
        return self.warmup_steps <= step and not self.are_over(step)

    def are_over(self, step: int) -> bool:
        """Whether weights will not move any more."""
        return self.freeze_after is not None and step > self.freeze_after

    def after(self, old: float, target: float, *, first: bool) -> float:
        """The weight after an update that asks for ``target``."""
        new = self.ema * old + (1 - self.ema) * target
        if not first:
            new = min(max(new, old / self.max_change), old * self.max_change)
        return min(max(new, self.min_weight), self.max_weight)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
