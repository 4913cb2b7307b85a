"""What the gallery benchmark trains: problems, designs of points, and settings of the balancer.

All problems have one network, one optimiser and one budget of steps; what is their own is the
equation and the numbers of points, which are those of ``configs/``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule

from benchmarks.report import ROOT

STEPS = 3000
"""Of every run."""

EVERY = 100
"""Steps between updates of the weights."""

TRAINED = {"lr": 2e-3, "decay": 0.7}
"""Adam, and the factor by which its learning rate falls in 1000 steps."""

NETWORK = {"width": 50, "depth": 3}
"""Three hidden layers of 50 tanh."""

DESIGNS = ("all points", "a tenth of the boundary")
"""Each problem is also trained with its boundary points cut to a tenth."""

SEEDS = {DESIGNS[0]: (0, 1, 2), DESIGNS[1]: (0,)}
"""Of each design."""


@dataclass(frozen=True)
class GalleryProblem:
    """One of ``examples/``, in the size of the benchmark."""

    script: str  # in examples/, and its class of that name
    kind: str
    title: str
    boundary: int  # points, as far as a term has some of its own
    settings: Mapping[str, Any] = field(default_factory=lambda: NETWORK | TRAINED)

    def build(self, design: str, seed: int) -> tuple[LightningModule, LightningDataModule]:
        """The module and its points; Lightning's seed has to be set before."""
        script = example(self.script)
        count = self.boundary if design == DESIGNS[0] else self.boundary // 10
        seeded = {} if self.script == "poisson" else {"seed": seed}  # whose points are fixed
        data = script.Points(steps=STEPS, n_boundary=count, **seeded)
        model = getattr(script, self.kind)(**self.settings)
        if self.script == "poisson":  # the script descends by plain gradients, in 40,000 steps
            model.decay = TRAINED["decay"]
            by_adam = super(type(model), type(model)).configure_optimizers
            model.configure_optimizers = partial(by_adam, model)
        return model, data


PROBLEMS = [
    GalleryProblem("poisson", "Poisson", "Poisson 1-D, a = 4", 100, {"width": 100, "lr": 2e-3}),
    GalleryProblem("wave", "Wave", "wave, two modes", 100),
    GalleryProblem("helmholtz", "Helmholtz", "Helmholtz 2-D", 100),
    GalleryProblem("klein_gordon", "KleinGordon", "Klein-Gordon", 200),
    GalleryProblem("burgers", "Burgers", "Burgers", 60),
    GalleryProblem("allen_cahn", "AllenCahn", "Allen-Cahn", 60),
    GalleryProblem("advection", "Advection", "advection, beta = 30", 60),
    GalleryProblem("two_scale_poisson", "TwoScalePoisson", "two-scale Poisson", 20),
    GalleryProblem("kovasznay", "Kovasznay", "Kovasznay flow", 100),
    GalleryProblem("inverse_burgers", "InverseBurgers", "inverse Burgers", 60),
]

AVERAGED = {"every_n_steps": EVERY, "ema": 0.9}
"""How the weights of all rules follow."""

RULES: dict[str, dict[str, Any]] = {
    "none": {"rule": "none"},
    "trace": AVERAGED | {"rule": "trace"},
    "trace, sum": AVERAGED | {"rule": "trace", "convention": "sum"},
    "trace, rate": AVERAGED | {"rule": "trace", "convention": "rate"},
    "largest_eigenvalue": AVERAGED | {"rule": "largest_eigenvalue"},
    "gradient_norm": AVERAGED | {"rule": "gradient_norm"},
    "residual_decay": AVERAGED | {"rule": "residual_decay"},
    "pointwise": AVERAGED | {"rule": "pointwise"},
}
"""Column of the table -> settings of `NTKBalancer`."""

SETTINGS: dict[str, dict[str, Any]] = {
    "ema 0": {"ema": 0.0},
    "ema 0.99": {"ema": 0.99},
    "warm-up 500": {"warmup_steps": 500},
    "no bound on changes": {"max_change": float("inf")},
}
"""Other settings that the rule that is chosen is trained with."""

SPARSER: dict[str, dict[str, Any]] = {
    "every 500, ema 0.6, no bound": {"every_n_steps": 500, "ema": 0.6, "max_change": float("inf")}
}
"""An average over as many steps (0.6 is near 0.9 ** 5), at a fifth of the cost."""


def balancer_of(column: str) -> dict[str, Any]:
    """Settings of a column, such as "trace" or "trace + ema 0"."""
    rule, _, setting = column.partition(" + ")
    return RULES[rule] | ((SETTINGS | SPARSER)[setting] if setting else {})


def example(name: str) -> ModuleType:
    """A script of ``examples/``; ``wave`` is not that of Python."""
    folder = str(ROOT / "examples")
    sys.modules.pop("wave", None)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)
        sys.modules.pop("wave", None)
