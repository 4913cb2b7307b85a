"""Slips of the code: gradients that are lost, shapes, samplers, numbers that overflow."""

from __future__ import annotations

from tests.broken.networks import adam, sgd
from tests.broken.run import Run
from tests.broken.tenth.fields import Guitar, Rod, Whisper
from tests.broken.tenth.kinetics import Absorption, Cell, Tumour
from tests.broken.tenth.mechanics import Beam, Spring
from tests.broken.tenth.models import adamw, box_sampler, cosine, seeded_sampler
from tests.broken.tenth.slips import (
    FlatDataAbsorption,
    FlatSlopeAbsorption,
    FlatSourceMembrane,
    FrozenDiffusivity,
    NumpyRod,
    PlainDictSpring,
    mesh,
)
from tests.broken.tenth.spaces import Antenna, Diffusivity, Membrane

SQUARE = [(0.0, 1.0), (0.0, 1.0)]
LONG = [(0.0, 1.0), (0.0, 1.3)]
DRUG = {"steps": 1500, "n": 100, "optimizer": adamw(1e-2, 0.0)}

CODE = [
    Run(
        "tenth-tumour-log",
        "DIVERGED",
        "judge",
        Tumour,
        {"steps": 1200, "n": 100, "net": {"positive": True}, "optimizer": adamw(5e-3)},
        {"net": {"positive": False}},
    ),
    Run(
        "tenth-cell-descent",
        "DIVERGED",
        "judge",
        Cell,
        {"steps": 1500, "optim": sgd(0.03, momentum=0.9), "net": {"scaled": True}},
        {"optim": sgd(1.0, momentum=0.9)},
    ),
    Run(
        "tenth-drug-slopes",
        "DETACHED",
        "judge",
        Absorption,
        DRUG,
        {"problem": FlatSlopeAbsorption},
    ),
    Run(
        "tenth-rod-metric",
        "DETACHED",
        "judge",
        Rod,
        {"steps": 1000, "optimizer": adamw(5e-3)},
        {"problem": NumpyRod},
    ),
    Run(
        "tenth-beam-units",
        "DERIVATIVE_VANISHES",
        "judge",
        Beam,
        {"steps": 800, "net": {"activation": "silu"}, "optim": adam(4e-3)},
        {"net": {"activation": "relu"}},
    ),
    Run(
        "tenth-guitar-units",
        "DERIVATIVE_VANISHES",
        "judge",
        Guitar,
        {"steps": 1200, "optimizer": adamw(5e-3), "net": {"act": "gelu"}},
        {"net": {"act": "leaky"}},
    ),
    Run(
        "tenth-diffusivity-optimizer",
        "NOT_TRAINED",
        "judge",
        Diffusivity,
        {
            "steps": 1300,
            "k": 2.0,
            "noise": 0.003,
            "lambdas": {"physics": 10.0},
            "optimizer": adamw(2e-2, 0.0),
            "schedule": cosine(1300),
            "net": {"act": "silu", "layers": 3},
        },
        {"problem": FrozenDiffusivity},
    ),
    Run(
        "tenth-spring-networks",
        "NOT_TRAINED",
        "judge",
        Spring,
        {"steps": 1300, "w": 2.0, "n": 100, "optimizer": adamw(5e-3)},
        {"problem": PlainDictSpring},
    ),
    Run(
        "tenth-drug-record",
        "BROADCAST",
        "judge",
        Absorption,
        {**DRUG, "noise": 0.0},
        {"problem": FlatDataAbsorption},
    ),
    Run(
        "tenth-membrane-source",
        "BROADCAST",
        "judge",
        Membrane,
        {"steps": 1000, "n": 512, "batch": 128, "optimizer": adamw(5e-3), "m": 2},
        {"problem": FlatSourceMembrane},
    ),
    Run(
        "tenth-membrane-stream",
        "REPEATED_POINTS",
        "judge",
        Membrane,
        {
            "steps": 1500,
            "stream": True,
            "sampler": box_sampler(SQUARE, 12),
            "optimizer": adamw(3e-3),
            "m": 2,
            "n_y": 2,
            "net": {"act": "sine"},
        },
        {"sampler": seeded_sampler(SQUARE, 12)},
    ),
    Run(
        "tenth-guitar-mesh",
        "REPEATED_POINTS",
        "judge",
        Guitar,
        {"steps": 1200, "span": 1.3, "optimizer": adamw(5e-3), "sampler": mesh(LONG, 15)},
        {"sampler": mesh(LONG, 15, tile=True)},
    ),
    Run(
        "tenth-antenna-differences",
        "ROUNDING",
        "judge",
        Antenna,
        {"steps": 1500, "h": 2e-2, "weights": {"residual": 1.0}, "optim": adam(4e-3)},
        {"h": 1e-4},
    ),
    Run(
        "tenth-whisper-pressure",
        "ROUNDING",
        "judge",
        Whisper,
        {"steps": 1200, "double": True, "optimizer": adamw(5e-3)},
        {"double": False},
    ),
]
