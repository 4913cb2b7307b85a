"""Runs whose gradients, parameters or points are not what they seem."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.functional import softplus

from tests.broken.networks import adam
from tests.broken.run import Run
from tests.broken.seventh.fields import Conductivity, Wave
from tests.broken.seventh.motions import Spring, Tumour
from tests.broken.seventh.ode_hand import Cooling, Logistic, Pendulum
from tests.broken.seventh.ode_more import Falling, Tank
from tests.broken.seventh.pde_hand import Membrane, Rod
from tests.broken.seventh.pde_more import Box, HeatXT
from tests.broken.seventh.species import TwoSpecies


def run(name: str, cause: str, problem: Any, settings: dict[str, Any], mistake: Any = None) -> Run:
    return Run(f"seventh-{name}", cause, "set", problem, settings, mistake or {})


def large_weights(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, mean=0.0, std=30.0)


def constant_bias(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.uniform_(layer.weight, -0.1, 0.1)
        nn.init.constant_(layer.bias, -1.0)


RUNS_A = [
    run(
        "logistic-descent",
        "DIVERGED",
        Logistic,
        {"steps": 1500, "optimizer": "SGD", "lr": 0.02, "momentum": 0.9, "t1": 4.0, "n0": 0.3},
        {"lr": 10.0},
    ),
    run(
        "tumour-raw",
        "DIVERGED",
        Tumour,
        {"steps": 1200, "net": {"out": softplus, "scaled": True}},
        {"net": {"out": None}},
    ),
    run("coffee-graph", "DETACHED", Cooling, {"steps": 1500, "r": 0.0025}, {"graph": False}),
    run("membrane-item", "DETACHED", Membrane, {"steps": 900}, {"item": True}),
    run("pendulum-relu", "DERIVATIVE_VANISHES", Pendulum, {"steps": 1500}, {"act": nn.ReLU}),
    run(
        "string-leaky",
        "DERIVATIVE_VANISHES",
        Wave,
        {
            "steps": 1400,
            "weights": {"shape": 10, "ends": 10},
            "optim": adam(6e-3),
            "net": {"scaled": True},
        },
        {"net": {"activation": "leaky_relu"}},
    ),
    run("species-one-net", "NOT_TRAINED", TwoSpecies, {"steps": 1200}, {"both": False}),
    run("falling-drag", "NOT_TRAINED", Falling, {"steps": 1200}, {"as_parameter": False}),
    run("coffee-flat", "BROADCAST", Cooling, {"steps": 1500, "r": 0.003}, {"flat": True}),
    run("rod-flat", "BROADCAST", Rod, {"steps": 1000, "waves": 2}, {"flat": True}),
    run("tank-generator", "REPEATED_POINTS", Tank, {"steps": 1500, "n": 2}, {"reseed": True}),
    run("heat-expand", "REPEATED_POINTS", HeatXT, {"steps": 1000}, {"same": True}),
    run(
        "logistic-years",
        "INPUTS_NOT_SCALED",
        Logistic,
        {"steps": 1500, "r": 0.08, "t0": 1950.0, "t1": 2000.0, "n0": 0.3},
        {"normalize": False},
    ),
    run(
        "coffee-seconds",
        "INPUTS_NOT_SCALED",
        Cooling,
        {"steps": 1500, "last": 1200.0, "r": 0.002},
        {"normalize": False},
    ),
    run("rod-init", "SATURATED", Rod, {"steps": 1200, "waves": 2}, {"init": large_weights}),
    run(
        "spring-dead",
        "SATURATED",
        Spring,
        {
            "steps": 1500,
            "span": 3.0,
            "optim": adam(1e-2),
            "net": {"activation": "square_of_relu", "scaled": True},
        },
        {"net": {"init": constant_bias}},
    ),
    run("box-norm", "NOTHING_TO_FIND", Box, {"steps": 1500}, {"normalised": False}),
    run(
        "spring-start",
        "NOTHING_TO_FIND",
        Spring,
        {"steps": 1500, "c": 0.6, "optim": adam(5e-3), "net": {"scaled": True}},
        {"without": ("v_0",)},
    ),
    run("rod-neumann", "NOT_UNIQUE", Rod, {"steps": 1500, "neumann": True}, {"pin": False}),
    run("conductivity", "NOT_UNIQUE", Conductivity, {"steps": 1500}, {"measured": 0}),
]
