"""Runs in position and time, and on the plane."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tests.broken.others import fields, plane
from tests.broken.others.fits import large
from tests.broken.others.graded import case
from tests.broken.others.optimizers import adam, sgd
from tests.broken.run import Run

HEAT: dict[str, Any] = {"steps": 1200}

CAVITY: dict[str, Any] = {"steps": 1200}
WAVES: dict[str, Any] = {"steps": 1500, "modes": (6, 5), "points": 400, "octaves": 3}


PLANE: list[Run] = [
    case("disc", "CLEAN", plane.Disc, {"steps": 60}),
    case("disc-centre", "DIVERGED", plane.Disc, {"steps": 60}, {"centre": 0.0}),
    case(
        "cavity-descent",
        "DIVERGED",
        plane.Cavity,
        CAVITY | {"steps": 2000, "optim": sgd(0.05, momentum=0.9)},
        {"optim": sgd(50.0, momentum=0.9)},
    ),
    case("cavity-few", "POINTS", plane.Cavity, CAVITY, {"points": 10}),
    case("cavity-waves", "SPECTRAL_BIAS", plane.Cavity, WAVES, {"octaves": 0}),
    case("cavity", "CLEAN", plane.Cavity, CAVITY),
    case("channel", "CLEAN", plane.Channel, {"steps": 1200}),
]

FIELDS: list[Run] = [
    *PLANE,
    case("heat", "CLEAN", fields.HeatRod, HEAT),
    case("heat-early", "EARLY", fields.HeatRod, HEAT | {"steps": 60, "optim": adam(1e-3)}),
    case("heat-hot-weights", "SATURATED", fields.HeatRod, HEAT, {"start": large}),
    case("heat-weights", "IMBALANCE", fields.HeatRod, HEAT, {"weights": (1.0, 1e-4, 10.0)}),
    case("heat-forgotten", "NOTHING_TO_FIND", fields.HeatRod, HEAT, {"weights": (1.0, 0.0, 10.0)}),
    case(
        "heat-rmsprop",
        "STEP_TOO_LARGE",
        fields.HeatRod,
        HEAT,
        {"optim": partial(torch.optim.RMSprop, lr=0.3)},
    ),
    case("heat-kelvin", "ROUNDING", fields.HeatByDifferences, HEAT, {"zero": 30000.0}),
    case("chord", "CLEAN", fields.Chord, {"steps": 1500}),
    case("chord-not-plucked", "NOTHING_TO_FIND", fields.Chord, {"steps": 1500}, {"plucked": 0.0}),
    case("chord-no-rest", "NOT_UNIQUE", fields.Chord, {"steps": 1500}, {"rest": 0.0}),
    case(
        "transport-no-grad",
        "DETACHED",
        fields.Transport,
        {"steps": 1500},
        {"problem": fields.UnlearntTransport},
    ),
    case("transport-half", "POINTS", fields.Transport, {"steps": 1500}, {"upto": 0.3}),
    case("transport-fast", "CLEAN", fields.Transport, {"steps": 1500, "c": 1.0}),
    case("reaction", "CAUSALITY", fields.Reaction, {"steps": 2500, "march": 1800}, {"march": 0}),
    case("front", "CLEAN", fields.Front, {"steps": 1200}),
]
