"""The optics person: fields as two real outputs, envelopes, rays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev, vmap
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.networks import mlp
from tests.broken.twelfth.base import Model


class Beamlet(Model):
    """Paraxial i u_z + u_xx / 2 = 0 for a Gaussian beam with its waist at z = 0."""

    def __init__(self, weight: float = 1.0, **options: Any) -> None:
        super().__init__(((-4.0, 4.0), (0.0, 1.0)), **options)
        self.weight = weight
        self.encoder = nn.Sequential(nn.Linear(2, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh())
        self.field = nn.Linear(40, 2)
        spots = torch.rand(1000, 2) * torch.tensor([8.0, 1.0]) - torch.tensor([4.0, 0.0])
        self.spots = TensorDataset(spots)

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(self.spots, batch_size=125, shuffle=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.field(self.encoder(x))

    def predict(self, x: Tensor) -> Tensor:
        return self(x)

    def truth(self, x: Tensor) -> Tensor:
        q = 1 + 1j * x[:, [1]]
        u = torch.exp(-(x[:, [0]] ** 2) / (2 * q)) / torch.sqrt(q)
        return torch.cat([u.real, u.imag], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weights = dict(self.named_parameters())

        def field(x: Tensor) -> Tensor:
            return functional_call(self, weights, (x,))

        (x,) = batch
        u_z = vmap(jacrev(field))(x)[:, :, 1]
        u_xx = vmap(hessian(field))(x)[:, :, 0, 0]
        real, imaginary = 0.5 * u_xx[:, 0] - u_z[:, 1], 0.5 * u_xx[:, 1] + u_z[:, 0]
        paraxial = torch.mean(real**2 + imaginary**2)
        waist = torch.stack([torch.linspace(-4, 4, 60), torch.zeros(60)], dim=1)
        launch = torch.mean(torch.sum((self(waist) - self.truth(waist)) ** 2, dim=1))
        sides = torch.stack([torch.tensor([-4.0, 4.0]).repeat(20), torch.rand(40)], dim=1)
        dark = torch.mean(torch.sum((self(sides) - self.truth(sides)) ** 2, dim=1))
        self.log("paraxial", paraxial)
        self.log("launch", launch)
        self.log("dark", dark)
        return self.weight * paraxial + 10 * launch + dark


class Slab(Model):
    """Field in a slab from a near-field probe, with u'' + k^2 u = 0 as physics; two fields."""

    def __init__(self, features: float = 40.0, k: float = 60.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.k = k
        self.net = mlp(1, 2, width=48, features=features, box=None if features else self.box)
        x = torch.linspace(0, 1, 90)[:, None]
        self.register_buffer("probe", x)
        self.register_buffer("read", self.truth(x))

    def truth(self, x: Tensor) -> Tensor:
        forth, back = self.k * x, self.k * (1 - x)
        real = forth.cos() + 0.3 * back.cos()
        return torch.cat([real, forth.sin() + 0.3 * back.sin()], dim=1)

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.probe.clone().requires_grad_()
        u = self.net(x)
        curved = []
        for part in u.split(1, dim=1):
            (u_x,) = torch.autograd.grad(part.sum(), x, create_graph=True)
            curved.append(torch.autograd.grad(u_x.sum(), x, create_graph=True)[0])
        wave = torch.cat(curved, dim=1) / self.k**2 + u
        helmholtz, data = (wave.norm() ** 2 / len(x), (u - self.read).norm() ** 2 / len(x))
        self.log("helmholtz", helmholtz)
        self.log("data", data)
        return 0.1 * helmholtz + data


class Rays(Model):
    """A ray in an array of waveguides, x' = p and p' = -sin x; one network for each."""

    def __init__(self, span: float = 4.0, n: int = 150, width: int = 40, **options: Any) -> None:
        super().__init__(((0.0, span),), **options)
        self.span, self.n = span, n
        self.place = mlp(1, 1, width=width, box=self.box)
        self.angle = mlp(1, 1, width=width, box=self.box)

    def predict(self, z: Tensor) -> Tensor:
        return torch.cat([self.place(z), self.angle(z)], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = (self.span * torch.rand(self.n, 1)).requires_grad_()
        x, p = self.place(z), self.angle(z)
        (x_z,) = torch.autograd.grad(x.sum(), z, create_graph=True)
        (p_z,) = torch.autograd.grad(p.sum(), z, create_graph=True)
        rays = torch.linalg.vector_norm(x_z - p) ** 2 + torch.linalg.vector_norm(p_z + x.sin()) ** 2
        entry = self.predict(torch.zeros(1, 1)) - torch.tensor([[2.0, 0.0]])
        loss = rays / self.n + entry.square().sum()
        self.log("loss", loss)
        return loss

    def truth(self, z: Tensor) -> Tensor:
        def rhs(_: float, y: Any) -> Any:
            return [y[1], -np.sin(y[0])]

        solved = solve_ivp(
            rhs, (0, self.span), [2, 0], t_eval=z[:, 0].numpy(), rtol=1e-9, atol=1e-9
        )
        return torch.as_tensor(solved.y.T)


class Laser(Model):
    """Van der Pol u'' - m (1 - u^2) u' + u = 0, started by a first-order envelope.

    ``window``: steps in which a window of a tenth of the time moves over all of it.
    """

    def __init__(self, span: float = 5.0, window: int = 0, **options: Any) -> None:
        super().__init__(((0.0, span),), **options)
        self.span, self.window = span, window
        self.net = mlp(1, 1, width=40, box=self.box, activation="sin")

    def predict(self, t: Tensor) -> Tensor:
        return torch.exp(-t) * (1 + t) + t**2 / (1 + t**2) * self.net(t)

    def times(self) -> Tensor:
        t = torch.rand(100, 1)
        if self.window:
            t = 0.1 * t + 0.9 * min(1.0, self.global_step / self.window)
        return self.span * t

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.times().requires_grad_()
        u = self.predict(t)
        (v,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        (a,) = torch.autograd.grad(v.sum(), t, create_graph=True)
        loss = (a - 0.7 * (1 - u**2) * v + u).square().mean()
        self.log("oscillation", loss)
        return loss

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, y: Any) -> Any:
            return [y[1], 0.7 * (1 - y[0] ** 2) * y[1] - y[0]]

        solved = solve_ivp(
            rhs, (0, self.span), [1, 0], t_eval=t[:, 0].numpy(), rtol=1e-9, atol=1e-9
        )
        return torch.as_tensor(solved.y[0])[:, None]
