"""Unknown coefficients from data, each with its own training step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.networks import mlp
from tests.broken.ninth.bare import Bare, gradient


class Spring(Bare):
    """u'' + c u' + k u = 0 with unknown c and k, and readings of u in batches."""

    c_true, k_true = 0.6, 4.0

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        sign: float = 1.0,
        flat: bool = False,
        alone: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.box = ((0.0, 4.0),)
        self.net = mlp(1, 1, **{"box": self.box, **(net or {})})
        self.log_c, self.log_k = (nn.Parameter(torch.tensor(s)) for s in (0.0, 0.5))
        self.sign, self.flat, self.alone = sign, flat, alone
        self.mse = nn.MSELoss()

    def truth(self, t: Tensor) -> Tensor:
        rate, omega = self.c_true / 2, math.sqrt(self.k_true - self.c_true**2 / 4)
        return torch.exp(-rate * t) * torch.cos(omega * t)

    def loader(self, steps: int) -> DataLoader[Any]:
        t = torch.linspace(0, 4, 40)[:, None]
        u = self.truth(t)
        data = TensorDataset(t, u[:, 0] if self.flat else u)
        return DataLoader(data, batch_size=20, shuffle=True)

    def trained(self) -> Any:
        return self.net.parameters() if self.alone else self.parameters()

    def predict(self, t: Tensor) -> Tensor:
        return self.net(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, reading = batch
        t = t.clone().requires_grad_()
        u = self.net(t)
        v = gradient(u, t)
        law = gradient(v, t) + self.sign * self.log_c.exp() * v + self.log_k.exp() * u
        data, physics = self.mse(u, reading), 0.05 * law.square().mean()
        self.log("data", data)
        self.log("physics", physics)
        return data + physics

    def error(self) -> float:
        c, k = self.log_c.exp().item(), self.log_k.exp().item()
        return max(super().error(), abs(c / self.c_true - 1), abs(k / self.k_true - 1))


class Kinetics(Bare):
    """a' = -k a, b' = k a - l b with unknown k and l, and readings of both."""

    k_true, l_true = 2.0, 0.7

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        wrong: float = 1.0,
        flat: bool = False,
        physics: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.box = ((0.0, 3.0),)
        self.net = mlp(1, 2, **{"box": self.box, **(net or {})})
        self.rates = nn.Parameter(torch.ones(2))
        self.wrong, self.flat, self.physics = wrong, flat, physics
        self.register_buffer("when", torch.linspace(0, 3, 15)[:, None])

    def truth(self, t: Tensor) -> Tensor:
        k, n = self.k_true, self.l_true
        a, e = torch.exp(-k * t), torch.exp(-n * t)
        return torch.cat([a, k / (n - k) * (a - e)], 1)

    def predict(self, t: Tensor) -> Tensor:
        return self.net(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = torch.linspace(0, 3, 40)[:, None].requires_grad_()
        a, b = self.net(t).split(1, 1)
        k, n = self.rates
        first = gradient(a, t) + k * a
        second = gradient(b, t) - self.wrong * k * a + n * b
        got, seen = self.net(self.when), self.truth(self.when)
        data_a = got[:, :1] - (seen[:, 0] if self.flat else seen[:, :1])
        data_b = got[:, 1:] - (seen[:, 1] if self.flat else seen[:, 1:])
        loss = self.physics * (first.pow(2).mean() + second.pow(2).mean())
        loss = loss + data_a.pow(2).mean() + data_b.pow(2).mean()
        self.log("loss", loss)
        return loss

    def error(self) -> float:
        k, n = self.rates.tolist()
        return max(super().error(), abs(k / self.k_true - 1), abs(n / self.l_true - 1))


class Ground(Bare):
    """(D u')' = f with an unknown field D, a network too, from u and one flux."""

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        flux: bool = True,
        only_u: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.head, self.field = mlp(1, 1, **(net or {})), mlp(1, 1, **(net or {}))
        self.flux, self.only_u = flux, only_u

    def truth(self, x: Tensor) -> Tensor:
        return torch.cat([x + x * x / 2, 2 + 0.5 * torch.sin(4 * x)], 1)

    def f(self, x: Tensor) -> Tensor:
        return 2 + 0.5 * torch.sin(4 * x) + 2 * torch.cos(4 * x) * (1 + x)

    def trained(self) -> Any:
        return self.head.parameters() if self.only_u else self.parameters()

    def predict(self, x: Tensor) -> Tensor:
        return torch.cat([self.head(x), self.field(x)], 1)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        x = torch.linspace(0, 1, 40)[:, None].requires_grad_()
        u, diffusivity = self.head(x), self.field(x)
        flow = diffusivity * gradient(u, x)
        losses = {
            "balance": (gradient(flow, x) - self.f(x)).square().mean(),
            "wells": 10 * (u - self.truth(x)[:, :1].detach()).square().mean(),
        }
        if self.flux:
            losses["flux"] = (flow[0] - 2).square().mean()
        return {"loss": sum(losses.values()), **{k: v.detach() for k, v in losses.items()}}


class Standing(Bare):
    """A plane wave from readings at 400 places, with Laplace u + k^2 u = 0 besides."""

    box = ((0.0, 1.0), (0.0, 1.0))

    def __init__(self, net: dict[str, Any] | None = None, k: float = 30.0, **options: Any) -> None:
        super().__init__(**options)
        self.net, self.k = mlp(2, 1, **(net or {})), k
        self.register_buffer("places", torch.rand(400, 2))

    def truth(self, x: Tensor) -> Tensor:
        return torch.cos(self.k * (0.6 * x[:, :1] + 0.8 * x[:, 1:]))

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        x = torch.rand(100, 2, requires_grad=True)
        u = self.net(x)
        g = gradient(u, x)
        laplace = sum(gradient(g[:, [i]], x)[:, [i]] for i in (0, 1))
        wave = torch.linalg.vector_norm(laplace / self.k**2 + u) ** 2 / 100
        readings = nn.functional.mse_loss(self.net(self.places), self.truth(self.places))
        self.log_dict({"wave": wave, "readings": readings})
        return {"loss": 0.1 * wave + readings}
