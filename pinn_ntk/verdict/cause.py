"""The causes for which a PINN does not train."""

from __future__ import annotations

from enum import IntEnum

from pinn_ntk.verdict.about import ABOUT


class Cause(IntEnum):
    """Why a PINN does not train. The number is what ``ntk/verdict`` logs.

    Each has a ``title`` in words, and says what it ``is_``, how it is ``seen``, what ``helps``, and
    a ``source`` to read on.

    >>> Cause.IMBALANCE.title, int(Cause.IMBALANCE)
    ('imbalance of the terms', 18)
    """

    UNKNOWN = 0
    DIVERGED = 1
    DETACHED = 2
    DERIVATIVE_VANISHES = 3
    NOT_TRAINED = 4
    BROADCAST = 5
    REPEATED_POINTS = 6
    INPUTS_NOT_SCALED = 7
    SATURATED = 8
    NOTHING_TO_FIND = 9
    OUTPUTS_NOT_SCALED = 10
    RANDOM_OR_DECAY = 11
    STEP_TOO_SHORT = 12
    EARLY = 13
    POINTS = 14
    TOO_NARROW = 15
    ROUNDING = 16
    STEP_TOO_LARGE = 17
    IMBALANCE = 18
    CAUSALITY = 19
    CONTRADICTION = 20
    SPECTRAL_BIAS = 21
    NOT_UNIQUE = 22
    CLEAN = 23

    @property
    def title(self) -> str:
        """The cause in a few words."""
        return ABOUT[self.name].title

    @property
    def is_(self) -> str:
        """What it is."""
        return ABOUT[self.name].is_

    @property
    def seen(self) -> str:
        """How it is seen."""
        return ABOUT[self.name].seen

    @property
    def helps(self) -> str:
        """What helps."""
        return ABOUT[self.name].helps

    @property
    def source(self) -> str:
        """Where to read on."""
        return ABOUT[self.name].source
