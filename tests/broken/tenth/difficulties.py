"""Points, widths, conditions and data that do not suffice, or that contradict; hard solutions."""

from __future__ import annotations

from tests.broken.networks import adam
from tests.broken.run import Run
from tests.broken.tenth.fields import Rod
from tests.broken.tenth.fronts import Bloom, Circuit
from tests.broken.tenth.kinetics import Cell, Chain, Epidemic
from tests.broken.tenth.mechanics import Pendulum, Rivals, Signal
from tests.broken.tenth.models import adamw, box_sampler, cosine, quasi_newton
from tests.broken.tenth.slips import BackwardDiffusivity
from tests.broken.tenth.spaces import Antenna, Diffusivity, Membrane

DIFFICULTIES = [
    Run(
        "tenth-rod-conditions",
        "NOTHING_TO_FIND",
        "judge",
        Rod,
        {"steps": 1000, "optimizer": adamw(5e-3)},
        {"initial": False},
    ),
    Run(
        "tenth-chain-conditions",
        "NOTHING_TO_FIND",
        "judge",
        Chain,
        {"steps": 1500, "n": 128, "batch": 64, "hard": False, "optimizer": adamw(4e-3)},
        {"amounts": False},
    ),
    Run(
        "tenth-rivals-horizon",
        "POINTS",
        "judge",
        Rivals,
        {
            "steps": 1500,
            "span": 5.0,
            "angle": 1.5,
            "n": 80,
            "growth": 700,
            "optimizer": adamw(5e-3),
            "schedule": cosine(1500),
        },
        {"window": 0.1},
    ),
    Run(
        "tenth-epidemic-sampling",
        "POINTS",
        "judge",
        Epidemic,
        {"steps": 40, "days": 40.0, "n": 100, "optimizer": quasi_newton(max_iter=20)},
        {"sampler": box_sampler([(0.0, 5.0)], 100)},
    ),
    Run(
        "tenth-membrane-units",
        "TOO_NARROW",
        "judge",
        Membrane,
        {"steps": 1500, "m": 2, "n": 200, "optimizer": adamw(5e-3)},
        {"net": {"hidden": 2}},
    ),
    Run(
        "tenth-pendulum-units",
        "TOO_NARROW",
        "judge",
        Pendulum,
        {"steps": 1500, "span": 6.0, "angle": 1.0, "n": 100, "optimizer": adamw(5e-3)},
        {"net": {"hidden": 1}},
    ),
    Run(
        "tenth-epidemic-long",
        "CAUSALITY",
        "judge",
        Epidemic,
        {
            "steps": 1200,
            "days": 40.0,
            "growth": 900,
            "optimizer": adamw(5e-3),
            "schedule": cosine(1200),
        },
        {"growth": 0},
    ),
    Run(
        "tenth-bloom-long",
        "CAUSALITY",
        "judge",
        Bloom,
        {
            "steps": 1400,
            "n": 300,
            "net": {"layers": 3},
            "stream": True,
            "growth": 1000,
            "optimizer": adamw(5e-3),
            "schedule": cosine(1400),
        },
        {"growth": 0},
    ),
    Run(
        "tenth-cell-minutes",
        "CONTRADICTION",
        "judge",
        Cell,
        {"steps": 1200, "sensors": 12, "net": {"scaled": True}},
        {"tau_model": 15.0},
    ),
    Run(
        "tenth-diffusivity-sign",
        "CONTRADICTION",
        "judge",
        Diffusivity,
        {
            "steps": 1200,
            "known": True,
            "k": 2.0,
            "lambdas": {"physics": 10.0},
            "optimizer": adamw(5e-3),
        },
        {"problem": BackwardDiffusivity},
    ),
    Run(
        "tenth-circuit-ripple",
        "SPECTRAL_BIAS",
        "judge",
        Circuit,
        {"steps": 1200, "n": 400, "optimizer": adamw(3e-3), "net": {"sigma": 25.0}},
        {"net": {"sigma": 0.0}},
    ),
    Run(
        "tenth-signal-tones",
        "SPECTRAL_BIAS",
        "judge",
        Signal,
        {
            "steps": 1200,
            "tones": (2.0, 15.0),
            "samples": 400,
            "batch": 100,
            "optimizer": adamw(4e-3),
            "net": {"sigma": 25.0, "act": "gelu"},
        },
        {"net": {"sigma": 0.0}},
    ),
    Run(
        "tenth-antenna-ends",
        "NOT_UNIQUE",
        "judge",
        Antenna,
        {"steps": 1500, "ends": "both", "offset": 5.0, "optim": adam(4e-3)},
        {"ends": "slopes"},
    ),
    Run(
        "tenth-diffusivity-modes",
        "NOT_UNIQUE",
        "judge",
        Diffusivity,
        {
            "steps": 1300,
            "diffusivity": 0.05,
            "k": 1.0,
            "noise": 0.003,
            "lambdas": {"physics": 10.0},
            "optimizer": adamw(1e-2),
            "schedule": cosine(1300),
            "net": {"act": "silu", "layers": 3},
        },
        {"modes": (1,)},
    ),
]
