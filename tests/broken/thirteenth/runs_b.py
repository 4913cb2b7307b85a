"""Runs of the meteorologist."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.optim import lr_scheduler

from tests.broken.run import Run
from tests.broken.thirteenth.flows import Geostrophic, Lorenz, Rossby, Swing
from tests.broken.thirteenth.weather import (
    Inertial,
    Moisture,
    MoistureShort,
    Ozone,
    Plume,
    ShallowWater,
    Soil,
)

FAST: Any = partial(torch.optim.Adam, lr=5e-3)

METEOROLOGIST = [
    Run(
        "thirteenth-moisture",
        "DETACHED",
        "judge",
        Moisture,
        {"steps": 1300, "optimizer": FAST},
        {"problem": MoistureShort},
    ),
    Run(
        "thirteenth-ozone",
        "INPUTS_NOT_SCALED",
        "judge",
        Ozone,
        {"steps": 1300, "optimizer": FAST},
        {"net": {"normalise": False}},
    ),
    Run(
        "thirteenth-inertial",
        "REPEATED_POINTS",
        "judge",
        Inertial,
        {"steps": 1500, "optimizer": FAST, "weights": {"start": 10.0}},
        {"whole_days": True},
    ),
    Run(
        "thirteenth-soil",
        "POINTS",
        "judge",
        Soil,
        {"steps": 1000, "optimizer": FAST},
        {"hours": 0.3},
    ),
    Run(
        "thirteenth-plume",
        "IMBALANCE",
        "judge",
        Plume,
        {"steps": 1300, "optimizer": FAST, "net": {"hidden": (40, 40)}},
        {"weights": {"pde": 1e4}},
    ),
    Run(
        "thirteenth-rossby",
        "RANDOM_OR_DECAY",
        "judge",
        Rossby,
        {"steps": 700, "optimizer": FAST},
        {"optimizer": partial(torch.optim.Adam, lr=5e-3, weight_decay=0.1)},
    ),
    Run(
        "thirteenth-pressure",
        "NOT_UNIQUE",
        "judge",
        Geostrophic,
        {
            "steps": 1200,
            "optimizer": partial(torch.optim.SGD, lr=2e-2, momentum=0.9),
        },
        {"barometer": False},
    ),
    Run(
        "thirteenth-swing",
        "CAUSALITY",
        "judge",
        Swing,
        {
            "steps": 1500,
            "optimizer": FAST,
            "weights": {"release": 10.0},
        },
        {"span": 18.0},
    ),
    Run(
        "thirteenth-lorenz",
        "CAUSALITY",
        "judge",
        Lorenz,
        {"steps": 1200, "optimizer": FAST},
        {"span": 3.0},
    ),
    Run("thirteenth-plume-soon", "EARLY", "judge", Plume, {"steps": 60}),
    Run(
        "thirteenth-basin",
        "CLEAN",
        "judge",
        ShallowWater,
        {
            "steps": 1000,
            "optimizer": partial(torch.optim.Adam, lr=1e-3),
            "scheduler": partial(lr_scheduler.OneCycleLR, max_lr=1e-2, total_steps=1001),
        },
    ),
]
