"""Scales: inputs, outputs and weights far from one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.broken.networks import adam, grid, lbfgs, uniform
from tests.broken.odes import Decay, Fit, Oscillator, Slope, waves
from tests.broken.pdes import Advection, Heat, Poisson, Square
from tests.broken.run import Run

UNIT = ((0.0, 1.0), (0.0, 1.0))
POISSON: dict[str, Any] = {"steps": 1500, "weights": {"bc": 100}}
RAW = {"net": {"scaled": False}}


def times(factor: float, shift: float = 0.0) -> Any:
    """Outputs in other units."""
    return lambda u: factor * u + shift


INPUTS = [
    Run(
        "inputs-years",
        "INPUTS_NOT_SCALED",
        "set",
        Decay,
        {"start": 1990.0, "span": 30.0, "steps": 1000, "net": {"scaled": True}},
        RAW,
    ),
    Run(
        "inputs-metres",
        "INPUTS_NOT_SCALED",
        "set",
        Heat,
        {"length": 500.0, "steps": 1500, "optim": adam(4e-3), "net": {"scaled": True}},
        RAW,
    ),
    Run(
        "inputs-milliseconds",
        "INPUTS_NOT_SCALED",
        "set",
        Decay,
        {"span": 1e-4, "k": 4.0, "steps": 1000, "net": {"scaled": True}},
        RAW,
    ),
    Run(
        "inputs-kelvin",
        "INPUTS_NOT_SCALED",
        "set",
        Decay,
        {
            "start": 273.0,
            "span": 50.0,
            "k": 3.0,
            "steps": 60,
            "optim": lbfgs(),
            "net": {"scaled": True},
        },
        RAW,
    ),
    Run(
        "inputs-micrometres",
        "INPUTS_NOT_SCALED",
        "set",
        Decay,
        {"start": 0.0, "span": 2e-6, "k": 3.0, "steps": 1000, "batch": 20, "net": {"scaled": True}},
        RAW,
    ),
    Run(
        "inputs-seconds-of-a-day",
        "INPUTS_NOT_SCALED",
        "set",
        Fit,
        {
            "u": lambda t: torch.sin(t * 6.0 / 86400.0),
            "span": 86400.0,
            "points": grid(0, 86400, 60),
            "steps": 1200,
            "net": {"scaled": True, "activation": "silu"},
        },
        RAW,
    ),
]


def normal(deviation: float) -> Any:
    def init(layer: nn.Module) -> None:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=deviation)

    return init


def biased(low: float, high: float) -> Any:
    def init(layer: nn.Module) -> None:
        if isinstance(layer, nn.Linear) and layer.out_features > 1:
            nn.init.uniform_(layer.bias, low, high)

    return init


def initialised(init: Any) -> dict[str, Any]:
    return {"net": {"init": init}}


SATURATED = [
    Run(
        "saturated-normal-weights",
        "SATURATED",
        "set",
        Poisson,
        POISSON,
        initialised(normal(10.0)),
    ),
    Run(
        "saturated-biases",
        "SATURATED",
        "set",
        Decay,
        {"steps": 1000},
        initialised(biased(15.0, 25.0)),
    ),
    Run(
        "saturated-heat-uniform",
        "SATURATED",
        "set",
        Heat,
        {"steps": 1200, "optim": adam(4e-3)},
        initialised(normal(12.0)),
    ),
    Run(
        "saturated-sigmoid",
        "SATURATED",
        "set",
        Slope,
        {"steps": 2000, "optim": adam(1e-2), "net": {"activation": "sigmoid"}},
        initialised(biased(-30.0, -15.0)),
    ),
    Run(
        "saturated-dead-relu",
        "SATURATED",
        "set",
        Fit,
        {"u": waves(), "steps": 1500, "net": {"activation": "relu"}},
        initialised(biased(-6.0, -3.0)),
    ),
    Run(
        "saturated-steep-activation",
        "SATURATED",
        "set",
        Oscillator,
        {"steps": 1500},
        {"net": {"activation": "steep"}},
        note="tanh(40 x), as adaptive activations with too large a factor",
    ),
]

OUTPUTS = [
    Run(
        "outputs-pascal",
        "OUTPUTS_NOT_SCALED",
        "set",
        Decay,
        {
            "size": 1e5,
            "steps": 1200,
            "net": {"out": times(1e5)},
            "weights": {"pde": 1e-10, "ic": 1e-10},
        },
        {"net": {"out": None}, "weights": {}},
    ),
    Run(
        "outputs-displacement",
        "OUTPUTS_NOT_SCALED",
        "set",
        Poisson,
        {
            "size": 1e-6,
            "steps": 1500,
            "net": {"out": times(1e-6)},
            "weights": {"pde": 1e12, "bc": 1e14},
        },
        {"net": {"out": None}, "weights": {"bc": 100}},
    ),
    Run(
        "outputs-square-large",
        "OUTPUTS_NOT_SCALED",
        "set",
        Square,
        {
            "size": 1e4,
            "steps": 1500,
            "points": uniform(150, *UNIT),
            "net": {"out": times(1e4)},
            "weights": {"inside": 1e-8, "walls": 1e-6},
        },
        {"net": {"out": None}, "weights": {"walls": 100}},
    ),
    Run(
        "outputs-fit-kelvin",
        "OUTPUTS_NOT_SCALED",
        "set",
        Fit,
        {
            "u": lambda t: 3e3 * torch.sin(6 * t),
            "steps": 1500,
            "net": {"out": times(3e3)},
            "weights": {"data": 1e-7},
        },
        {"net": {"out": None}, "weights": {}},
    ),
    Run(
        "outputs-advection-small",
        "OUTPUTS_NOT_SCALED",
        "set",
        Advection,
        {
            "size": 1e-5,
            "steps": 2000,
            "optim": adam(5e-3),
            "net": {"out": times(1e-5), "depth": 3},
            "weights": {"transport": 1e10, "initial": 1e10, "inflow": 1e10},
        },
        {"net": {"out": None}, "weights": {}},
    ),
    Run(
        "outputs-current",
        "OUTPUTS_NOT_SCALED",
        "set",
        Decay,
        {
            "size": 1e6,
            "k": 3.0,
            "steps": 1200,
            "batch": 20,
            "net": {"out": times(1e6), "activation": "silu"},
            "weights": {"pde": 1e-12, "ic": 1e-12},
        },
        {"net": {"out": None}, "weights": {}},
    ),
]

SCALES = [*INPUTS, *SATURATED, *OUTPUTS]
