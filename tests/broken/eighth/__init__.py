"""Groundwater, rivers, air, waves in the ground, pipes: runs of an earth scientist."""

from __future__ import annotations

from tests.broken.eighth.runs_a import CODE
from tests.broken.eighth.runs_b import HEALTHY, TRAINING
from tests.broken.run import Run

EIGHTH: list[Run] = [*CODE, *TRAINING, *HEALTHY]
