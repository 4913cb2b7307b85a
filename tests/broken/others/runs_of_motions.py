"""Motions."""

from __future__ import annotations

from typing import Any

from tests.broken.others import motions
from tests.broken.others.graded import case
from tests.broken.others.optimizers import adam, sgd
from tests.broken.run import Run

COOL: dict[str, Any] = {"steps": 2000}
EPIDEMIC: dict[str, Any] = {"steps": 2000}

MOTIONS: list[Run] = [
    case("cooling-frozen", "NOT_TRAINED", motions.Cooling, COOL, {"everything": False}),
    case(
        "cooling-years",
        "INPUTS_NOT_SCALED",
        motions.Cooling,
        COOL | {"begin": 2000.0},
        {"shift": False},
    ),
    case(
        "cooling-probes",
        "CONTRADICTION",
        motions.Cooling,
        COOL | {"probes": (1.0, 1.0)},
        {"probes": (1.0, 2.0)},
    ),
    case(
        "cooling-clipped",
        "STEP_TOO_SHORT",
        motions.Cooling,
        COOL | {"optim": sgd(0.05, momentum=0.9)},
        {"trainer": {"gradient_clip_val": 1e-5}},
    ),
    case("pendulum", "CLEAN", motions.Pendulum, {"steps": 1500}),
    case(
        "epidemic-persons",
        "OUTPUTS_NOT_SCALED",
        motions.Epidemic,
        EPIDEMIC | {"people": 1000.0, "unit": 1000.0},
        {"unit": 1.0},
    ),
    case("epidemic-imbalance", "IMBALANCE", motions.Epidemic, EPIDEMIC, {"ic": 1e-5}),
    case("epidemic-narrow", "TOO_NARROW", motions.Epidemic, EPIDEMIC, {"hidden": 1}),
    case(
        "epidemic-early", "EARLY", motions.Epidemic, EPIDEMIC | {"steps": 60, "optim": adam(2e-3)}
    ),
    case("delay", "CLEAN", motions.Delayed, {"steps": 1500}),
    case(
        "delay-whole",
        "REPEATED_POINTS",
        motions.Delayed,
        {"steps": 1500},
        {"problem": motions.WholeTimes},
    ),
    case(
        "delay-broadcast",
        "BROADCAST",
        motions.Delayed,
        {"steps": 1500},
        {"problem": motions.FlatSlope},
    ),
    case("memory", "CLEAN", motions.Memory, {"steps": 1500}),
    case("memory-large", "STEP_TOO_LARGE", motions.Memory, {"steps": 1500}, {"lr": 1.0}),
]
