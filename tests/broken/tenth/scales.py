"""Inputs, outputs, units and weights of the wrong size, steps too short or too long."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.optim import lr_scheduler

from tests.broken.networks import adam, sgd
from tests.broken.run import Run
from tests.broken.tenth.fields import Packet, Shock
from tests.broken.tenth.kinetics import Bacteria, Cell, Chain, Epidemic
from tests.broken.tenth.mechanics import Beam, Rivals, Spring
from tests.broken.tenth.models import adamw, momentum
from tests.broken.tenth.spaces import Catalyst, Membrane


def normal(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=2.0)
        nn.init.zeros_(layer.bias)


def low_bias(layer: nn.Module) -> None:
    """Sparse units, as in a detector's head."""
    if isinstance(layer, nn.Linear):
        nn.init.constant_(layer.bias, -8.0)


SCALES = [
    Run(
        "tenth-cell-seconds",
        "INPUTS_NOT_SCALED",
        "judge",
        Cell,
        {"steps": 1200, "tau": 3000.0, "net": {"scaled": True}},
        {"net": {"scaled": False}},
    ),
    Run(
        "tenth-epidemic-days",
        "INPUTS_NOT_SCALED",
        "judge",
        Epidemic,
        {"steps": 1000, "first": 1500.0, "optimizer": adamw(1e-2), "batch": 64},
        {"normalise": False},
    ),
    Run(
        "tenth-spring-normal",
        "SATURATED",
        "judge",
        Spring,
        {
            "steps": 1000,
            "w": 2.0,
            "n": 100,
            "optimizer": adamw(4e-3),
            "net": {"hidden": 64, "layers": 3},
        },
        {"net": {"init": normal}},
    ),
    Run(
        "tenth-chain-bias",
        "SATURATED",
        "judge",
        Chain,
        {"steps": 1000, "n": 100, "optimizer": adamw(2e-3), "net": {"act": "gelu"}},
        {"net": {"init": low_bias}},
    ),
    Run(
        "tenth-bacteria-cells",
        "OUTPUTS_NOT_SCALED",
        "judge",
        Bacteria,
        {
            "steps": 1500,
            "n": 100,
            "capacity": 4000.0,
            "unit": 2000.0,
            "net": {"positive": True},
            "optimizer": adamw(5e-3),
        },
        {"unit": 1.0},
    ),
    Run(
        "tenth-beam-metres",
        "OUTPUTS_NOT_SCALED",
        "judge",
        Beam,
        {"steps": 1000, "size": 2e-5, "unit": 2e-5, "optim": adam(3e-3)},
        {"unit": 1.0},
    ),
    Run(
        "tenth-spring-dropout",
        "RANDOM_OR_DECAY",
        "judge",
        Spring,
        {"steps": 1300, "w": 2.0, "n": 200, "batch": 50, "optimizer": adamw(5e-3)},
        {"net": {"drop": 0.2}},
    ),
    Run(
        "tenth-packet-decay",
        "RANDOM_OR_DECAY",
        "judge",
        Packet,
        {"steps": 1000, "n": 128, "optimizer": adamw(5e-3)},
        {"optimizer": adamw(5e-3, weight_decay=10.0)},
    ),
    Run(
        "tenth-membrane-schedule",
        "STEP_TOO_SHORT",
        "judge",
        Membrane,
        {
            "steps": 1000,
            "optimizer": adamw(5e-3),
            "schedule": partial(lr_scheduler.ExponentialLR, gamma=0.998),
        },
        {"schedule": partial(lr_scheduler.ExponentialLR, gamma=0.9)},
    ),
    Run(
        "tenth-catalyst-clip",
        "STEP_TOO_SHORT",
        "judge",
        Catalyst,
        {"steps": 1500, "optim": sgd(0.05, momentum=0.9)},
        {"trainer": {"gradient_clip_val": 1e-4}},
    ),
    Run(
        "tenth-shock-rate",
        "STEP_TOO_LARGE",
        "judge",
        Shock,
        {"steps": 1200, "n": 512, "batch": 128, "optimizer": adamw(4e-3), "net": {"layers": 4}},
        {"optimizer": adamw(0.3)},
    ),
    Run(
        "tenth-rivals-momentum",
        "STEP_TOO_LARGE",
        "judge",
        Rivals,
        {
            "steps": 1500,
            "span": 3.0,
            "angle": 1.5,
            "n": 100,
            "optimizer": momentum(0.01),
            "trainer": {"gradient_clip_val": 1.0},
        },
        {"optimizer": momentum(1.0)},
    ),
    Run(
        "tenth-packet-lambdas",
        "IMBALANCE",
        "judge",
        Packet,
        {"steps": 1000, "n": 128, "optimizer": adamw(5e-3)},
        {"lambdas": {"start": 1e-4}},
    ),
    Run(
        "tenth-beam-load",
        "IMBALANCE",
        "judge",
        Beam,
        {"steps": 1200, "mode": 2, "optim": adam(4e-3)},
        {"load_unit": 1.0},
    ),
]
