"""Runs: points that are missing, healthy ones, and ones that were stopped early."""

from __future__ import annotations

from functools import partial

from torch.optim import lr_scheduler

from tests.broken.networks import adam, grid, lbfgs, uniform
from tests.broken.ninth.fields import Bratu
from tests.broken.ninth.inverse import Ground
from tests.broken.ninth.lines import Duffing, Layer
from tests.broken.ninth.moving import Circuit, Neuron
from tests.broken.ninth.planes import Elastic, Fisher, Plate, Transport
from tests.broken.run import Run

SQUARE = ((0.0, 1.0), (0.0, 1.0))
ROUND = ((0.0, 6.2832), (0.0, 1.0))

OTHER = [
    Run(
        "ninth-layer-part",
        "POINTS",
        "judge",
        Layer,
        {"steps": 1500, "eps": 0.1, "points": grid(0.0, 1.0, 50), "net": {"scaled": True}},
        {"points": grid(0.0, 0.5, 50)},
    ),
    Run(
        "ninth-elastic-few",
        "POINTS",
        "judge",
        Elastic,
        {"steps": 800, "points": uniform(150, *SQUARE), "optim": adam(5e-3)},
        {"points": uniform(4, *SQUARE)},
    ),
    Run(
        "ninth-bratu-lbfgs",
        "CLEAN",
        "judge",
        Bratu,
        {"steps": 30, "optim": lbfgs()},
    ),
    Run(
        "ninth-neuron-cosine",
        "CLEAN",
        "judge",
        Neuron,
        {
            "steps": 1500,
            "span": 5.0,
            "optim": adam(8e-3),
            "schedule": partial(lr_scheduler.CosineAnnealingLR, T_max=1500),
        },
    ),
    Run(
        "ninth-plate-batches",
        "CLEAN",
        "judge",
        Plate,
        {
            "steps": 1000,
            "points": uniform(300, *SQUARE),
            "batch": 60,
            "weights": {"edge": 10},
            "net": {"activation": "sin"},
        },
    ),
    Run(
        "ninth-duffing-hard",
        "CLEAN",
        "judge",
        Duffing,
        {"steps": 1200, "hard": True, "net": {"scaled": True, "activation": "silu"}},
    ),
    Run(
        "ninth-fisher-stopped",
        "EARLY",
        "judge",
        Fisher,
        {"steps": 30, "net": {"scaled": True}, "optim": adam(1e-3)},
    ),
    Run(
        "ninth-transport-stopped",
        "EARLY",
        "judge",
        Transport,
        {"steps": 100, "c": 3.0, "points": uniform(200, *ROUND)},
    ),
    Run(
        "ninth-circuit-stopped",
        "EARLY",
        "judge",
        Circuit,
        {"steps": 120, "fast": 8.0},
    ),
    Run(
        "ninth-ground-stopped",
        "EARLY",
        "judge",
        Ground,
        {"steps": 100},
    ),
]
