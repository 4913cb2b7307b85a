"""Runs of the electrical engineer."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.broken.run import Run
from tests.broken.thirteenth.engineer import RLC, Discharge, Fin, Line, Ringing, Ripple
from tests.broken.thirteenth.fields import Capacitor, Coax, Skin

ADAM = torch.optim.Adam
FAST: Any = partial(ADAM, lr=5e-3)
PLATEAU = lr_scheduler.ReduceLROnPlateau

ENGINEER = [
    Run(
        "thirteenth-ripple",
        "SPECTRAL_BIAS",
        "judge",
        Ripple,
        {"steps": 1300, "net": {"fourier": 12.0}},
        {"net": {"fourier": 0.0}},
    ),
    Run(
        "thirteenth-discharge",
        "NOT_UNIQUE",
        "judge",
        Discharge,
        {"steps": 1300, "optimizer": partial(torch.optim.AdamW, lr=5e-3)},
        {"current_probe": False},
    ),
    Run(
        "thirteenth-rlc-two-nets",
        "NOT_TRAINED",
        "judge",
        RLC,
        {"steps": 1300, "optimizer": FAST},
        {"only_voltage": True},
    ),
    Run(
        "thirteenth-ringing",
        "TOO_NARROW",
        "judge",
        Ringing,
        {"steps": 1500, "optimizer": partial(ADAM, lr=1e-2)},
        {"net": {"hidden": (2,)}},
    ),
    Run(
        "thirteenth-line-probes",
        "CONTRADICTION",
        "judge",
        Line,
        {"steps": 1000, "probes": True},
        {"c2": 1.0},
    ),
    Run(
        "thirteenth-fin",
        "IMBALANCE",
        "judge",
        Fin,
        {"steps": 1300},
        {"k": 2e4},
        note="W/mK over the square of the length in m",
    ),
    Run(
        "thirteenth-capacitor",
        "OUTPUTS_NOT_SCALED",
        "judge",
        Capacitor,
        {"steps": 1000},
        {"unit": 1.0},
    ),
    Run(
        "thirteenth-skin",
        "DERIVATIVE_VANISHES",
        "judge",
        Skin,
        {"steps": 1200},
        {"net": {"act": nn.ReLU}},
    ),
    Run(
        "thirteenth-coax",
        "STEP_TOO_SHORT",
        "judge",
        Coax,
        {"steps": 1200, "scheduler": partial(PLATEAU, patience=100, factor=0.5)},
        {"scheduler": partial(PLATEAU, patience=1, factor=0.1, eps=0.0)},
    ),
    Run("thirteenth-line", "EARLY", "judge", Line, {"steps": 70}),
    Run(
        "thirteenth-discharge-probe",
        "CLEAN",
        "judge",
        Discharge,
        {
            "steps": 1200,
            "optimizer": partial(torch.optim.AdamW, lr=5e-3),
            "scheduler": partial(lr_scheduler.StepLR, step_size=400, gamma=0.5),
        },
    ),
]
