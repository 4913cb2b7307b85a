"""Steps that are too short, too long, or random."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.optim import lr_scheduler

from tests.broken.healthy import oscillating, predator_prey
from tests.broken.networks import adam, sgd, uniform
from tests.broken.odes import Decay, Oscillator, Slope, System
from tests.broken.pdes import Burgers, Heat, Poisson, Square
from tests.broken.run import Run

UNIT = ((0.0, 1.0), (0.0, 1.0))
POISSON: dict[str, Any] = {"steps": 1500, "weights": {"bc": 100}}
SQUARE: dict[str, Any] = {"steps": 1500, "weights": {"walls": 100}, "points": uniform(150, *UNIT)}
HEAT: dict[str, Any] = {"steps": 1200, "optim": adam(4e-3)}
DECAY: dict[str, Any] = {"steps": 2000, "optim": sgd(0.02)}


def decaying(lr: float, decay: float) -> Any:
    return partial(torch.optim.AdamW, lr=lr, weight_decay=decay)


RANDOM = [
    Run(
        "random-poisson-dropout",
        "RANDOM_OR_DECAY",
        "set",
        Poisson,
        POISSON,
        {"net": {"dropout": 0.2}},
    ),
    Run(
        "random-heat-dropout",
        "RANDOM_OR_DECAY",
        "set",
        Heat,
        {**HEAT, "kappa": 0.3},
        {"net": {"dropout": 0.4}},
    ),
    Run(
        "random-oscillator-noise",
        "RANDOM_OR_DECAY",
        "set",
        Oscillator,
        {"steps": 1500, "omega": 4.0},
        {"net": {"noise": 0.3}},
    ),
    Run(
        "decay-adamw",
        "RANDOM_OR_DECAY",
        "set",
        Slope,
        {"steps": 1500},
        {"optim": decaying(3e-3, 30.0)},
    ),
    Run(
        "decay-poisson-adam",
        "RANDOM_OR_DECAY",
        "set",
        Poisson,
        POISSON,
        {"optim": adam(3e-3, weight_decay=1.0)},
    ),
    Run(
        "decay-descent",
        "RANDOM_OR_DECAY",
        "set",
        Decay,
        DECAY | {"k": 3.0},
        {"optim": sgd(0.02, weight_decay=0.1)},
    ),
    Run(
        "decay-mini-batches",
        "RANDOM_OR_DECAY",
        "set",
        System,
        {"rhs": oscillating, "start": (1, 0), "steps": 1500, "batch": 20},
        {"optim": adam(3e-3, weight_decay=0.1)},
    ),
]


def warmup(step: int) -> float:
    """Of whole numbers: zero until step 10000."""
    return float(step // 10000)


SHORT = [
    Run(
        "short-clipped",
        "STEP_TOO_SHORT",
        "set",
        Decay,
        DECAY,
        {"trainer": {"gradient_clip_val": 1e-4}},
    ),
    Run("short-poisson-adam", "STEP_TOO_SHORT", "set", Poisson, POISSON, {"optim": adam(1e-7)}),
    Run(
        "short-schedule",
        "STEP_TOO_SHORT",
        "set",
        Heat,
        HEAT,
        {"schedule": partial(lr_scheduler.ExponentialLR, gamma=0.9)},
    ),
    Run(
        "short-warmup",
        "STEP_TOO_SHORT",
        "set",
        Oscillator,
        {"steps": 1500},
        {"schedule": partial(lr_scheduler.LambdaLR, lr_lambda=warmup)},
    ),
    Run(
        "short-step-schedule",
        "STEP_TOO_SHORT",
        "set",
        Square,
        SQUARE,
        {"schedule": partial(lr_scheduler.StepLR, step_size=10, gamma=0.5)},
    ),
    Run(
        "short-small-loss",
        "STEP_TOO_SHORT",
        "set",
        Slope,
        {"steps": 2000, "optim": sgd(0.03), "u": lambda t: 1 + torch.sin(t)},
        {"weights": {"residual": 1e-6, "start": 1e-6}},
    ),
    Run(
        "short-adamw",
        "STEP_TOO_SHORT",
        "set",
        System,
        {"rhs": predator_prey, "start": (1.5, 0.7), "steps": 1500, "batch": 20},
        {"optim": partial(torch.optim.AdamW, lr=1e-6)},
    ),
]

CLIPPED: dict[str, Any] = {"trainer": {"gradient_clip_val": 1.0}}

LARGE = [
    Run(
        "large-decay-descent",
        "STEP_TOO_LARGE",
        "set",
        Decay,
        DECAY | CLIPPED,
        {"optim": sgd(1.0)},
        note="clipping keeps it from overflowing",
    ),
    Run("large-poisson-adam", "STEP_TOO_LARGE", "set", Poisson, POISSON, {"optim": adam(0.5)}),
    Run("large-heat-adam", "STEP_TOO_LARGE", "set", Heat, HEAT, {"optim": adam(0.2)}),
    Run(
        "large-rmsprop",
        "STEP_TOO_LARGE",
        "set",
        Oscillator,
        {"steps": 1500, "omega": 3.0},
        {"optim": partial(torch.optim.RMSprop, lr=0.1)},
    ),
    Run(
        "large-momentum",
        "STEP_TOO_LARGE",
        "set",
        Slope,
        {"steps": 2000, "optim": sgd(0.02), "u": lambda t: 1 + torch.sin(t), **CLIPPED},
        {"optim": sgd(2.0, momentum=0.9)},
    ),
    Run(
        "large-mini-batches",
        "STEP_TOO_LARGE",
        "set",
        System,
        {"rhs": predator_prey, "start": (1.5, 0.7), "steps": 1500, "batch": 10},
        {"optim": adam(0.5)},
    ),
    Run(
        "large-burgers-adamw",
        "STEP_TOO_LARGE",
        "set",
        Burgers,
        {"steps": 1200, "optim": adam(5e-3)},
        {"optim": partial(torch.optim.AdamW, lr=0.3)},
    ),
]

STEPS = [*RANDOM, *SHORT, *LARGE]
