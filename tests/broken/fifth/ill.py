"""Problems that have no solution, several, or an empty one; times that are too long."""

from __future__ import annotations

from tests.broken.fifth.bodies import Bar, Fin, Rod
from tests.broken.fifth.code import SCALED, run
from tests.broken.fifth.kinetics import Circuit
from tests.broken.fifth.plane import Epidemic
from tests.broken.fifth.thermal import Nerve
from tests.broken.networks import adam, grid, uniform

ILL = [
    run("fin-base", "NOTHING_TO_FIND", Fin, {**SCALED, "m": 1.5, "steps": 1000},
        {"without": ("base",)}),
    run("rod-initial", "NOTHING_TO_FIND", Rod,
        {**SCALED, "steps": 800, "points": uniform(200, (0, 1), (0, 1))}, {"without": ("ic",)}),
    run("nerve-long", "CAUSALITY", Nerve,
        {**SCALED, "span": 2.0, "steps": 1300, "points": grid(0, 2, 100), "optim": adam(5e-3),
         "weights": {"rest": 10.0}},
        {"span": 9.0, "points": grid(0, 9, 100)}),
    run("epidemic-long", "CAUSALITY", Epidemic,
        {**SCALED, "seed": 0.2, "span": 2.5, "steps": 1300, "hard": False,
         "points": grid(0, 2.5, 150)},
        {"span": 30.0, "points": grid(0, 30, 150)}),
    run("rlc-damping", "CONTRADICTION", Circuit,
        {**SCALED, "omega": 3.0, "zeta": 0.2, "measured": 40, "steps": 1300}, {"damping": 2.0}),
    run("rod-sign", "CONTRADICTION", Rod,
        {**SCALED, "heat": 1.0, "steps": 900, "points": uniform(200, (0, 1), (0, 1))},
        {"sign": -1.0}),
    run("bar-pulled", "NOT_UNIQUE", Bar,
        {**SCALED, "steps": 1500, "optim": adam(5e-3)}, {"without": ("held",)}),
    run("rlc-off", "NOT_UNIQUE", Circuit, {**SCALED, "omega": 3.0, "steps": 1300},
        {"without": ("off",)}),
]  # fmt: skip
