"""Runs in position and time, and on the plane."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tests.broken.others import fields, fronts, plane
from tests.broken.others.fits import large
from tests.broken.others.graded import case
from tests.broken.others.optimizers import adam, sgd
from tests.broken.run import Run

HEAT: dict[str, Any] = {"steps": 1200}

CAVITY: dict[str, Any] = {"steps": 1200}


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
    case("cavity-few", "POINTS", plane.Cavity, CAVITY, {"points": 5}),
    case("channel", "CLEAN", plane.Channel, {"steps": 1200}),
]

FIELDS: list[Run] = [
    *PLANE,
    case("heat-early", "EARLY", fields.HeatRod, HEAT | {"steps": 60, "optim": adam(1e-3)}),
    case("heat-hot-weights", "SATURATED", fields.HeatRod, HEAT, {"start": large}),
    case("heat-weights", "IMBALANCE", fields.HeatRod, HEAT, {"weights": (1.0, 1e-4, 10.0)}),
    case(
        "heat-decay",
        "RANDOM_OR_DECAY",
        fields.HeatRod,
        HEAT,
        {"optim": adam(4e-3, weight_decay=0.3)},
    ),
    case("heat-forgotten", "NOTHING_TO_FIND", fields.HeatRod, HEAT, {"weights": (1.0, 0.0, 10.0)}),
    case(
        "heat-rmsprop",
        "STEP_TOO_LARGE",
        fields.HeatRod,
        HEAT,
        {"optim": partial(torch.optim.RMSprop, lr=0.3)},
    ),
    case("chord", "CLEAN", fields.Chord, {"steps": 1500}),
    case("chord-not-plucked", "NOTHING_TO_FIND", fields.Chord, {"steps": 1500}, {"plucked": 0.0}),
    case(
        "transport-no-grad",
        "DETACHED",
        fronts.Transport,
        {"steps": 1500},
        {"problem": fronts.UnlearntTransport},
    ),
    case("transport-half", "POINTS", fronts.Transport, {"steps": 1500}, {"upto": 0.3}),
    case("front", "CLEAN", fronts.Front, {"steps": 1200}),
]
