"""Runs: steps, sizes of networks, digits, weights, times, data; and healthy ones."""

from __future__ import annotations

from functools import partial

import torch
from torch.optim import lr_scheduler

from tests.broken.networks import adam, sgd, uniform
from tests.broken.ninth.fields import Bratu, GrayScott, Pressure
from tests.broken.ninth.inverse import Ground, Kinetics, Spring, Standing
from tests.broken.ninth.lines import Beam, Duffing, Flux, Helmholtz
from tests.broken.ninth.moving import Bistable, Circuit, Pendulum, VanDerPol
from tests.broken.ninth.planes import Plate
from tests.broken.run import Run

SQUARE = ((0.0, 1.0), (0.0, 1.0))

TRAINING = [
    Run(
        "ninth-plate-dropout",
        "RANDOM_OR_DECAY",
        "judge",
        Plate,
        {"steps": 800, "points": uniform(100, *SQUARE), "weights": {"edge": 10}},
        {"net": {"dropout": 0.2}},
    ),
    Run(
        "ninth-pendulum-adamw",
        "RANDOM_OR_DECAY",
        "judge",
        Pendulum,
        {"steps": 1500, "begin": 5.0, "optim": partial(torch.optim.AdamW, lr=4e-3)},
        {"optim": partial(torch.optim.AdamW, lr=4e-3, weight_decay=20.0)},
    ),
    Run(
        "ninth-kinetics-schedule",
        "STEP_TOO_SHORT",
        "judge",
        Kinetics,
        {
            "steps": 1500,
            "optim": adam(5e-3),
            "schedule": partial(lr_scheduler.PolynomialLR, total_iters=1500),
        },
        {"schedule": partial(lr_scheduler.PolynomialLR, total_iters=15)},
    ),
    Run(
        "ninth-bratu-clipped",
        "STEP_TOO_SHORT",
        "judge",
        Bratu,
        {"steps": 1500, "optim": sgd(5e-3, momentum=0.9), "trainer": {"gradient_clip_val": 10.0}},
        {"trainer": {"gradient_clip_val": 1e-3}},
    ),
    Run(
        "ninth-gray-scott-small",
        "TOO_NARROW",
        "judge",
        GrayScott,
        {"steps": 800, "optim": adam(5e-3), "n": 100, "net": {"width": 32, "depth": 2}},
        {"net": {"width": 1}},
    ),
    Run(
        "ninth-van-der-pol-small",
        "TOO_NARROW",
        "judge",
        VanDerPol,
        {"steps": 1500, "optim": adam(5e-3), "net": {"width": 32}},
        {"net": {"width": 2}},
    ),
    Run(
        "ninth-helmholtz-differences",
        "ROUNDING",
        "judge",
        Helmholtz,
        {"steps": 1500, "waves": (1, 2), "h": 0.02},
        {"h": 1e-5},
    ),
    Run(
        "ninth-pressure",
        "ROUNDING",
        "judge",
        Pressure,
        {"steps": 1500, "ambient": 101325.0, "h": 0.01},
        {"double": False},
    ),
    Run(
        "ninth-plate-adam",
        "STEP_TOO_LARGE",
        "judge",
        Plate,
        {"steps": 800, "points": uniform(100, *SQUARE), "weights": {"edge": 10}},
        {"optim": adam(0.3)},
    ),
    Run(
        "ninth-van-der-pol-adam",
        "STEP_TOO_LARGE",
        "judge",
        VanDerPol,
        {"steps": 1500, "optim": adam(5e-3)},
        {"optim": adam(0.5)},
    ),
    Run(
        "ninth-beam-units",
        "IMBALANCE",
        "judge",
        Beam,
        {"steps": 1000, "stiffness": 1e4, "load": 76.8e4, "net": {"width": 20}},
        {"units": False},
    ),
    Run(
        "ninth-gray-scott-weights",
        "IMBALANCE",
        "judge",
        GrayScott,
        {"steps": 800, "optim": adam(5e-3), "n": 100},
        {"weights": (1.0, 1.0, 1e-5)},
    ),
    Run(
        "ninth-bistable",
        "CAUSALITY",
        "judge",
        Bistable,
        {"steps": 1500, "causal": 100.0, "optim": adam(5e-3), "start": 0.3, "span": 8.0},
        {"causal": 0.0},
    ),
    Run(
        "ninth-rod",
        "CONTRADICTION",
        "judge",
        Flux,
        {"steps": 1200},
        {"right": -1.0},
    ),
    Run(
        "ninth-spring-law",
        "CONTRADICTION",
        "judge",
        Spring,
        {"steps": 1500, "optim": partial(torch.optim.AdamW, lr=5e-3)},
        {"sign": -1.0},
    ),
    Run(
        "ninth-standing-wave",
        "SPECTRAL_BIAS",
        "judge",
        Standing,
        {"steps": 1000, "optim": adam(5e-3), "net": {"features": 15.0}},
        {"net": {"features": 0.0}},
    ),
    Run(
        "ninth-circuit",
        "SPECTRAL_BIAS",
        "judge",
        Circuit,
        {
            "steps": 1500,
            "fast": 40.0,
            "optim": adam(5e-3),
            "schedule": partial(lr_scheduler.CosineAnnealingLR, T_max=1500),
            "net": {"features": 25.0, "width": 48},
        },
        {"net": {"features": 0.0}},
    ),
    Run(
        "ninth-ground",
        "NOT_UNIQUE",
        "judge",
        Ground,
        {"steps": 1500, "optim": adam(1e-2)},
        {"flux": False},
    ),
    Run(
        "ninth-duffing-speed",
        "NOT_UNIQUE",
        "judge",
        Duffing,
        {"steps": 1500, "span": 3.0, "net": {"scaled": True}},
        {"without": ("speed",)},
    ),
]
