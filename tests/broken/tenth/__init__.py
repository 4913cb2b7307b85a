"""Studies by a data scientist."""

from __future__ import annotations

from tests.broken.run import Run
from tests.broken.tenth.code import CODE
from tests.broken.tenth.difficulties import DIFFICULTIES
from tests.broken.tenth.early import HEALTHY
from tests.broken.tenth.scales import SCALES

TENTH: list[Run] = [*HEALTHY, *CODE, *SCALES, *DIFFICULTIES]
