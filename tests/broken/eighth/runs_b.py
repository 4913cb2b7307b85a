"""Runs: what goes wrong in the training; healthy ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import lr_scheduler

from tests.broken.eighth.ground import Dupuit, Plume, SoilHeat
from tests.broken.eighth.pipes import Channel, Duct, Vortices
from tests.broken.eighth.rivers import Backwater, Cascade, Rouse, Seiche, Streeter
from tests.broken.eighth.runs_a import (
    CHANNEL,
    DUCT,
    DUPUIT,
    EKMAN,
    LAKE,
    SCALED,
    SHAKE,
    SOIL,
    VORTEX,
    WEIR,
    judge,
)
from tests.broken.eighth.sky import (
    Barometer,
    Ekman,
    Evolution,
    Lake,
    Ripples,
    Shaking,
    Trace,
)
from tests.broken.networks import adam, grid, lbfgs, sgd, uniform

PLUME: dict[str, Any] = {
    "steps": 1200,
    "net": {"scaled": True},
    "points": uniform(200, (0.0, 2.0), (0.0, 1.0)),
    "optim": adam(5e-3),
    "weights": {"edges": 10.0, "first": 10.0},
}
SEICHE: dict[str, Any] = {
    "steps": 1500,
    "net": {"scaled": True},
    "points": uniform(150, (0.0, 2000.0), (0.0, 200.0)),
    "optim": adam(1e-2),
    "weights": {"level": 10.0, "rest": 10.0, "walls": 5.0},
}


def algae(c: Tensor) -> Tensor:
    return c * (1 - c)


def pond(u: Tensor) -> Tensor:
    """Nutrient, flushed in and out, and what grows on it."""
    n, a = u.unbind(-1)
    return torch.stack([0.3 * (1 - n) - 2 * n * a, a * (2 * n - 0.3)], dim=-1)


def buoy(u: Tensor) -> Tensor:
    """A moored buoy that swings like a damped pendulum."""
    angle, turn = u.unbind(-1)
    return torch.stack([turn, -4 * torch.sin(angle) - 0.1 * turn], dim=-1)


TRAINING = [
    judge(
        "vortices-dropout",
        "RANDOM_OR_DECAY",
        Vortices,
        VORTEX,
        {"net": {"dropout": 0.4}},
    ),
    judge(
        "lake-decay",
        "RANDOM_OR_DECAY",
        Lake,
        LAKE | {"optim": partial(torch.optim.AdamW, lr=3e-3, weight_decay=1e-4)},
        {"optim": partial(torch.optim.AdamW, lr=3e-3, weight_decay=30.0)},
    ),
    judge(
        "cascade-clipped",
        "STEP_TOO_SHORT",
        Cascade,
        {"steps": 1500, "optim": sgd(0.03), "trainer": {"gradient_clip_val": 10.0}},
        {"trainer": {"gradient_clip_val": 1e-3}},
    ),
    judge(
        "seiche-schedule",
        "STEP_TOO_SHORT",
        Seiche,
        SEICHE | {"schedule": partial(lr_scheduler.ExponentialLR, gamma=0.9985)},
        {"schedule": partial(lr_scheduler.ExponentialLR, gamma=0.95)},
    ),
    judge(
        "plume-present",
        "POINTS",
        Plume,
        PLUME | {"spread": 0.15, "dispersion": 0.01},
        {"present": 1200},
    ),
    judge("weir-reach", "POINTS", Backwater, WEIR, {"points": grid(-300.0, 0.0, 40)}),
    judge("soil-narrow", "TOO_NARROW", SoilHeat, SOIL, {"net": {"width": 2}}),
    judge("vortices-narrow", "TOO_NARROW", Vortices, VORTEX, {"net": {"width": 3}}),
    judge("ekman-leaps", "STEP_TOO_LARGE", Ekman, EKMAN, {"optim": adam(0.5)}),
    judge(
        "lake-leaps",
        "STEP_TOO_LARGE",
        Lake,
        LAKE | {"optim": partial(torch.optim.RMSprop, lr=3e-3)},
        {"optim": partial(torch.optim.RMSprop, lr=0.3)},
    ),
    judge("shaking-modulus", "IMBALANCE", Shaking, SHAKE, {"unit": 1e-4}),
    judge("soil-seconds", "IMBALANCE", SoilHeat, SOIL, {"residual": 1 / 86400}),
    judge(
        "algae-bloom",
        "CAUSALITY",
        Evolution,
        {
            "rates": algae,
            "start": (0.1,),
            "days": 10.0,
            "spread": 1500,
            "steps": 2000,
            "net": {"scaled": True},
            "points": grid(0.0, 10.0, 100),
        },
        {"spread": 0},
    ),
    judge(
        "pond-flushed",
        "CAUSALITY",
        Evolution,
        {
            "rates": pond,
            "start": (1.0, 0.15),
            "days": 10.0,
            "spread": 1500,
            "steps": 2000,
            "net": {"scaled": True},
            "points": grid(0.0, 10.0, 100),
        },
        {"spread": 0},
    ),
    judge(
        "channel-probe",
        "CONTRADICTION",
        Channel,
        CHANNEL | {"probe": True},
        {"sign": -1.0},
    ),
    judge(
        "barometer-feet",
        "CONTRADICTION",
        Barometer,
        {
            "steps": 1200,
            "net": {"scaled": True, "out": lambda p: 1e5 * p},
            "sonde": 1.0,
            "weights": {"sonde": 10.0},
        },
        {"sonde": 0.3048},
    ),
    judge(
        "trace-fast",
        "SPECTRAL_BIAS",
        Trace,
        {"steps": 1500, "net": {"features": 40.0}, "points": grid(0.0, 1.0, 150)},
        {"net": {"features": 0.0}},
    ),
    judge(
        "ripples-fast",
        "SPECTRAL_BIAS",
        Ripples,
        {"steps": 1500, "net": {"features": 50.0}, "points": uniform(200, (0.0, 1.0))},
        {"net": {"features": 0.0}},
    ),
]

HEALTHY = [
    judge("duct-newton", "CLEAN", Duct, DUCT | {"steps": 20, "optim": lbfgs()}),
    judge(
        "oxygen-gauged",
        "CLEAN",
        Streeter,
        {
            "steps": 1500,
            **SCALED,
            "gauged": True,
            "optim": partial(torch.optim.AdamW, lr=6e-3),
            "schedule": partial(lr_scheduler.CosineAnnealingLR, T_max=1500),
        },
    ),
    judge("plume-batches", "CLEAN", Plume, PLUME | {"batch": 100, "steps": 1400}),
    judge(
        "buoy-short",
        "CLEAN",
        Evolution,
        {"rates": buoy, "start": (0.8, 0.0), "days": 2.5, "steps": 1500, "size": 2.0, **SCALED},
    ),
    judge("vortices-soon", "EARLY", Vortices, VORTEX | {"steps": 60}),
    judge("dupuit-soon", "EARLY", Dupuit, DUPUIT | {"steps": 80}),
    judge("seiche-soon", "EARLY", Seiche, SEICHE | {"steps": 60}),
    judge("rouse-soon", "EARLY", Rouse, {"steps": 150, **SCALED}),
]
