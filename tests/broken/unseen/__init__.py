"""Runs that nobody saw while the judgement was written."""

from __future__ import annotations

from tests.broken.run import Run
from tests.broken.unseen.epidemic import EPIDEMIC
from tests.broken.unseen.kinetics import KINETICS
from tests.broken.unseen.levels import LEVELS
from tests.broken.unseen.mechanics import MECHANICS
from tests.broken.unseen.memory import MEMORY
from tests.broken.unseen.plates import PLATES
from tests.broken.unseen.rod import ROD
from tests.broken.unseen.sensors import SENSORS
from tests.broken.unseen.times import TIMES
from tests.broken.unseen.transport import TRANSPORT

UNSEEN: list[Run] = [
    *KINETICS,
    *EPIDEMIC,
    *MECHANICS,
    *PLATES,
    *ROD,
    *SENSORS,
    *LEVELS,
    *MEMORY,
    *TIMES,
    *TRANSPORT,
]
