"""Terms that keep each other from being learned, and times in the wrong order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.broken.healthy import oscillating, predator_prey
from tests.broken.networks import adam, grid, uniform
from tests.broken.odes import Decay, Inverse, Oscillator, System
from tests.broken.pdes import Burgers, Heat, Poisson, Square, Wave
from tests.broken.run import Run

UNIT = ((0.0, 1.0), (0.0, 1.0))


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

SLOW = [*IMBALANCE, *CAUSALITY]
