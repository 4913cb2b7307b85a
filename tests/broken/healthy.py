"""Healthy runs, and such that were stopped long before their time."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from pinn_ntk.callbacks import NTKBalancer
from tests.broken.networks import adam, grid, lbfgs, sgd, uniform, xavier
from tests.broken.odes import Decay, Fit, Inverse, Oscillator, Slope, System, waves
from tests.broken.pdes import Advection, Burgers, Heat, Mixed, Poisson, Square, Wave
from tests.broken.run import Run


def oscillating(u: Tensor) -> Tensor:
    """A harmonic oscillator of frequency 2 as two equations of first order."""
    return torch.stack([2 * u[:, 1], -2 * u[:, 0]], dim=1)


def predator_prey(u: Tensor) -> Tensor:
    return torch.stack([u[:, 0] - u[:, 0] * u[:, 1], u[:, 0] * u[:, 1] - u[:, 1]], dim=1)


def two_rates(module: Any) -> list[dict[str, Any]]:
    """The network, and the unknown coefficient at a higher rate."""
    return [{"params": module.net.parameters()}, {"params": [module.k], "lr": 2e-2}]


def balancing() -> list[pl.Callback]:
    return [NTKBalancer(every_n_steps=100)]


SQUARE = ((0.0, 1.0), (0.0, 1.0))

CLEAN = [
    Run("clean-heat-adam", "CLEAN", "set", Heat, {"steps": 1200, "optim": adam(4e-3)}),
    Run("clean-decay-mini-batches", "CLEAN", "set", Decay, {"steps": 1200, "batch": 10}),
    Run(
        "clean-poisson-lbfgs",
        "CLEAN",
        "set",
        Poisson,
        {"steps": 60, "optim": lbfgs(), "weights": {"bc": 100}},
    ),
    Run(
        "clean-oscillator-lbfgs-float64",
        "CLEAN",
        "set",
        Oscillator,
        {"steps": 30, "optim": lbfgs(), "dtype": torch.float64, "net": {"activation": "sin"}},
    ),
    Run(
        "clean-heat-resampled",
        "CLEAN",
        "set",
        Heat,
        {
            "steps": 1500,
            "fresh": True,
            "points": uniform(100, *SQUARE),
            "net": {"activation": "silu"},
        },
    ),
    Run(
        "clean-system", "CLEAN", "set", System, {"rhs": oscillating, "start": (1, 0), "steps": 1500}
    ),
    Run(
        "clean-predator-prey-hard",
        "CLEAN",
        "set",
        System,
        {
            "rhs": predator_prey,
            "start": (1.5, 0.7),
            "hard": True,
            "steps": 1500,
            "net": {"scaled": True},
        },
    ),
    Run(
        "clean-inverse-two-rates",
        "CLEAN",
        "set",
        Inverse,
        {"steps": 1500, "trained": two_rates},
    ),
    Run("clean-inverse-lbfgs", "CLEAN", "set", Inverse, {"steps": 25, "optim": lbfgs(max_iter=10)}),
    Run("clean-two-networks", "CLEAN", "set", Mixed, {"steps": 2000, "weights": {"ends": 10}}),
    Run(
        "clean-poisson-balanced",
        "CLEAN",
        "set",
        Poisson,
        {"a": 2, "steps": 2000, "net": {"width": 50}, "callbacks": balancing},
    ),
    Run(
        "clean-wave-balanced",
        "CLEAN",
        "set",
        Wave,
        {"steps": 1500, "callbacks": balancing, "points": uniform(200, *SQUARE)},
    ),
    Run(
        "clean-square-clipped",
        "CLEAN",
        "set",
        Square,
        {"steps": 2000, "weights": {"walls": 100}, "trainer": {"gradient_clip_val": 1.0}},
    ),
    Run(
        "clean-burgers-scheduled",
        "CLEAN",
        "set",
        Burgers,
        {
            "steps": 1500,
            "optim": adam(1e-2),
            "schedule": partial(torch.optim.lr_scheduler.StepLR, step_size=500, gamma=0.5),
        },
    ),
    Run(
        "clean-fit-fourier-features",
        "CLEAN",
        "set",
        Fit,
        {"u": waves(10), "points": grid(0, 1, 200), "steps": 1000, "net": {"features": 20.0}},
    ),
    Run(
        "clean-advection",
        "CLEAN",
        "set",
        Advection,
        {"steps": 2000, "optim": adam(5e-3), "net": {"depth": 3, "init": xavier}},
    ),
    Run(
        "clean-decay-descent",
        "CLEAN",
        "set",
        Decay,
        {"steps": 2500, "optim": sgd(0.005), "net": {"width": 64, "depth": 1}},
    ),
    Run("clean-slope-adamw", "CLEAN", "set", Slope, {"steps": 1500, "optim": torch.optim.AdamW}),
]

EARLY = [
    Run(
        "early-heat",
        "EARLY",
        "set",
        Heat,
        {"steps": 1200, "optim": adam(4e-3)},
        {"steps": 80},
    ),
    Run(
        "early-square",
        "EARLY",
        "set",
        Square,
        {"steps": 2000, "weights": {"walls": 100}},
        {"steps": 50},
    ),
    Run(
        "early-poisson-lbfgs",
        "EARLY",
        "set",
        Poisson,
        {"a": 2.0, "steps": 60, "optim": lbfgs(), "weights": {"bc": 100}},
        {"steps": 2},
    ),
    Run(
        "early-advection",
        "EARLY",
        "set",
        Advection,
        {"steps": 2000, "optim": adam(5e-3), "net": {"depth": 3, "init": xavier}},
        {"steps": 100},
    ),
    Run(
        "early-system",
        "EARLY",
        "set",
        System,
        {"rhs": oscillating, "start": (1, 0), "steps": 1500},
        {"steps": 60},
    ),
    Run(
        "early-oscillator-batches",
        "EARLY",
        "set",
        Oscillator,
        {"steps": 1500, "batch": 20, "omega": 3.0},
        {"steps": 60},
    ),
]

HEALTHY = [*CLEAN, *EARLY]
