"""Networks that are too narrow, or too slow in what oscillates fast."""

from __future__ import annotations

from typing import Any

import torch

from tests.broken.networks import adam, grid, lbfgs, uniform
from tests.broken.odes import Fit, Oscillator, Slope, waves
from tests.broken.pdes import Poisson, Square
from tests.broken.run import Run

UNIT = ((0.0, 1.0), (0.0, 1.0))


def narrow(width: int, **other: Any) -> dict[str, Any]:
    return {"net": {"width": width, **other}}


NARROW = [
    Run(
        "narrow-fit-two",
        "TOO_NARROW",
        "set",
        Fit,
        {
            "u": waves(2),
            "points": grid(0, 1, 100),
            "steps": 40,
            "optim": lbfgs(),
            "net": {"width": 32},
        },
        narrow(2),
    ),
    Run(
        "narrow-poisson",
        "TOO_NARROW",
        "set",
        Poisson,
        {
            "a": 2.0,
            "steps": 2000,
            "weights": {"bc": 100},
            "points": grid(-1, 1, 80),
            "net": {"width": 32},
        },
        narrow(2),
    ),
    Run(
        "narrow-square-two",
        "TOO_NARROW",
        "set",
        Square,
        {
            "steps": 1500,
            "weights": {"walls": 100},
            "points": uniform(200, *UNIT),
            "net": {"width": 32},
        },
        narrow(2),
    ),
    Run(
        "narrow-fit-plane",
        "TOO_NARROW",
        "set",
        Fit,
        {
            "u": lambda x: torch.sin(6 * x[:, :1]) * torch.cos(5 * x[:, 1:]),
            "dim": 2,
            "steps": 1500,
            "optim": adam(1e-2),
        },
        narrow(2, depth=1),
    ),
    Run(
        "narrow-slope",
        "TOO_NARROW",
        "set",
        Slope,
        {
            "u": lambda t: 1 - torch.cos(9 * t) / 3,
            "points": grid(0, 2, 100),
            "steps": 2500,
            "optim": adam(1e-2),
        },
        narrow(2, depth=1),
    ),
    Run(
        "narrow-oscillator",
        "TOO_NARROW",
        "set",
        Oscillator,
        {"omega": 3.0, "span": 4.0, "points": grid(0, 4, 80), "steps": 40, "optim": lbfgs()},
        narrow(2, depth=1),
    ),
]

FAST = {"net": {"features": 0.0}}

SPECTRAL = [
    Run(
        "spectral-fit",
        "SPECTRAL_BIAS",
        "set",
        Fit,
        {"u": waves(30), "points": grid(0, 1, 300), "steps": 1500, "net": {"features": 60.0}},
        FAST,
    ),
    Run(
        "spectral-slope",
        "SPECTRAL_BIAS",
        "set",
        Slope,
        {
            "u": waves(10, amplitude=1.0),
            "span": 1.0,
            "points": grid(0, 1, 200),
            "steps": 2000,
            "net": {"features": 30.0, "width": 50},
        },
        FAST,
    ),
    Run(
        "spectral-poisson",
        "SPECTRAL_BIAS",
        "set",
        Poisson,
        {
            "a": 16.0,
            "points": grid(-1, 1, 200),
            "steps": 2000,
            "weights": {"bc": 1e4},
            "net": {"features": 20.0},
        },
        FAST,
    ),
    Run(
        "spectral-fit-image",
        "SPECTRAL_BIAS",
        "set",
        Fit,
        {
            "u": lambda x: torch.sin(25 * x[:, :1]) * torch.sin(25 * x[:, 1:]),
            "dim": 2,
            "points": uniform(600, *UNIT),
            "steps": 1500,
            "net": {"features": 12.0, "width": 48},
        },
        FAST,
    ),
    Run(
        "spectral-fit-batches",
        "SPECTRAL_BIAS",
        "set",
        Fit,
        {
            "u": waves(14, 23),
            "points": grid(0, 1, 300),
            "batch": 100,
            "steps": 1500,
            "optim": adam(2e-3),
            "net": {"features": 50.0, "activation": "silu"},
        },
        FAST,
    ),
    Run(
        "spectral-decay-forced",
        "SPECTRAL_BIAS",
        "set",
        Slope,
        {
            "u": lambda t: torch.cos(70 * t) / 2 + t,
            "span": 1.0,
            "points": grid(0, 1, 200),
            "steps": 1500,
            "weights": {"residual": 1e-2},
            "net": {"features": 40.0},
        },
        FAST,
    ),
]

CAPACITY = [*NARROW, *SPECTRAL]
