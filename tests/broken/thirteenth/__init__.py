"""PINNs of three master's students, each broken by one mistake."""

from __future__ import annotations

from tests.broken.run import Run
from tests.broken.thirteenth.runs_a import ENGINEER
from tests.broken.thirteenth.runs_b import METEOROLOGIST
from tests.broken.thirteenth.runs_c import CHEMIST

THIRTEENTH: list[Run] = [*ENGINEER, *METEOROLOGIST, *CHEMIST]
