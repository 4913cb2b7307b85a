"""Activations whose derivatives vanish where the equation needs them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.broken.networks import adam, uniform
from tests.broken.odes import Oscillator
from tests.broken.pdes import Burgers, Heat, Poisson, Square
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run

POISSON: dict[str, Any] = {"steps": 1500, "weights": {"bc": 100}}
SQUARE: dict[str, Any] = {
    "steps": 1500,
    "weights": {"walls": 100},
    "points": uniform(150, (0, 1), (0, 1)),
}


relu = {"net": {"activation": "relu"}}


class Bending(Pinn):
    """u''' = f on [0, 1] with u(0), u'(0), u(1): third derivatives of a thin beam."""

    def __init__(self, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        f = -torch.cos(math.pi * x.detach())
        shear = d(d(d(self.net(x), x), x), x) / math.pi**3 - f
        zero = self.at(0.0).requires_grad_()
        u_0 = self.net(zero)
        return self.total(
            shear=shear.pow(2).mean(),
            held=u_0.pow(2).mean() + self.net(self.at(1.0)).pow(2).mean(),
            slope=(d(u_0, zero) / math.pi - 1).pow(2).mean(),
        )


VANISHES = [
    Run("vanishes-poisson-relu", "DERIVATIVE_VANISHES", "set", Poisson, POISSON, relu),
    Run(
        "vanishes-heat-leaky-relu",
        "DERIVATIVE_VANISHES",
        "set",
        Heat,
        {"steps": 1000},
        {"net": {"activation": "leaky_relu"}},
    ),
    Run(
        "vanishes-oscillator-relu",
        "DERIVATIVE_VANISHES",
        "set",
        Oscillator,
        {"steps": 1500, "span": 3.0},
        relu,
        note="u'' + u: the term still trains through u",
    ),
    Run("vanishes-square-relu", "DERIVATIVE_VANISHES", "set", Square, SQUARE, relu),
    Run(
        "vanishes-screened-prelu",
        "DERIVATIVE_VANISHES",
        "set",
        Poisson,
        POISSON | {"reaction": 4.0},
        {"net": {"activation": "prelu"}},
    ),
    Run(
        "vanishes-bending-square-of-relu",
        "DERIVATIVE_VANISHES",
        "set",
        Bending,
        {"steps": 1500},
        {"net": {"activation": "square_of_relu"}},
        note="the third derivative of relu squared",
    ),
    Run(
        "vanishes-burgers-hardtanh",
        "DERIVATIVE_VANISHES",
        "set",
        Burgers,
        {"steps": 1200, "optim": adam(5e-3), "nu": 0.5},
        {"net": {"activation": "hardtanh"}},
    ),
]
