"""Runs with unsuitable units, steps, weights or networks; healthy ones, and those cut short."""

from __future__ import annotations

from functools import partial

import torch

from tests.broken.networks import grid, lbfgs, sgd, uniform
from tests.broken.seventh.fields import Beam, Fin, Plate, Transport, Wave
from tests.broken.seventh.motions import Barometer, Bistable, Epidemic, Signal
from tests.broken.seventh.ode_hand import Logistic, Pendulum
from tests.broken.seventh.ode_more import Falling, Tank
from tests.broken.seventh.pde_hand import Membrane, Rod
from tests.broken.seventh.pde_more import HeatXT
from tests.broken.seventh.runs_a import run
from tests.broken.seventh.species import TwoSpecies

SQUARE = ((0.0, 1.0), (0.0, 1.0))

RUNS_B = [
    run(
        "cable-metres",
        "OUTPUTS_NOT_SCALED",
        Beam,
        {"steps": 1500, "sag": 1e-6, "scaled_by": 1e-6},
        {"scaled_by": 1.0},
    ),
    run(
        "logistic-heads",
        "OUTPUTS_NOT_SCALED",
        Logistic,
        {"steps": 1500, "K": 5000.0, "t1": 4.0, "n0": 0.3},
        {"scale_u": False},
    ),
    run("membrane-dropout", "RANDOM_OR_DECAY", Membrane, {"steps": 900}, {"dropout": 0.3}),
    run(
        "epidemic-decay",
        "RANDOM_OR_DECAY",
        Epidemic,
        {"steps": 1000, "optim": partial(torch.optim.AdamW, lr=5e-3)},
        {"optim": partial(torch.optim.AdamW, lr=5e-3, weight_decay=20.0)},
    ),
    run("pendulum-lr", "STEP_TOO_SHORT", Pendulum, {"steps": 1500, "theta0": 0.8}, {"lr": 1e-6}),
    run("membrane-schedule", "STEP_TOO_SHORT", Membrane, {"steps": 900}, {"gamma": 0.9}),
    run(
        "pendulum-first-second",
        "POINTS",
        Pendulum,
        {"steps": 1500, "theta0": 1.2},
        {"t_train": 1.0},
    ),
    run(
        "plate-few",
        "POINTS",
        Plate,
        {"steps": 1000, "waves": 2, "points": uniform(200, *SQUARE)},
        {"points": uniform(5, *SQUARE)},
    ),
    run("tank-width", "TOO_NARROW", Tank, {"steps": 1500, "n": 32}, {"width": 1}),
    run(
        "transport-width",
        "TOO_NARROW",
        Transport,
        {"steps": 1200, "k": 6.0, "weights": {"known": 10}},
        {"net": {"width": 2}},
    ),
    run("rod-differences", "ROUNDING", Rod, {"steps": 1200, "h": 1e-2}, {"h": 1e-4}),
    run(
        "barometer",
        "ROUNDING",
        Barometer,
        {"steps": 1200, "dtype": torch.float64},
        {"dtype": torch.float32},
    ),
    run("heat-lr", "STEP_TOO_LARGE", HeatXT, {"steps": 1000, "a": 0.2}, {"lr": 0.3}),
    run(
        "fin-momentum",
        "STEP_TOO_LARGE",
        Fin,
        {"steps": 1500, "optim": sgd(0.02, momentum=0.9), "trainer": {"gradient_clip_val": 1.0}},
        {"optim": sgd(2.0, momentum=0.9)},
    ),
    run(
        "pendulum-start",
        "IMBALANCE",
        Pendulum,
        {"steps": 1500, "tmax": 3.0},
        {"start_weight": 1e-5},
    ),
    run(
        "rod-units",
        "IMBALANCE",
        Rod,
        {"steps": 1500, "waves": 4, "w_b": 1.0},
        {"unit": False},
    ),
    run(
        "bistable",
        "CAUSALITY",
        Bistable,
        {
            "steps": 1500,
            "u_0": 0.05,
            "span": 8.0,
            "causal": 1000.0,
            "points": grid(0.0, 8.0, 80),
            "net": {"scaled": True},
        },
        {"causal": 0.0},
    ),
    run(
        "logistic-from-few",
        "CAUSALITY",
        Logistic,
        {"steps": 1500, "t1": 5.0, "lambda_ic": 100.0, "causal": 100.0},
        {"causal": 0.0},
    ),
    run(
        "heat-sign",
        "CONTRADICTION",
        HeatXT,
        {"steps": 1000, "measured": True, "w_ic": 1.0},
        {"sign": -1.0},
    ),
    run("transport-sign", "CONTRADICTION", Transport, {"steps": 1000, "k": 3.0}, {"sign": -1.0}),
    run(
        "signal-tones",
        "SPECTRAL_BIAS",
        Signal,
        {"steps": 1500, "tones": (1, 2, 12), "points": grid(0, 1, 150), "net": {"features": 40.0}},
        {"net": {"features": 0.0}},
    ),
    run(
        "rod-waves",
        "SPECTRAL_BIAS",
        Rod,
        {"steps": 1500, "waves": 12, "n_f": 150, "embed": 16},
        {"embed": 0},
    ),
    run("tank-lbfgs", "CLEAN", Tank, {"steps": 150, "n": 64, "optimizer": "LBFGS", "reseed": True}),
    run("species", "CLEAN", TwoSpecies, {"steps": 1400, "lr": 6e-3}),
    run("plate-ansatz", "CLEAN", Plate, {"steps": 900}),
    run("fin-lbfgs", "CLEAN", Fin, {"steps": 100, "m": 3.0, "optim": lbfgs(max_iter=10)}),
    run("epidemic-early", "EARLY", Epidemic, {"steps": 40, "b": 2.5}),
    run("transport-early", "EARLY", Transport, {"steps": 60, "k": 4.0}),
    run("falling-early", "EARLY", Falling, {"steps": 60, "lr": 3e-3}),
    run("string-early", "EARLY", Wave, {"steps": 80}),
]
