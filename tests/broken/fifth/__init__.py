"""Runs of reactors, drugs, circuits, beams, bars, fins, nerves and tissue, to judge by."""

from __future__ import annotations

from tests.broken.fifth.code import CODE
from tests.broken.fifth.ill import ILL
from tests.broken.fifth.sound import SOUND
from tests.broken.fifth.tuned import TUNED

FIFTH = [*CODE, *TUNED, *ILL, *SOUND]
