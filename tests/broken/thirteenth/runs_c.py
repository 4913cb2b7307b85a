"""Runs of the chemist."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from tests.broken.run import Run
from tests.broken.thirteenth.chemist import (
    Chain,
    Enzyme,
    Order,
    Pellet,
    PlugFlow,
    Reversible,
)
from tests.broken.thirteenth.columns import Chromatography, Membrane, Sphere

ADAM = torch.optim.Adam
FAST: Any = partial(ADAM, lr=5e-3)
LBFGS: Any = partial(torch.optim.LBFGS, line_search_fn="strong_wolfe")


def wide(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=10.0)


CHEMIST = [
    Run(
        "thirteenth-order",
        "DIVERGED",
        "judge",
        Order,
        {"steps": 1000},
        {"positive": False},
    ),
    Run(
        "thirteenth-enzyme",
        "BROADCAST",
        "judge",
        Enzyme,
        {"steps": 1500, "optimizer": FAST},
        {"column": False},
    ),
    Run(
        "thirteenth-plug-flow",
        "SATURATED",
        "judge",
        PlugFlow,
        {"steps": 1000},
        {"net": {"init": wide}},
    ),
    Run(
        "thirteenth-membrane",
        "NOTHING_TO_FIND",
        "judge",
        Membrane,
        {"steps": 1000},
        {"loaded": False},
    ),
    Run(
        "thirteenth-chromatography",
        "POINTS",
        "judge",
        Chromatography,
        {"steps": 1200, "optimizer": FAST},
        {"n_points": 6},
    ),
    Run(
        "thirteenth-pellet",
        "ROUNDING",
        "judge",
        Pellet,
        {"steps": 1200},
        {"h": 1e-5},
    ),
    Run(
        "thirteenth-chain",
        "STEP_TOO_LARGE",
        "judge",
        Chain,
        {"steps": 1200},
        {"optimizer": partial(ADAM, lr=0.5)},
    ),
    Run(
        "thirteenth-reversible",
        "CONTRADICTION",
        "judge",
        Reversible,
        {"steps": 1000},
        {"swapped": True},
    ),
    Run("thirteenth-chain-quick", "EARLY", "judge", Chain, {"steps": 60}),
    Run(
        "thirteenth-sphere",
        "CLEAN",
        "judge",
        Sphere,
        {"steps": 40, "optimizer": LBFGS},
    ),
]
