"""Runs whose network or optimizer is wrong; healthy ones, and ones that stopped early."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.broken.networks import adam
from tests.broken.twelfth.biophysics import Fisher, Nerve
from tests.broken.twelfth.equations import judge
from tests.broken.twelfth.geology import Arrival, Seepage, Stefan, Telegraph
from tests.broken.twelfth.optics import Beamlet, Laser, Rays, Slab
from tests.broken.twelfth.quant import Riccati


def rmsprop(lr: float) -> Any:
    return partial(torch.optim.RMSprop, lr=lr)


def normal(layer: nn.Module) -> None:
    """Hidden weights of variance 25, whatever the width."""
    if isinstance(layer, nn.Linear) and layer.out_features > 1:
        nn.init.normal_(layer.weight, std=5.0)


HALVED = partial(lr_scheduler.StepLR, step_size=10, gamma=0.5)
COSINE = partial(lr_scheduler.CosineAnnealingLR, T_max=1500)

TRAINING = [
    judge("arrival-init", "SATURATED", Arrival, {"steps": 1000}, {"init": normal}),
    judge("nerve-dropout", "RANDOM_OR_DECAY", Nerve, {"steps": 1500}, {"dropout": 0.2}),
    judge(
        "beamlet-schedule",
        "STEP_TOO_SHORT",
        Beamlet,
        {"steps": 750, "optim": adam(5e-3)},
        {"schedule": HALVED},
    ),
    judge("seepage-narrow", "TOO_NARROW", Seepage, {"steps": 1500}, {"width": 2}),
    judge(
        "rays-rmsprop",
        "STEP_TOO_LARGE",
        Rays,
        {"steps": 1500, "optim": rmsprop(1e-3)},
        {"optim": rmsprop(0.1)},
    ),
    judge("slab-plain", "SPECTRAL_BIAS", Slab, {"steps": 1200}, {"features": 0.0}),
    judge("stefan", "CLEAN", Stefan, {"steps": 1000}, {}),
    judge("riccati", "CLEAN", Riccati, {"steps": 600, "n": 80}, {}),
    judge("laser", "CLEAN", Laser, {"steps": 1500, "span": 4.0, "schedule": COSINE}, {}),
    judge("telegraph-brief", "EARLY", Telegraph, {"steps": 120}, {}),
    judge("fisher-brief", "EARLY", Fisher, {"steps": 60, "optim": adam(1e-3)}, {}),
    judge("seepage-brief", "EARLY", Seepage, {"steps": 100, "optim": adam(2e-3)}, {}),
]
