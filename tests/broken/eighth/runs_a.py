"""Runs: what goes wrong in the code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.eighth.ground import (
    Conductivity,
    Dupuit,
    DupuitOfNumbers,
    Phreatic,
    SoilHeat,
    SoilHeatPlotted,
)
from tests.broken.eighth.helpers import cells
from tests.broken.eighth.pipes import Channel, Duct, Vortices
from tests.broken.eighth.rivers import Backwater, Cascade, Rouse, RouseTable, Streeter
from tests.broken.eighth.sky import Barometer, Ekman, Lake, LakeByYear, Shaking
from tests.broken.networks import adam, grid, sgd, uniform
from tests.broken.run import Run


def judge(name: str, cause: str, problem: Any, settings: Any, mistake: Any = None) -> Run:
    return Run(f"eighth-{name}", cause, "judge", problem, settings, mistake or {})


SCALED: dict[str, Any] = {"net": {"scaled": True}}
DUPUIT: dict[str, Any] = {"steps": 1200, "net": {"scaled": True}, "weights": {"rivers": 20.0}}
SOIL: dict[str, Any] = {
    "steps": 1300,
    "net": {"scaled": True},
    "points": cells(14, (0.0, 6.0), (0.0, 365.0)),
}
WEIR: dict[str, Any] = {
    "steps": 1300,
    "net": {"scaled": True, "out": nn.functional.softplus},
    "weights": {"weir": 10.0},
}
CHANNEL: dict[str, Any] = {
    "steps": 1000,
    "net": {"scaled": True, "width": 24},
    "weights": {"plates": 30.0},
}
EKMAN: dict[str, Any] = {
    "steps": 1200,
    "net": {"scaled": True},
    "weights": {"ends": 10.0},
    "points": grid(0.0, 1200.0, 50),
}
SHAKE: dict[str, Any] = {
    "steps": 1200,
    "net": {"scaled": True},
    "weights": {"held": 5.0, "released": 10.0},
    "points": cells(14, (0.0, 1.0), (0.0, 1.0)),
}
DUCT: dict[str, Any] = {
    "steps": 700,
    "net": {"scaled": True, "width": 24},
    "points": cells(14, (0.0, 2.0), (0.0, 1.0)),
}
LAKE: dict[str, Any] = {"steps": 1500, "net": {"scaled": True}}
VORTEX: dict[str, Any] = {
    "steps": 1000,
    "net": {"scaled": True},
    "points": uniform(150, (0.0, 3.0), (0.0, 3.0)),
    "optim": adam(6e-3),
    "weights": {"rim": 5.0},
}


def wide(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear) and layer.out_features > 1:
        nn.init.normal_(layer.weight, std=15.0)


def sunk(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear) and layer.out_features > 1:
        nn.init.constant_(layer.bias, -8.0)


def pascal(p: Tensor) -> Tensor:
    return 101325.0 * p


def creeping(u: Tensor) -> Tensor:
    return 2e-5 * u


def chunks(n: int, chunk: int, *box: tuple[float, float], seed: int | None = None) -> Any:
    """Random points, drawn chunk by chunk; with a seed they are the same in every run."""

    def draw() -> Tensor:
        generator, drawn = None if seed is None else torch.Generator(), []
        low, high = torch.tensor(box).T
        for _ in range(n // chunk):
            if generator is not None:
                generator.manual_seed(seed)
            drawn.append(low + (high - low) * torch.rand(chunk, len(box), generator=generator))
        return torch.cat(drawn)

    return draw


def stations(low: float, high: float, kept: int, n: int = 40) -> Any:
    """A sample, with replacement, of the levels of a mast."""

    def draw() -> Tensor:
        levels = torch.linspace(low, high, kept)[:, None]
        return levels[torch.randint(len(levels), (n,))]

    return draw


CODE = [
    judge("weir-depth", "DIVERGED", Backwater, WEIR, {"net": {"out": None}}),
    judge(
        "cascade-descent",
        "DIVERGED",
        Cascade,
        {"steps": 1500, "optim": sgd(0.03)},
        {"optim": sgd(3.0)},
    ),
    judge("dupuit-divergence", "DETACHED", Dupuit, DUPUIT, {"problem": DupuitOfNumbers}),
    judge("soil-surface", "DETACHED", SoilHeat, SOIL, {"problem": SoilHeatPlotted}),
    judge(
        "channel-kinks", "DERIVATIVE_VANISHES", Channel, CHANNEL, {"net": {"activation": "relu"}}
    ),
    judge(
        "ekman-kinks", "DERIVATIVE_VANISHES", Ekman, EKMAN, {"net": {"activation": "leaky_relu"}}
    ),
    judge(
        "rouse-held",
        "NOT_TRAINED",
        Rouse,
        {"steps": 1500, **SCALED},
        {"trained": lambda module: module.net.parameters()},
    ),
    judge(
        "darcy-held",
        "NOT_TRAINED",
        Conductivity,
        {"steps": 1500, **SCALED, "weights": {"heads": 100.0}, "optim": adam(1e-2)},
        {"trained": lambda module: [*module.net.parameters(), module.flux]},
    ),
    judge("rouse-table", "BROADCAST", Rouse, {"steps": 1500, **SCALED}, {"problem": RouseTable}),
    judge("lake-inflow", "BROADCAST", Lake, LAKE, {"problem": LakeByYear}),
    judge(
        "duct-drawn",
        "REPEATED_POINTS",
        Duct,
        DUCT | {"points": chunks(160, 4, (0.0, 2.0), (0.0, 1.0))},
        {"points": chunks(160, 4, (0.0, 2.0), (0.0, 1.0), seed=42)},
    ),
    judge(
        "ekman-mast",
        "REPEATED_POINTS",
        Ekman,
        EKMAN | {"points": stations(0.0, 1200.0, 60), "fresh": True, "depth": 150.0},
        {"points": stations(0.0, 1200.0, 3)},
    ),
    judge(
        "soil-units",
        "INPUTS_NOT_SCALED",
        SoilHeat,
        SOIL,
        {"net": {"scaled": False}},
    ),
    judge("lake-calendar", "INPUTS_NOT_SCALED", Lake, LAKE, {"net": {"scaled": False}}),
    judge("duct-start", "SATURATED", Duct, DUCT, {"net": {"init": wide}}),
    judge(
        "rouse-start",
        "SATURATED",
        Rouse,
        {"steps": 1500, "net": {"scaled": True, "activation": "square_of_relu"}},
        {"net": {"init": sunk}},
    ),
    judge("shaking-free", "NOTHING_TO_FIND", Shaking, SHAKE, {"without": ("released",)}),
    judge(
        "oxygen-free",
        "NOTHING_TO_FIND",
        Streeter,
        {"steps": 1500, **SCALED},
        {"without": ("discharge",)},
    ),
    judge(
        "barometer-pascal",
        "OUTPUTS_NOT_SCALED",
        Barometer,
        {"steps": 1200, "net": {"scaled": True, "out": pascal}},
        {"net": {"out": None}},
    ),
    judge(
        "channel-creeping",
        "OUTPUTS_NOT_SCALED",
        Channel,
        CHANNEL | {"top": 2e-5, "gap": 1e-3, "net": {"scaled": True, "width": 24, "out": creeping}},
        {"net": {"out": None}},
    ),
    judge(
        "channel-differences",
        "ROUNDING",
        Channel,
        CHANNEL | {"step": 0.02},
        {"step": 2e-5},
    ),
    judge("phreatic-datum", "ROUNDING", Phreatic, {"steps": 1200, **SCALED}, {"datum": 4500.0}),
    judge(
        "vortices-level",
        "NOT_UNIQUE",
        Vortices,
        VORTEX,
        {"without": ("gauge",)},
    ),
    judge(
        "darcy-slug",
        "NOT_UNIQUE",
        Conductivity,
        {"steps": 1500, **SCALED, "weights": {"heads": 100.0}, "optim": adam(1e-2)},
        {"without": ("slug",)},
    ),
]
