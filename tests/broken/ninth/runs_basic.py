"""Runs: numbers that overflow, gradients that are missing, shapes, points and scales."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.broken.networks import adam, sgd, uniform
from tests.broken.ninth.fields import Bratu, Membrane, Sturm, WatchedEdge
from tests.broken.ninth.inverse import Kinetics, Spring
from tests.broken.ninth.lines import Beam, Duffing, FlatForce, Helmholtz, Layer, Warming
from tests.broken.ninth.moving import (
    FirstOrderOnly,
    Gompertz,
    OnlyPosition,
    Pendulum,
    VanDerPol,
)
from tests.broken.ninth.planes import Elastic, Fisher, String
from tests.broken.run import Run

SQUARE = ((0.0, 1.0), (0.0, 1.0))


def positive(u: torch.Tensor) -> torch.Tensor:
    return F.softplus(u) + 1e-6


def times(scale: float) -> Any:
    return lambda u: scale * u


def wide_weights(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=15.0)


def large_biases(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear) and layer.out_features > 1:
        nn.init.constant_(layer.bias, 20.0)


NODES = torch.rand(2000, 2, generator=torch.Generator().manual_seed(7))


def any_nodes() -> torch.Tensor:
    return NODES[torch.randint(NODES.shape[0], (150,))].clone()


def wrong_axis() -> torch.Tensor:
    return NODES[torch.randint(NODES.shape[1], (150,))].clone()


def any_times() -> torch.Tensor:
    return 3 * torch.rand(60, 1)


def whole_times() -> torch.Tensor:
    return torch.randint(3, (60, 1)).float()


BASIC = [
    Run(
        "ninth-bratu-descent",
        "DIVERGED",
        "judge",
        Bratu,
        {"steps": 1500, "optim": sgd(5e-3, momentum=0.9)},
        {"optim": sgd(0.5, momentum=0.9)},
    ),
    Run(
        "ninth-tumour",
        "DIVERGED",
        "judge",
        Gompertz,
        {"steps": 1200, "net": {"out": positive}},
        {"net": {"out": None}},
    ),
    Run(
        "ninth-pendulum-slopes",
        "DETACHED",
        "judge",
        Pendulum,
        {"steps": 1500, "begin": 5.0},
        {"problem": FirstOrderOnly},
    ),
    Run(
        "ninth-membrane-edge",
        "DETACHED",
        "judge",
        Membrane,
        {"steps": 1000, "optim": adam(5e-3), "edge_weight": 1.0},
        {"problem": WatchedEdge},
    ),
    Run(
        "ninth-beam-activation",
        "DERIVATIVE_VANISHES",
        "judge",
        Beam,
        {"steps": 1000, "net": {"width": 20}},
        {"net": {"activation": "square_of_relu"}},
    ),
    Run(
        "ninth-plate-activation",
        "DERIVATIVE_VANISHES",
        "judge",
        Elastic,
        {"steps": 800, "optim": adam(5e-3), "points": uniform(120, *SQUARE)},
        {"net": {"activation": "prelu"}},
    ),
    Run(
        "ninth-van-der-pol-optimizer",
        "NOT_TRAINED",
        "judge",
        VanDerPol,
        {"steps": 1500, "net": {"width": 24}, "optim": adam(5e-3)},
        {"problem": OnlyPosition},
    ),
    Run(
        "ninth-spring-coefficients",
        "NOT_TRAINED",
        "judge",
        Spring,
        {"steps": 1500, "optim": adam(5e-3)},
        {"alone": True},
    ),
    Run(
        "ninth-helmholtz-source",
        "BROADCAST",
        "judge",
        Helmholtz,
        {"steps": 1200, "waves": (1, 2)},
        {"problem": FlatForce},
    ),
    Run(
        "ninth-kinetics-table",
        "BROADCAST",
        "judge",
        Kinetics,
        {"steps": 1200, "optim": adam(5e-3)},
        {"flat": True},
    ),
    Run(
        "ninth-duffing-times",
        "REPEATED_POINTS",
        "judge",
        Duffing,
        {
            "steps": 1500,
            "span": 3.0,
            "beta": 5.0,
            "net": {"scaled": True},
            "points": any_times,
            "fresh": True,
        },
        {"points": whole_times},
    ),
    Run(
        "ninth-membrane-nodes",
        "REPEATED_POINTS",
        "judge",
        Membrane,
        {"steps": 1000, "ansatz": True, "pool": any_nodes, "optim": adam(5e-3)},
        {"pool": wrong_axis},
    ),
    Run(
        "ninth-lake",
        "INPUTS_NOT_SCALED",
        "judge",
        Warming,
        {"steps": 1500, "begin": 1950.0, "r": 0.1, "span": 40.0, "net": {"scaled": True}},
        {"net": {"scaled": False}},
    ),
    Run(
        "ninth-micrometres",
        "INPUTS_NOT_SCALED",
        "judge",
        Layer,
        {"steps": 1500, "length": 1e-4, "eps": 0.2, "net": {"scaled": True}},
        {"net": {"scaled": False}},
    ),
    Run(
        "ninth-fisher-weights",
        "SATURATED",
        "judge",
        Fisher,
        {"steps": 1000, "net": {"scaled": True}, "points": uniform(150, (-5.0, 8.0), (0.0, 2.0))},
        {"net": {"init": wide_weights}},
    ),
    Run(
        "ninth-duffing-biases",
        "SATURATED",
        "judge",
        Duffing,
        {"steps": 1500, "net": {"scaled": True}, "span": 3.0},
        {"net": {"init": large_biases}},
    ),
    Run(
        "ninth-eigenvalue",
        "NOTHING_TO_FIND",
        "judge",
        Sturm,
        {"steps": 1500},
        {"normed": False},
    ),
    Run(
        "ninth-string",
        "NOTHING_TO_FIND",
        "judge",
        String,
        {"steps": 1000, "points": uniform(150, *SQUARE), "optim": adam(5e-3)},
        {"without": ("pluck",)},
    ),
    Run(
        "ninth-furnace",
        "OUTPUTS_NOT_SCALED",
        "judge",
        Warming,
        {"steps": 1500, "level": 1.5e3, "net": {"scaled": True, "out": times(1.5e3)}},
        {"net": {"out": None}},
    ),
    Run(
        "ninth-tenths-of-millimetres",
        "OUTPUTS_NOT_SCALED",
        "judge",
        Elastic,
        {
            "steps": 800,
            "size": 1e-4,
            "points": uniform(120, *SQUARE),
            "optim": partial(torch.optim.AdamW, lr=5e-3),
            "net": {"out": times(1e-4)},
        },
        {"net": {"out": None}},
    ),
]
