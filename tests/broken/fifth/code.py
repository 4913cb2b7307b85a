"""Mistakes of programming: broadcasting, gradients, points, rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.fifth.bodies import Bar, Beam, Fin, Pellet, Rod
from tests.broken.fifth.kinetics import (
    Circuit,
    Consecutive,
    ConsecutiveItems,
    Infusion,
    Oral,
    Tumour,
    backward,
)
from tests.broken.fifth.plane import Tissue
from tests.broken.fifth.thermal import Cooling, Enthalpy, Rooms
from tests.broken.networks import adam, grid, sgd, uniform
from tests.broken.run import Run

SCALED: dict[str, Any] = {"net": {"scaled": True}}
positive = nn.functional.softplus


def run(name: str, cause: str, problem: Any, settings: Any, mistake: Any, note: str = "") -> Run:
    return Run(f"fifth-{name}", cause, "set", problem, settings, mistake, note)


def one_draw(n: int, *box: tuple[float, float]) -> Any:
    """Points of a box; the draw is made once, for all of them."""
    low, high = torch.tensor(box).T
    return lambda: (low + (high - low) * torch.rand(1, len(box))).expand(n, len(box)).clone()


def seeded(n: int, few: int, *box: tuple[float, float]) -> Any:
    """Chunks of points from a generator that is made anew for each chunk."""
    low, high = torch.tensor(box).T

    def draw() -> Tensor:
        chunks = []
        for _ in range(n // few):
            generator = torch.Generator().manual_seed(7)
            chunks.append(low + (high - low) * torch.rand(few, len(box), generator=generator))
        return torch.cat(chunks)

    return draw


CODE = [
    run("rlc-descent", "DIVERGED", Circuit,
        {**SCALED, "omega": 2.0, "steps": 1500, "optim": sgd(0.05, momentum=0.9)},
        {"optim": sgd(3.0, momentum=0.9)}),
    run("tumour-logarithm", "DIVERGED", Tumour,
        {"net": {"scaled": True, "width": 48, "out": positive}, "steps": 1200},
        {"net": {"out": None}}),
    run("reactor-start", "DETACHED", Consecutive,
        {**SCALED, "steps": 1000, "weights": {"start": 5.0}}, {"problem": ConsecutiveItems}),
    run("rlc-slope", "DETACHED", Circuit,
        {**SCALED, "omega": 4.0, "steps": 1300}, {"slope": backward}),
    run("pellet-relu", "DERIVATIVE_VANISHES", Pellet,
        {"net": {"activation": "silu"}, "steps": 1200}, {"net": {"activation": "relu"}}),
    run("beam-squares", "DERIVATIVE_VANISHES", Beam,
        {**SCALED, "steps": 900}, {"net": {"activation": "square_of_relu"}}),
    run("oral-central", "NOT_TRAINED", Oral,
        {**SCALED, "steps": 1200}, {"trained": lambda m: m.net.parameters()}),
    run("infusion-coefficients", "NOT_TRAINED", Infusion,
        {**SCALED, "weights": {"samples": 20.0}, "steps": 1500, "optim": adam(1e-2)},
        {"trained": lambda m: m.net.parameters()}),
    run("cooling-record", "BROADCAST", Cooling,
        {**SCALED, "steps": 1200, "optim": adam(5e-3)}, {"flat": True}),
    run("tissue-source", "BROADCAST", Tissue,
        {**SCALED, "steps": 600, "k": 2, "points": uniform(200, (0, 1), (0, 1))},
        {"flat": True}),
    run("rooms-draw", "REPEATED_POINTS", Rooms,
        {**SCALED, "steps": 800, "points": uniform(60, (0.0, 2.0))},
        {"points": one_draw(60, (0.0, 2.0))}),
    run("rod-chunks", "REPEATED_POINTS", Rod,
        {"net": {"scaled": True}, "heat": 1.0, "steps": 900, "fresh": True,
         "points": uniform(200, (0.0, 1.0), (0.0, 1.0))},
        {"points": seeded(200, 4, (0.0, 1.0), (0.0, 1.0))}),
    run("fin-differences", "ROUNDING", Fin,
        {**SCALED, "m": 3.0, "steps": 1000, "h": 1e-2}, {"h": 1e-4}),
    run("mixer-enthalpy", "ROUNDING", Enthalpy,
        {**SCALED, "steps": 1000, "dtype": torch.float64}, {"dtype": torch.float32}),
    run("reactor-half", "POINTS", Consecutive,
        {**SCALED, "k_1": 2.0, "k_2": 3.0, "span": 3.0, "steps": 1000, "weights": {"start": 5.0},
         "points": grid(0.0, 3.0, 40)},
        {"points": grid(0.0, 0.6, 40)}),
    run("rlc-window", "POINTS", Circuit,
        {**SCALED, "omega": 4.0, "zeta": 0.15, "steps": 1500, "optim": adam(5e-3)},
        {"window": 1500}),
    run("bar-waves", "TOO_NARROW", Bar,
        {"net": {"scaled": True, "width": 32}, "waves": (0.5, 1.5), "steps": 1500,
         "optim": adam(5e-3)},
        {"net": {"width": 2, "depth": 1}}),
    run("rlc-ringing", "TOO_NARROW", Circuit,
        {"net": {"scaled": True, "width": 32}, "omega": 5.0, "zeta": 0.15, "steps": 1500,
         "optim": adam(5e-3)},
        {"net": {"width": 2}}),
]  # fmt: skip
