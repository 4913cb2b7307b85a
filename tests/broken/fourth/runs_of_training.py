"""Runs: scales, steps, capacity, long times, rounding; and what is healthy or merely short."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, NAdam, RMSprop
from torch.optim.lr_scheduler import ExponentialLR

from tests.broken.fourth.base import Sine, adam
from tests.broken.fourth.finance_and_light import Call, Guide, Signal, carrier
from tests.broken.fourth.heat import Fin, Slab
from tests.broken.fourth.mechanics import Beam, Membrane, MixedBeam, Pendulum
from tests.broken.fourth.networks_and_tanks import Circuit, Kinetics, Settling, Tank
from tests.broken.fourth.populations import Delay, Epidemic, Hunters
from tests.broken.fourth.runs_of_structure import (
    CIRCUIT,
    KINETICS,
    MEMBRANE,
    SIGNAL,
    SLAB,
    broken,
)
from tests.broken.run import Run

EPIDEMIC: dict[str, Any] = {"steps": 1500}
CALL: dict[str, Any] = {"steps": 800, "opt": adam(5e-3)}
GUIDE: dict[str, Any] = {"steps": 1500}
TANK: dict[str, Any] = {"steps": 1200}
PENDULUM: dict[str, Any] = {"steps": 1500}
BIG: dict[str, Any] = {"people": 5e4, "unit": 5e4, "steps": 1500}
HOT: dict[str, Any] = {"base": 900.0, "unit": 900.0, "steps": 1200}


def steep(layer: nn.Module) -> None:
    """Weights as somebody sets them who means their variance to be that of the data."""
    if isinstance(layer, nn.Linear) and layer.out_features > 1:
        nn.init.normal_(layer.weight, std=30.0)
        nn.init.uniform_(layer.bias, -30.0, 30.0)


def dead(layer: nn.Module) -> None:
    """A bias that no input lifts above zero."""
    if isinstance(layer, nn.Linear) and layer.out_features > 1:
        nn.init.constant_(layer.bias, -8.0)


SCALES = [
    broken("epidemic-dates", "INPUTS_NOT_SCALED", Epidemic, EPIDEMIC, centred=False),
    broken("call-cents", "INPUTS_NOT_SCALED", Call, CALL, raw=True),
    broken("epidemic-people", "OUTPUTS_NOT_SCALED", Epidemic, BIG, unit=1.0),
    broken("fin-kelvin", "OUTPUTS_NOT_SCALED", Fin, HOT, unit=1.0),
    broken("guide-steep", "SATURATED", Guide, GUIDE, net={"init": steep}),
    broken(
        "signal-dead", "SATURATED", Signal, SIGNAL | {"net": {"act": nn.ReLU}}, net={"init": dead}
    ),
]

STEPS = [
    broken("tank-root", "DIVERGED", Tank, TANK, guard=None),
    broken("kinetics-descent", "DIVERGED", Kinetics, KINETICS, opt=partial(SGD, lr=1.0)),
    broken("slab-dropout", "RANDOM_OR_DECAY", Slab, SLAB, net={"drop": 0.5}),
    broken(
        "membrane-decay",
        "RANDOM_OR_DECAY",
        Membrane,
        MEMBRANE,
        opt=partial(AdamW, lr=5e-3, weight_decay=20.0),
    ),
    broken("epidemic-short", "STEP_TOO_SHORT", Epidemic, EPIDEMIC, opt=adam(1e-7)),
    broken(
        "pendulum-schedule",
        "STEP_TOO_SHORT",
        Pendulum,
        PENDULUM,
        plan=partial(ExponentialLR, gamma=0.8),
    ),
    broken("circuit-jumps", "STEP_TOO_LARGE", Circuit, CIRCUIT, opt=adam(0.6)),
    broken("membrane-jumps", "STEP_TOO_LARGE", Membrane, MEMBRANE, opt=partial(NAdam, lr=0.4)),
    broken("call-payoff", "IMBALANCE", Call, CALL, weights=(1, 1e-6, 1e-6)),
]

ABILITY = [
    broken(
        "signal-narrow",
        "TOO_NARROW",
        Signal,
        SIGNAL,
        net={"width": 2, "depth": 1},
    ),
    broken(
        "membrane-narrow",
        "TOO_NARROW",
        Membrane,
        MEMBRANE | {"modes": ((1, 1, 1.0), (2, 2, 0.8), (3, 1, 0.5)), "steps": 1500},
        net={"width": 2},
    ),
    broken("settling-differences", "ROUNDING", Settling, {"steps": 1500}, h=5e-5),
    broken("signal-barometer", "ROUNDING", Signal, SIGNAL | {"offset": 3e7}, remove=False),
    broken(
        "epidemic-town",
        "CAUSALITY",
        Epidemic,
        {**BIG, "steps": 1800, "b": 7.0, "first": 0.08, "net": {"act": Sine}, "ramp": 1300},
        ramp=0,
    ),
    broken(
        "epidemic-slow-start",
        "CAUSALITY",
        Epidemic,
        {"steps": 1800, "b": 6.0, "first": 0.1, "opt": adam(5e-3), "ramp": 1200},
        ramp=0,
    ),
    broken(
        "signal-carrier",
        "SPECTRAL_BIAS",
        Signal,
        SIGNAL | {"signal": carrier, "n": 256, "net": {"embed": 60.0}},
        net={"embed": 0.0},
    ),
    broken(
        "guide-optical",
        "SPECTRAL_BIAS",
        Guide,
        {"steps": 1300, "k": 20.0, "opt": adam(4e-3), "net": {"embed": 22.0}},
        net={"embed": 0.0},
    ),
]


def healthy(name: str, problem: Any, **settings: Any) -> Run:
    return Run(f"fourth-{name}", "CLEAN", "set", problem, settings)


def early(name: str, problem: Any, **settings: Any) -> Run:
    return Run(f"fourth-{name}", "EARLY", "set", problem, settings)


CLEAN = [
    healthy("fin", Fin, m=2.0, steps=1000, opt=adam(4e-3)),
    healthy("fin-softplus", Fin, **HOT, net={"act": nn.Softplus, "width": 32}),
    healthy("slab", Slab, steps=500, n=100, opt=adam(8e-3), net={"act": nn.SiLU}),
    healthy("circuit", Circuit, steps=1200, damping=0.4, opt=adam(1e-2), net={"embed": 3.0}),
    healthy("mixed-beam", MixedBeam, steps=1300, opt=partial(AdamW, lr=4e-3)),
    healthy("beam", Beam, steps=600, opt=adam(6e-3), net={"act": Sine, "width": 16}),
    healthy("kinetics", Kinetics, steps=1500, opt=partial(RMSprop, lr=1e-3), rates=(1.5, 0.7)),
    healthy(
        "epidemic",
        Epidemic,
        steps=150,
        b=4.0,
        opt=partial(torch.optim.LBFGS, lr=1.0, max_iter=10, line_search_fn="strong_wolfe"),
    ),
    healthy("call", Call, steps=900, opt=adam(6e-3), net={"act": nn.SiLU}),
    healthy("guide", Guide, steps=1200, k=3.0, anneal=1200, opt=adam(6e-3)),
    healthy("signal", Signal, steps=1200, opt=adam(5e-3), trainer={"gradient_clip_val": 1.0}),
    healthy("delay", Delay, steps=1000),
    healthy("membrane", Membrane, steps=1200, opt=adam(6e-3), net={"act": nn.GELU}),
    healthy("hunters", Hunters, steps=1500, span=3.0, opt=adam(5e-3)),
]

EARLY = [
    early("slab-early", Slab, steps=300, n=100, opt=adam(7e-4)),
    early("pendulum-early", Pendulum, steps=300, opt=adam(1e-3)),
    early("membrane-early", Membrane, steps=300, opt=adam(1e-3), modes=((2, 2, 1.0), (3, 1, 0.5))),
    early("call-early", Call, steps=300, opt=adam(1e-3)),
]
TRAINING: list[Run] = [*SCALES, *STEPS, *ABILITY, *CLEAN, *EARLY]
