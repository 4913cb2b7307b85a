"""Mistakes of scales, of the start, of the optimizer."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from tests.broken.fifth.bodies import Bar, Beam, Fin, Pellet
from tests.broken.fifth.code import SCALED, run
from tests.broken.fifth.kinetics import Circuit, Growth, Oral
from tests.broken.fifth.plane import Tissue
from tests.broken.fifth.thermal import Cooling, Pressure, Rooms, beat
from tests.broken.networks import adam, grid, sgd, uniform

adamw = partial(partial, torch.optim.AdamW)


def huge(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=12.0)
        nn.init.normal_(layer.bias, std=12.0)


def low(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.constant_(layer.bias, -4.0)


def cells(u: Tensor) -> Tensor:
    return 4000.0 * u


TUNED = [
    run("cooling-seconds", "INPUTS_NOT_SCALED", Cooling,
        {**SCALED, "span": 5400.0, "points": grid(0, 5400, 50), "steps": 1200,
         "optim": adam(5e-3)},
        {"net": {"scaled": False}}),
    run("growth-years", "INPUTS_NOT_SCALED", Growth,
        {**SCALED, "start": 1950.0, "span": 70.0, "u_0": 0.2, "r": 1.5,
         "steps": 1200},
        {"net": {"scaled": False}}),
    run("fin-weights", "SATURATED", Fin, {**SCALED, "m": 3.0, "steps": 1000},
        {"net": {"init": huge}}),
    run("pulse-bias", "SATURATED", Pressure,
        {"net": {"scaled": True, "activation": "relu", "width": 48}, "steps": 1500,
         "optim": adam(5e-3), "physics": 1e-4, "wave": beat(1.0)},
        {"net": {"init": low}}),
    run("growth-cells", "OUTPUTS_NOT_SCALED", Growth,
        {"net": {"scaled": True, "out": cells}, "size": 4000.0, "u_0": 0.2, "r": 1.5,
         "steps": 1200},
        {"net": {"out": None}}),
    run("bar-metres", "OUTPUTS_NOT_SCALED", Bar,
        {"net": {"scaled": True, "out": partial(torch.mul, torch.tensor(2e-4))}, "size": 2e-4,
         "steps": 1200, "optim": adam(3e-3, eps=1e-14)},
        {"net": {"out": None}}),
    run("pellet-dropout", "RANDOM_OR_DECAY", Pellet,
        {"net": {"scaled": True, "width": 48}, "phi": 4.0, "steps": 1200},
        {"net": {"dropout": 0.4}}),
    run("rlc-decay", "RANDOM_OR_DECAY", Circuit,
        {**SCALED, "omega": 3.0, "steps": 1300, "batch": 20, "optim": adamw(lr=4e-3)},
        {"optim": adamw(lr=4e-3, weight_decay=30.0)}),
    run("oral-warm", "STEP_TOO_SHORT", Oral, {**SCALED, "steps": 1200},
        {"schedule": partial(lr_scheduler.StepLR, step_size=8, gamma=0.5)}),
    run("tissue-adamw", "STEP_TOO_SHORT", Tissue,
        {**SCALED, "steps": 600, "hard": False, "optim": adamw(lr=5e-3),
         "weights": {"walls": 10.0},
         "points": uniform(200, (0, 1), (0, 1))},
        {"optim": adamw(lr=5e-6)}),
    run("tissue-adam", "STEP_TOO_LARGE", Tissue,
        {**SCALED, "steps": 500, "points": uniform(150, (0, 1), (0, 1)), "m": 2},
        {"optim": adam(0.7)}),
    run("rooms-momentum", "STEP_TOO_LARGE", Rooms,
        {**SCALED, "hard": False, "steps": 1500, "optim": sgd(0.02, momentum=0.9),
         "trainer": {"gradient_clip_val": 1.0}},
        {"optim": sgd(3.0, momentum=0.9)}),
    run("beam-stiff", "IMBALANCE", Beam,
        {**SCALED, "steps": 1000, "optim": adam(3e-3)}, {"rigidity": 2e3}),
    run("rooms-cold", "IMBALANCE", Rooms,
        {**SCALED, "hard": False, "steps": 1300, "weights": {"cold": 5.0}},
        {"weights": {"cold": 1e-5}}),
    run("pulse-fast", "SPECTRAL_BIAS", Pressure,
        {"net": {"scaled": True, "features": 20.0}, "wave": beat(1.0, 14.0, amplitude=0.9),
         "steps": 1200, "physics": 1e-4},
        {"net": {"features": 0.0}}),
    run("tissue-ripples", "SPECTRAL_BIAS", Tissue,
        {"net": {"scaled": True, "features": 5.0}, "k": 6, "m": 2, "steps": 1100, "fresh": True,
         "optim": adam(5e-3), "points": uniform(250, (0, 1), (0, 1))},
        {"net": {"features": 0.0}}),
]  # fmt: skip
