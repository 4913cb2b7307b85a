"""Networks of five colleagues, taken over with their habits."""

from __future__ import annotations

from tests.broken.run import Run
from tests.broken.twelfth.equations import EQUATIONS
from tests.broken.twelfth.training import TRAINING

TWELFTH: list[Run] = [*EQUATIONS, *TRAINING]
