"""The runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.optim import lr_scheduler

from tests.broken.eleventh import clocks, fields, fronts, profiles, profiles2
from tests.broken.eleventh.common import adam, adamw, fwd_gradients, lbfgs, sgd
from tests.broken.run import Run


def run(
    name: str,
    cause: str,
    problem: Any,
    settings: Mapping[str, Any],
    mistake: Mapping[str, Any] | None = None,
) -> Run:
    return Run("eleventh-" + name, cause, "judge", problem, settings, mistake or {})


LN2 = math.log(2)
SMALL: dict[str, Any] = {"width": 24, "depth": 2}
poly = partial(lr_scheduler.PolynomialLR, power=1.0)

CLOCKS = [
    run(
        "chain",
        "CONTRADICTION",
        clocks.RadioactiveChain,
        {"steps": 1000, "rates": (LN2 / 2.0, LN2 / 3.0), "optim": adamw(3e-3)},
        {"rates": (2.0, 3.0)},
    ),
    run(
        "prey",
        "BROADCAST",
        clocks.LotkaVolterra,
        {"steps": 1200, "net": SMALL},
        {"keepdim": False},
    ),
    run(
        "lorenz",
        "CAUSALITY",
        clocks.Lorenz,
        {"steps": 1500, "net": {"act": "sin"}, "optim": adam(5e-3)},
        {"t_end": 3.0},
    ),
    run(
        "pendulum",
        "CAUSALITY",
        clocks.Pendulum,
        {"steps": 1500, "net": {"act": "sin"}, "optim": adam(5e-3)},
        {"eps": 0.0},
    ),
    run(
        "carbon",
        "STEP_TOO_SHORT",
        clocks.CarbonBoxes,
        {"steps": 1000, "optim": adam(5e-3), "schedule": partial(poly, total_iters=1000)},
        {"schedule": partial(poly, total_iters=10)},
    ),
    run(
        "seismometer",
        "RANDOM_OR_DECAY",
        clocks.Seismometer,
        {"steps": 1500, "net": {"width": 32, "depth": 2}},
        {"net": {"dropout": 0.1}},
    ),
    run("lava", "EARLY", clocks.Cooling, {"steps": 60, "optim": sgd(0.01, momentum=0.9)}),
]

PROFILES = [
    run("glacier", "DIVERGED", profiles.Glacier, {"steps": 1000}, {"eps": 0.0}),
    run(
        "beam",
        "DERIVATIVE_VANISHES",
        profiles.Beam,
        {"steps": 1000, "net": SMALL},
        {"net": {"act": "relu2"}},
    ),
    run(
        "permeability",
        "NOT_TRAINED",
        profiles.Permeability,
        {"steps": 1300, "net": SMALL, "optim": adam(1e-2)},
        {"both": False},
    ),
    run("ditches", "ROUNDING", profiles.Ditches, {"steps": 1200, "net": SMALL}, {"dx": 1e-5}),
    run(
        "rod",
        "CONTRADICTION",
        profiles.Rod,
        {
            "steps": 60,
            "net": SMALL,
            "optim": lbfgs(max_iter=10, history_size=30),
            "flow": (-3 * math.cos(0.5), 3 * math.cos(3.5)),
        },
        {"flow": (3 * math.cos(0.5), 3 * math.cos(3.5))},
    ),
    run("screened", "SPECTRAL_BIAS", profiles.Screened, {"steps": 1000}, {"siren": False}),
    run("rock", "IMBALANCE", profiles.LayeredRock, {"steps": 1200, "net": SMALL}, {"raw": True}),
    run(
        "aquifer",
        "NOT_UNIQUE",
        profiles2.Aquifer,
        {"steps": 60, "net": SMALL, "optim": lbfgs(max_iter=10, history_size=30)},
        {"river": False},
    ),
    run(
        "fin",
        "SATURATED",
        profiles2.Fin,
        {"steps": 1200, "net": {"width": 64, "depth": 3}},
        {"net": {"std": 3.0}},
    ),
    run("bratu", "CLEAN", profiles2.Bratu, {"steps": 260, "net": SMALL}),
]

FIELDS = [
    run(
        "seiche",
        "DETACHED",
        fields.ShallowWater,
        {"steps": 1000},
        {"grad": fwd_gradients},
    ),
    run(
        "klein-gordon",
        "REPEATED_POINTS",
        fields.KleinGordon,
        {"steps": 1000, "optim": adam(5e-3)},
        {"seed": 1234},
    ),
    run(
        "borehole",
        "INPUTS_NOT_SCALED",
        fields.Borehole,
        {"steps": 1000},
        {"net": {"normalize": False}},
    ),
    run(
        "cavity",
        "NOTHING_TO_FIND",
        fields.Maxwell,
        {"steps": 1200, "optim": adam(5e-3)},
        {"terms": ("B0",)},
    ),
    run(
        "consolidation",
        "OUTPUTS_NOT_SCALED",
        fields.Consolidation,
        {"steps": 800, "net": SMALL},
        {"scale": 1.0},
    ),
    run("circle", "CLEAN", fields.Periodic, {"steps": 1000, "optim": adam(2e-3)}),
]

FRONTS = [
    run("soliton", "POINTS", fronts.KdV, {"steps": 1200, "optim": adam(5e-3)}, {"n_f": 10}),
    run("frost", "POINTS", profiles2.Permafrost, {"steps": 1200}, {"window": 1000}),
    run("invasion", "EARLY", fronts.Fisher, {"steps": 40, "net": SMALL, "optim": adam(1e-3)}),
    run("channel", "NOT_UNIQUE", fronts.Channel, {"steps": 1000}, {"rate": False}),
    run(
        "darcy",
        "TOO_NARROW",
        fronts.Darcy,
        {"steps": 1200, "net": {"width": 40}, "optim": adam(5e-3)},
        {"net": {"width": 3}},
    ),
    run(
        "stokes",
        "STEP_TOO_LARGE",
        fronts.Stokes,
        {"steps": 700, "net": {"width": 24, "depth": 2, "wn": True}},
        {"optim": adam(0.5)},
    ),
    run("helmholtz", "IMBALANCE", fronts.Helmholtz, {"steps": 1200}, {"w_b": 1.0}),
    run("sound", "EARLY", fronts.Helmholtz, {"steps": 60, "m": 2, "optim": adam(1e-3)}),
    run("growth", "CLEAN", fronts.Growth, {"steps": 900, "net": SMALL}),
]

ELEVENTH = [*CLOCKS, *PROFILES, *FIELDS, *FRONTS]
