"""A set for judging, written without knowledge of the detector."""

from __future__ import annotations

from tests.broken.fourth.runs_of_structure import STRUCTURE
from tests.broken.fourth.runs_of_training import TRAINING
from tests.broken.run import Run

FOURTH: list[Run] = [*STRUCTURE, *TRAINING]
