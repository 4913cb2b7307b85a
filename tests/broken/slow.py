"""Terms that keep each other from being learned, and times in the wrong order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.broken.healthy import oscillating, predator_prey
from tests.broken.networks import adam, grid, lbfgs, uniform
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
        "set",
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
        "set",
        Inverse,
        {"steps": 1500},
        {"weights": {"data": 1e-5}},
    ),
    Run(
        "imbalance-heat-equation",
        "IMBALANCE",
        "set",
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
        "set",
        Oscillator,
        {"steps": 1500, "start": (1.0, 0.3)},
        {"weights": {"position": 1e-5}},
    ),
]


def van_der_pol(u: Tensor) -> Tensor:
    x, v = u.split(1, dim=1)
    return torch.cat([v, 2 * (1 - x**2) * v - x], dim=1)


def pendulum(u: Tensor) -> Tensor:
    angle, rate = u.split(1, dim=1)
    return torch.cat([rate, -9 * torch.sin(angle) - 0.2 * rate], dim=1)


def late(
    name: str, half: Any, rhs: Any, start: tuple[float, ...], window: float, span: float
) -> Run:
    """A long time at once; the twin is the first of several windows of time."""
    settings = {
        "rhs": rhs,
        "start": start,
        "span": window,
        "points": grid(0, window, 100),
        "steps": 60,
        "optim": lbfgs(),
        "net": {"scaled": True},
    }
    at_once = {"span": span, "points": grid(0, span, 100)}
    return Run(f"causality-{name}", "CAUSALITY", half, System, settings, at_once)


CAUSALITY = [
    late("van-der-pol", "set", van_der_pol, (1.0, 0.0), 1.5, 6.0),
    late("van-der-pol-long", "set", van_der_pol, (0.5, 0.0), 1.5, 9.0),
    late("pendulum", "set", pendulum, (2.0, 0.0), 1.0, 8.0),
    late("oscillating", "set", oscillating, (1.0, 0.0), 2.0, 16.0),
    late("predator-prey", "set", predator_prey, (2.0, 0.5), 3.0, 25.0),
    late("pendulum-small", "set", pendulum, (1.0, 0.0), 1.0, 10.0),
]

SLOW = [*IMBALANCE, *CAUSALITY]
