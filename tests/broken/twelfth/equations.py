"""Runs whose points, conditions, derivatives, or units are wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.networks import sgd
from tests.broken.run import Run
from tests.broken.twelfth.biophysics import Chain, DoubleLayer, Enzyme, Fisher
from tests.broken.twelfth.geology import Consolidation, Seepage, SeepageFlat, Telegraph
from tests.broken.twelfth.optics import Laser, Rays
from tests.broken.twelfth.quant import Call, Riccati, ShortRate
from tests.broken.twelfth.turbine import Beam, Blade, Duffing

ADAMW = partial(torch.optim.AdamW, lr=4e-3)


def only_root(nets: nn.ModuleDict) -> Any:
    """A line that was copied and not changed."""
    return [*nets["root"].parameters()]


def seeded(n: int, dim: int) -> Tensor:
    """Blocks of four, each drawn by a generator that starts anew."""
    blocks = [torch.rand(4, dim, generator=torch.Generator().manual_seed(7)) for _ in range(n // 4)]
    return torch.cat(blocks)


def of_maximum(c: Tensor) -> Tensor:
    """Each species in parts of its largest reading, as the plate reader exports them."""
    return c / c.max(dim=0).values


def judge(name: str, cause: str, problem: Any, settings: Any, mistake: Any, note: str = "") -> Run:
    return Run(f"twelfth-{name}", cause, "judge", problem, settings, mistake, note)


EQUATIONS = [
    judge("double-layer-mv", "DIVERGED", DoubleLayer, {"steps": 1200}, {"thermal": 1.0}),
    judge("seepage-graph", "DETACHED", Seepage, {"steps": 1500}, {"problem": SeepageFlat}),
    judge(
        "short-rate-leaky",
        "DERIVATIVE_VANISHES",
        ShortRate,
        {"steps": 1400},
        {"activation": "leaky_relu"},
    ),
    judge("blade-optimizer", "NOT_TRAINED", Blade, {"steps": 1200}, {"trained": only_root}),
    judge("fisher-shape", "BROADCAST", Fisher, {"steps": 1000}, {"column": False}),
    judge(
        "consolidation-seed", "REPEATED_POINTS", Consolidation, {"steps": 1200}, {"sampler": seeded}
    ),
    judge(
        "short-rate-calendar",
        "INPUTS_NOT_SCALED",
        ShortRate,
        {"steps": 1400, "optim": ADAMW},
        {"today": 2021.0},
    ),
    judge(
        "telegraph-start",
        "NOTHING_TO_FIND",
        Telegraph,
        {"steps": 1400},
        {"conditions": ("rest", "ends")},
    ),
    judge("call-index", "OUTPUTS_NOT_SCALED", Call, {"steps": 650, "n": 80}, {"quote": 1.0}),
    judge("double-layer-few", "POINTS", DoubleLayer, {"steps": 1200, "surface": 150.0}, {"n": 3}),
    judge("laser-window", "POINTS", Laser, {"steps": 1500}, {"window": 1500}),
    judge("riccati-bump", "ROUNDING", Riccati, {"steps": 350}, {"bump": 1e-7}),
    judge("blade-si", "IMBALANCE", Blade, {"steps": 1200}, {"si": True}),
    judge("short-rate-sum", "IMBALANCE", ShortRate, {"steps": 1400}, {"summed": True}),
    judge("duffing-long", "CAUSALITY", Duffing, {"steps": 1500}, {"span": 25.0}),
    judge("rays-long", "CAUSALITY", Rays, {"steps": 1500}, {"span": 25.0}),
    judge(
        "chain-normalised",
        "CONTRADICTION",
        Chain,
        {"steps": 1500, "optim": sgd(0.03, momentum=0.9)},
        {"measured": of_maximum},
    ),
    judge(
        "consolidation-base",
        "CONTRADICTION",
        Consolidation,
        {"steps": 1200, "optim": ADAMW},
        {"drained": (0.0, 1.0)},
    ),
    judge("beam-clamp", "NOT_UNIQUE", Beam, {"steps": 1000}, {"fixed": ("deflection",)}),
    judge("enzyme-three", "NOT_UNIQUE", Enzyme, {"steps": 1500}, {"fitted": ("kcat", "K", "E")}),
]
