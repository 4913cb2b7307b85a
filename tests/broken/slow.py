"""Trainings that every step of the code allows and that fail all the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.broken.healthy import oscillating, predator_prey
from tests.broken.networks import adam, grid, lbfgs, uniform
from tests.broken.odes import Decay, Fit, Inverse, Oscillator, Slope, System, waves
from tests.broken.pdes import Burgers, Heat, Poisson, Square, Wave
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
        "judge",
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
        "narrow-advection-bottleneck",
        "TOO_NARROW",
        "judge",
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
        "judge",
        Oscillator,
        {"omega": 3.0, "span": 4.0, "points": grid(0, 4, 80), "steps": 40, "optim": lbfgs()},
        narrow(2, depth=1),
    ),
]

IMBALANCE = [
    Run(
        "imbalance-poisson",
        "IMBALANCE",
        "set",
        Poisson,
        {
            "a": 4.0,
            "steps": 3000,
            "optim": adam(1e-3),
            "net": {"width": 50},
            "weights": {"bc": 1e4},
        },
        {"weights": {}},
    ),
    Run(
        "imbalance-wave",
        "IMBALANCE",
        "judge",
        Wave,
        {
            "c": 2.0,
            "steps": 2000,
            "weights": {"u0": 100, "walls": 100, "v0": 10},
            "points": uniform(200, *UNIT),
        },
        {"weights": {}},
    ),
    Run(
        "imbalance-decay-start",
        "IMBALANCE",
        "set",
        Decay,
        {"k": 3.0, "steps": 1500},
        {"weights": {"ic": 1e-5}},
    ),
    Run(
        "imbalance-data",
        "IMBALANCE",
        "judge",
        Inverse,
        {"steps": 1500},
        {"weights": {"data": 1e-5}},
    ),
    Run(
        "imbalance-heat-equation",
        "IMBALANCE",
        "judge",
        Heat,
        {"kappa": 0.3, "steps": 1500, "optim": adam(4e-3)},
        {"weights": {"pde": 1e-5}},
    ),
    Run(
        "imbalance-square-walls",
        "IMBALANCE",
        "set",
        Square,
        {"steps": 1500, "weights": {"walls": 100}, "points": uniform(150, *UNIT)},
        {"weights": {"walls": 1e-2}},
    ),
    Run(
        "imbalance-burgers",
        "IMBALANCE",
        "set",
        Burgers,
        {"steps": 1500, "optim": adam(5e-3)},
        {"weights": {"known": 1e-5}},
    ),
    Run(
        "imbalance-oscillator-position",
        "IMBALANCE",
        "judge",
        Oscillator,
        {"steps": 1500, "start": (1.0, 0.3)},
        {"weights": {"position": 1e-5}},
    ),
]


def bistable(u: Tensor) -> Tensor:
    return 10 * (u - u**3)


def logistic(u: Tensor) -> Tensor:
    return 8 * u * (1 - u)


def van_der_pol(u: Tensor) -> Tensor:
    x, v = u.split(1, dim=1)
    return torch.cat([v, 2 * (1 - x**2) * v - x], dim=1)


def pendulum(u: Tensor) -> Tensor:
    angle, rate = u.split(1, dim=1)
    return torch.cat([rate, -9 * torch.sin(angle) - 0.2 * rate], dim=1)


def lorenz(u: Tensor) -> Tensor:
    x, y, z = u.split(1, dim=1)
    return torch.cat([10 * (y - x), x * (2.8 - z) * 10 - y, 10 * x * y - 8 / 3 * z], dim=1)


GROW: dict[str, Any] = {"steps": 5000, "grow": 3500, "optim": adam(3e-3), "points": None}
AT_ONCE = {"grow": 0}
SCALED = {"scaled": True}


def long(n: int, span: float, **options: Any) -> dict[str, Any]:
    """Points of a long time, learned from its beginning on."""
    return {
        "span": span,
        "points": grid(0, span, n),
        "steps": 5000,
        "grow": 3500,
        "net": {"scaled": True, "width": 40},
        **options,
    }


CAUSALITY = [
    Run(
        "causality-bistable",
        "CAUSALITY",
        "set",
        System,
        long(100, 2.0, rhs=bistable, start=(0.01,)),
        AT_ONCE,
    ),
    Run(
        "causality-logistic",
        "CAUSALITY",
        "judge",
        System,
        long(100, 2.0, rhs=logistic, start=(0.005,)),
        AT_ONCE,
    ),
    Run(
        "causality-van-der-pol",
        "CAUSALITY",
        "judge",
        System,
        long(150, 10.0, rhs=van_der_pol, start=(1.0, 0.0)),
        AT_ONCE,
    ),
    Run(
        "causality-pendulum",
        "CAUSALITY",
        "set",
        System,
        long(150, 8.0, rhs=pendulum, start=(2.0, 0.0)),
        AT_ONCE,
    ),
    Run(
        "causality-predator-prey",
        "CAUSALITY",
        "set",
        System,
        long(150, 20.0, rhs=predator_prey, start=(2.0, 0.5), hard=True),
        AT_ONCE,
    ),
    Run(
        "causality-oscillating",
        "CAUSALITY",
        "judge",
        System,
        long(150, 12.0, rhs=oscillating, start=(1.0, 0.0)),
        AT_ONCE,
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
        "judge",
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
        "judge",
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
        "judge",
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

SLOW = [*NARROW, *IMBALANCE, *CAUSALITY, *SPECTRAL]
