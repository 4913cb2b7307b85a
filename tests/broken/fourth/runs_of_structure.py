"""Runs: graph, parameters, shapes, points, activations, conditions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tests.broken.fourth.base import CubicRelu, Sine, adam
from tests.broken.fourth.finance_and_light import Signal
from tests.broken.fourth.heat import Fin, Slab
from tests.broken.fourth.mechanics import Beam, Membrane, MixedBeam, Pendulum
from tests.broken.fourth.networks_and_tanks import Circuit, Kinetics
from tests.broken.fourth.populations import Delay, Epidemic
from tests.broken.run import Run

FIN: dict[str, Any] = {"steps": 1200}
SLAB: dict[str, Any] = {"steps": 500, "n": 120, "opt": adam(8e-3), "net": {"width": 20}}
CIRCUIT: dict[str, Any] = {"steps": 1300, "opt": adam(1e-2), "net": {"width": 32}}
BEAM: dict[str, Any] = {"steps": 700, "opt": adam(5e-3), "net": {"width": 16}}
MIXED: dict[str, Any] = {"steps": 1200}
KINETICS: dict[str, Any] = {"steps": 1500, "opt": adam(5e-3)}
MEMBRANE: dict[str, Any] = {"steps": 1200, "opt": adam(5e-3)}
SIGNAL: dict[str, Any] = {"steps": 1500, "opt": adam(5e-3)}


def broken(name: str, cause: str, problem: Any, settings: Any, **mistake: Any) -> Run:
    return Run(f"fourth-{name}", cause, "set", problem, settings, mistake)


def strip(points: Tensor) -> Tensor:
    """Of the unit square the lower left corner."""
    return 0.25 * points


def one(points: Tensor) -> Tensor:
    """The first point, as often as there are points."""
    return points[:1].expand_as(points).clone()


def few(points: Tensor) -> Tensor:
    return points[:4]


GRAPH = [
    broken("slab-initial", "DETACHED", Slab, SLAB, frozen_start=True),
    broken("circuit-graph", "DETACHED", Circuit, CIRCUIT, graph=False),
    broken("fin-relu", "DERIVATIVE_VANISHES", Fin, FIN, net={"act": nn.ReLU}),
    broken(
        "beam-cubic",
        "DERIVATIVE_VANISHES",
        Beam,
        BEAM | {"net": {"width": 40, "depth": 1}},
        net={"act": CubicRelu},
    ),
    broken("beam-moment", "NOT_TRAINED", MixedBeam, MIXED, only="deflection"),
    broken("kinetics-rates", "NOT_TRAINED", Kinetics, KINETICS | {"guess": 0.4}, fit_rates=False),
    broken("membrane-row", "BROADCAST", Membrane, MEMBRANE, flat=True),
    broken("signal-row", "BROADCAST", Signal, SIGNAL | {"net": {"act": Sine}}, row=True),
]

PLACES = [
    broken("delay-whole", "REPEATED_POINTS", Delay, {"steps": 1200}, whole=True),
    broken("signal-index", "REPEATED_POINTS", Signal, SIGNAL, pick=lambda i: 17),
    broken("membrane-corner", "POINTS", Membrane, MEMBRANE, place=strip),
    broken("slab-early-times", "POINTS", Slab, SLAB, until=0.1),
]

CONDITIONS = [
    broken("fin-no-wall", "NOTHING_TO_FIND", Fin, FIN, omit=("wall",)),
    broken("pendulum-at-rest", "NOTHING_TO_FIND", Pendulum, {"steps": 1500}, released=False),
    broken("fin-hot-tip", "CONTRADICTION", Fin, FIN, hot_tip=1.5),
    broken("epidemic-reports", "CONTRADICTION", Epidemic, {"steps": 1500}, second=0.1),
    broken("circuit-current", "NOT_UNIQUE", Circuit, CIRCUIT | {"current": 2.0}, ask_current=False),
    broken("beam-unclamped", "NOT_UNIQUE", Beam, BEAM, weights=(0.01, 10, 0, 1, 1)),
    broken("beam-load", "IMBALANCE", Beam, BEAM, weights=(1e-9, 10, 10, 1, 1)),
]
STRUCTURE = [*GRAPH, *PLACES, *CONDITIONS]
