"""Runs of a newcomer."""

from __future__ import annotations

from tests.broken.run import Run
from tests.broken.seventh.runs_a import RUNS_A
from tests.broken.seventh.runs_b import RUNS_B

SEVENTH: list[Run] = [*RUNS_A, *RUNS_B]
