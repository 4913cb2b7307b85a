"""The problems as they were written first, each with one slip."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.broken.tenth.fields import Rod
from tests.broken.tenth.kinetics import Absorption
from tests.broken.tenth.mechanics import Spring
from tests.broken.tenth.models import Field, Limits, Sampler
from tests.broken.tenth.spaces import Diffusivity, Membrane


class FlatSlopeAbsorption(Absorption):
    """Derivatives that keep the graph of u, without one of their own."""

    def slope(self, u: Tensor, t: Tensor) -> Tensor:
        return torch.autograd.grad(u, t, torch.ones_like(u), retain_graph=True)[0]


class NumpyRod(Rod):
    """The initial condition is compared by the function that also makes the plots."""

    def at_start(self) -> Tensor:
        x = np.linspace(0, 1, 50)[:, None]
        u = self(torch.tensor(np.hstack([x, 0 * x]), dtype=self.real)).detach().cpu().numpy()
        return torch.tensor(((u - np.sin(np.pi * x)) ** 2).mean(), dtype=self.real)


class FrozenDiffusivity(Diffusivity):
    """Only the network is given to the optimizer."""

    def trainables(self) -> Any:
        return self.net.parameters()


class PlainDictSpring(Spring):
    """The second network is kept in a plain dictionary."""

    def make(self, net: dict[str, Any]) -> None:
        x = Field(1, 1, self.limits, **net)
        self.main = nn.ModuleDict({"x": x})
        self.nets = {"x": x, "v": Field(1, 1, self.limits, **net)}


class FlatDataAbsorption(Absorption):
    """The measurements come as a flat array."""

    def measured(self) -> Tensor:
        return self.plasma.flatten()


class FlatSourceMembrane(Membrane):
    """The source is computed from columns without a second dimension."""

    def source(self, z: Tensor) -> Tensor:
        x, y = z[:, 0], z[:, 1]
        u = torch.sin(self.m * torch.pi * x) * torch.sin(self.n_y * torch.pi * y)
        return self.factor * u


class BackwardDiffusivity(Diffusivity):
    """All terms brought to the same side, one with the wrong sign."""

    def operator(self, u_t: Tensor, u_xx: Tensor, u: Tensor) -> Tensor:
        a, k = self.coefficients
        return u_t + a * u_xx + k * u


def mesh(limits: Limits, n: int, tile: bool = False) -> Sampler:
    """All pairs of n values of either coordinate; ``tile`` repeats both in the same order."""
    (a, b), (c, d) = limits

    def sample() -> Tensor:
        x, y = torch.linspace(a, b, n), torch.linspace(c, d, n)
        y = y.repeat(n) if tile else y.repeat_interleave(n)
        return torch.stack([x.repeat(n), y], dim=1)

    return sample
