"""Rods, beams, columns, chirps."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from tests.broken.others import chirps, rods
from tests.broken.others.graded import case
from tests.broken.others.optimizers import adam
from tests.broken.run import Run

ROD: dict[str, Any] = {"steps": 1500}

RODS: list[Run] = [
    case("rod-no-graph", "DETACHED", rods.Rod, ROD, {"problem": rods.RodWithoutGraph}),
    case("rod-tiny-h", "ROUNDING", rods.RodByDifferences, ROD, {"h": 2e-5}),
    case("rod-leaky", "DERIVATIVE_VANISHES", rods.Rod, ROD, {"act": nn.functional.leaky_relu}),
    case(
        "rod-four-points",
        "POINTS",
        rods.Rod,
        ROD | {"wave": (0.6, 3)},
        {"x": lambda: torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])},
    ),
    case(
        "chirp",
        "SPECTRAL_BIAS",
        chirps.Chirp,
        {"steps": 1500, "a": 20.0, "b": 70.0, "octaves": 6},
        {"octaves": 0},
    ),
    case("phasor", "CLEAN", chirps.Phasor, {"steps": 1500}),
    case("rod-no-walls", "IMBALANCE", rods.Rod, ROD, {"bc": 1e-5}),
    case(
        "rod-nadam-short",
        "STEP_TOO_SHORT",
        rods.Rod,
        ROD,
        {"optim": partial(torch.optim.NAdam, lr=1e-8)},
    ),
    case("rod", "CLEAN", rods.Rod, ROD | {"act": torch.nn.functional.mish, "bc": 100.0}),
    case("rod-early", "EARLY", rods.Rod, ROD | {"steps": 200, "optim": adam(2e-4)}),
    case("beam-cubes", "DERIVATIVE_VANISHES", rods.Beam, {"steps": 1200}, {"act": rods.Cube}),
    case(
        "beam-millimetres",
        "OUTPUTS_NOT_SCALED",
        rods.Beam,
        {"steps": 1200, "q": 7.68e-3, "unit": 1e-4},
        {"unit": 1.0},
    ),
    case(
        "beam-unclamped",
        "NOT_UNIQUE",
        rods.Beam,
        {"steps": 1200, "q": 300.0, "clamped": True, "turn": 1.0},
        {"turn": 0.0},
    ),
    case(
        "clamped-beam",
        "CLEAN",
        rods.Beam,
        {"steps": 1200, "act": nn.Softplus, "q": 300.0, "clamped": True, "turn": 1.0},
    ),
    case(
        "column-list", "NOT_TRAINED", rods.Column, {"steps": 1500}, {"problem": rods.ListedColumn}
    ),
    case("column-flux", "CONTRADICTION", rods.Column, {"steps": 1500}, {"flux": (2.0, -2.0)}),
    case("column-one-wall", "NOT_UNIQUE", rods.Column, {"steps": 1500}, {"at_wall": (1.0,)}),
]
