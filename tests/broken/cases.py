"""All runs."""

from __future__ import annotations

from tests.broken.capacity import CAPACITY
from tests.broken.conditions import CONDITIONS
from tests.broken.eighth import EIGHTH
from tests.broken.eleventh import ELEVENTH
from tests.broken.fifth import FIFTH
from tests.broken.fourth import FOURTH
from tests.broken.graph import GRAPH
from tests.broken.healthy import HEALTHY
from tests.broken.ninth import NINTH
from tests.broken.others import OTHERS
from tests.broken.overflow import NUMBERS
from tests.broken.points import PLACES
from tests.broken.run import Run
from tests.broken.scales import SCALES
from tests.broken.seventh import SEVENTH
from tests.broken.several import SEVERAL
from tests.broken.sixth import SIXTH
from tests.broken.slow import SLOW
from tests.broken.steps import STEPS
from tests.broken.tenth import TENTH
from tests.broken.third import THIRD
from tests.broken.thirteenth import THIRTEENTH
from tests.broken.twelfth import TWELFTH
from tests.broken.unseen import UNSEEN
from tests.broken.vanishing import VANISHES

RUNS: list[Run] = [
    *(*NUMBERS, *GRAPH, *VANISHES, *PLACES, *SCALES, *CONDITIONS),
    *(
        *STEPS,
        *CAPACITY,
        *SLOW,
        *HEALTHY,
        *OTHERS,
        *SEVERAL,
        *UNSEEN,
        *THIRD,
        *FOURTH,
        *FIFTH,
        *SEVENTH,
        *SIXTH,
        *EIGHTH,
        *NINTH,
        *TENTH,
        *ELEVENTH,
        *TWELFTH,
        *THIRTEENTH,
    ),
]
