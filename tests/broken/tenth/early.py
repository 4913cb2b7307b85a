"""Healthy runs, and healthy ones that were stopped too early."""

from __future__ import annotations

from tests.broken.run import Run
from tests.broken.tenth.fields import Guitar, Option, Packet, Shock
from tests.broken.tenth.kinetics import Absorption, Chain, Epidemic
from tests.broken.tenth.models import adamw, cosine, quasi_newton
from tests.broken.tenth.spaces import Membrane

SILU = {"act": "silu", "residual": True}

CLEAN = [
    Run(
        "tenth-epidemic-cosine",
        "CLEAN",
        "judge",
        Epidemic,
        {"steps": 1200, "optimizer": adamw(5e-3), "schedule": cosine(1200)},
    ),
    Run(
        "tenth-shock-batches",
        "CLEAN",
        "judge",
        Shock,
        {"steps": 1500, "n": 1024, "batch": 128, "optimizer": adamw(4e-3)},
    ),
    Run(
        "tenth-packet-stream",
        "CLEAN",
        "judge",
        Packet,
        {
            "steps": 1300,
            "n": 128,
            "stream": True,
            "optimizer": adamw(5e-3),
            "trainer": {"gradient_clip_val": 1.0},
        },
    ),
    Run(
        "tenth-option-quasi-newton",
        "CLEAN",
        "judge",
        Option,
        {"steps": 40, "n": 200, "optimizer": quasi_newton(max_iter=15)},
    ),
]

EARLY = [
    Run(
        "tenth-membrane-few-epochs",
        "EARLY",
        "judge",
        Membrane,
        {"steps": 100, "optimizer": adamw(1e-3), "net": {"act": "gelu"}},
    ),
    Run(
        "tenth-guitar-few-epochs",
        "EARLY",
        "judge",
        Guitar,
        {"steps": 120, "optimizer": adamw(1e-3)},
    ),
    Run(
        "tenth-drug-first-look",
        "EARLY",
        "judge",
        Absorption,
        {"steps": 150, "optimizer": adamw(1e-2, 0.0), "n": 100},
    ),
    Run(
        "tenth-chain-smoke-test",
        "EARLY",
        "judge",
        Chain,
        {"steps": 40, "optimizer": adamw(2e-3), "n": 256, "batch": 64, "net": SILU},
    ),
]

HEALTHY = [*CLEAN, *EARLY]
