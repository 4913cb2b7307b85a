"""PINNs as students and tutorials write them, broken in one way each, or healthy."""

from __future__ import annotations

from tests.broken.run import Run
from tests.broken.third.cooling import COOLING
from tests.broken.third.evolution import EVOLUTION
from tests.broken.third.oscillators import OSCILLATORS
from tests.broken.third.plates import PLATES

THIRD: list[Run] = [*OSCILLATORS, *COOLING, *PLATES, *EVOLUTION]
