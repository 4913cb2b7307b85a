"""Runs that work, and some that were stopped when they had hardly begun."""

from __future__ import annotations

from functools import partial

from torch.optim import lr_scheduler

from tests.broken.fifth.bodies import MixedBeam, Pellet, Rod
from tests.broken.fifth.code import SCALED, run
from tests.broken.fifth.kinetics import Circuit, Infusion, Oral
from tests.broken.fifth.plane import Pipe
from tests.broken.fifth.thermal import Nerve
from tests.broken.networks import adam, lbfgs, sgd, uniform

SOUND = [
    run("infusion-samples", "CLEAN", Infusion,
        {**SCALED, "steps": 1500, "optim": adam(1e-2), "start": 3.0, "guess": 0.8,
         "weights": {"samples": 20.0},
         "schedule": partial(lr_scheduler.ExponentialLR, gamma=0.9995)}, {}),
    run("beam-mixed", "CLEAN", MixedBeam, {**SCALED, "steps": 800, "optim": adam(5e-3)}, {}),
    run("pellet-lbfgs", "CLEAN", Pellet,
        {**SCALED, "phi": 2.5, "steps": 40, "optim": lbfgs(max_iter=10)}, {}),
    run("rod-record", "CLEAN", Rod,
        {**SCALED, "record": 8, "steps": 900, "batch": 100, "optim": adam(5e-3),
         "points": uniform(300, (0, 1), (0, 1))}, {}),
    run("rlc-brief", "EARLY", Circuit, {**SCALED, "omega": 5.0, "steps": 120}, {}),
    run("pipe-brief", "EARLY", Pipe,
        {**SCALED, "v": 2.0, "steps": 50, "optim": adam(5e-3),
         "points": uniform(250, (0, 6.28), (0, 1))}, {}),
    run("nerve-brief", "EARLY", Nerve, {**SCALED, "span": 2.0, "steps": 60, "batch": 20,
         "weights": {"rest": 10.0}}, {}),
    run("oral-brief", "EARLY", Oral,
        {**SCALED, "steps": 100, "optim": sgd(0.01, momentum=0.9)}, {}),
]  # fmt: skip
