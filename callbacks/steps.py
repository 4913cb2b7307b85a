"""Steps that count on where another Trainer begins at 0 again."""

from __future__ import annotations

from collections.abc import Mapping


class StepCount:
    """Adds to the steps of a fit those of the fits before it.

    Attributes:
        offset: What is added to a step of Lightning's.
        reached: The last step so far, counted so.

    Example:
        >>> count = StepCount()
        >>> [count(step) for step in (0, 1)]
        [0, 1]
        >>> count.open(0)  # another fit
        >>> count(0)
        2
    """

    def __init__(self) -> None:
        """Nothing reached yet."""
        self.offset, self.reached = 0, -1

    def open(self, step: int, *, resumed: bool = False) -> None:
        """A fit starts at a step of Lightning's; one resumed from a checkpoint goes on."""
        if not resumed and step + self.offset <= self.reached:
            self.offset = self.reached + 1 - step

    def __call__(self, step: int) -> int:
        """The step counted over all fits."""
        self.reached = max(self.reached, step + self.offset)
        return step + self.offset

    def state_dict(self) -> dict[str, int]:
        """Plain numbers."""
        return {"offset": self.offset, "reached": self.reached}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on behind another count."""
        self.offset, self.reached = state["offset"], state["reached"]
