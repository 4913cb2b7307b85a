"""The biophysicist: a network per unknown, dicts of losses, rates kept positive."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import CombinedLoader
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.networks import mlp
from tests.broken.twelfth.base import Model


def gradient(u: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]


class Fisher(Model):
    """u_t = u_xx + u (1 - u), the travelling wave of Ablowitz and Zeppetella."""

    BOX = ((-6.0, 10.0), (0.0, 2.0))

    def __init__(
        self, until: float = 2.0, column: bool = True, width: int = 32, **options: Any
    ) -> None:
        super().__init__(self.BOX, **options)
        self.until, self.column = until, column
        self.net = mlp(2, 1, width=width, box=self.BOX)

    def truth(self, x: Tensor) -> Tensor:
        phase = (x[:, [0]] - 5 / math.sqrt(6) * x[:, [1]]) / math.sqrt(6)
        return 1 / (1 + torch.exp(phase)) ** 2

    def loader(self, steps: int) -> CombinedLoader:
        inside = torch.rand(2000, 2) * torch.tensor([16.0, self.until]) - torch.tensor([6.0, 0.0])
        first = torch.stack([torch.linspace(-6, 10, 64), torch.zeros(64)], dim=1)
        sides = torch.stack(
            [torch.tensor([-6.0, 10.0]).repeat(32), self.until * torch.rand(64)], dim=1
        )
        start = self.truth(first)
        sets = {
            "inside": TensorDataset(inside),
            "first": TensorDataset(first, start if self.column else start.flatten()),
            "sides": TensorDataset(sides, self.truth(sides)),
        }
        sizes = {"inside": 200, "first": 64, "sides": 64}
        loaders = {k: DataLoader(s, batch_size=sizes[k], shuffle=True) for k, s in sets.items()}
        return CombinedLoader(loaders, "max_size_cycle")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch["inside"][0].requires_grad_()
        u = self.net(x)
        u_x, u_t = gradient(u, x).split(1, dim=1)
        u_xx = gradient(u_x, x)[:, :1]
        losses = {"growth": F.mse_loss(u_t, u_xx + u * (1 - u))}
        for part in ("first", "sides"):
            where, value = batch[part]
            losses[part] = ((self.net(where) - value) ** 2).mean()
        self.log_dict(losses)
        return losses["growth"] + 5 * (losses["first"] + losses["sides"])

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)


class Times(pl.LightningDataModule):
    """Times of a recording, in batches."""

    def __init__(self, span: float, n: int, batch: int) -> None:
        super().__init__()
        self.times, self.batch = (TensorDataset(torch.linspace(0, span, n)[:, None]), batch)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.times, batch_size=self.batch, shuffle=True)


class Nerve(Model):
    """FitzHugh-Nagumo: v' = v - v^3/3 - w + I, w' = (v + a - b w) eps, from (v, w) = (0, 0)."""

    def __init__(
        self, span: float = 5.0, dropout: float = 0.0, n: int = 200, **options: Any
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.span, self.n = span, n
        self.v = mlp(1, 1, width=32, box=self.box, dropout=dropout)
        self.w = mlp(1, 1, width=32, box=self.box, dropout=dropout)

    def loader(self, steps: int) -> Times:
        return Times(self.span, self.n, 50)

    def rates(self, v: Any, w: Any) -> tuple[Any, Any]:
        return v - v**3 / 3 - w + 0.5, 0.3 * (v + 0.7 - 0.8 * w)

    def predict(self, t: Tensor) -> Tensor:
        return torch.cat([torch.tanh(t) * self.v(t), torch.tanh(t) * self.w(t)], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = batch[0].requires_grad_()
        v, w = self.predict(t).split(1, dim=1)
        dv, dw = self.rates(v, w)
        losses = {"v": F.mse_loss(gradient(v, t), dv), "w": F.mse_loss(gradient(w, t), dw)}
        self.log_dict(losses)
        return torch.stack(list(losses.values())).sum()

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, y: Any) -> Any:
            return self.rates(*y)

        solved = solve_ivp(
            rhs, (0, self.span), [0, 0], t_eval=t[:, 0].numpy(), rtol=1e-9, atol=1e-9
        )
        return torch.as_tensor(solved.y.T)


class Enzyme(Model):
    """Michaelis-Menten, S' = -kcat E S / (K + S); constants are fitted to a progress curve."""

    TRUE: ClassVar[dict[str, float]] = {"kcat": 2.0, "K": 0.5, "E": 1.0}

    def __init__(self, fitted: tuple[str, ...] = ("kcat", "K"), **options: Any) -> None:
        super().__init__(((0.0, 2.0),), **options)
        self.fitted = fitted
        self.net = mlp(1, 1, width=24)
        self.raw = nn.ParameterDict({k: nn.Parameter(torch.tensor(0.6)) for k in fitted})
        times = torch.linspace(0, 2, 40)[:, None]
        self.register_buffer("times", times)
        self.register_buffer("curve", self.truth(times.double()).float())

    def constant(self, name: str) -> Tensor:
        if name in self.fitted:
            return F.softplus(self.raw[name])
        return torch.tensor(self.TRUE[name])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.times.clone().requires_grad_()
        s = self.net(t)
        kcat, k, e = map(self.constant, ("kcat", "K", "E"))
        physics = F.mse_loss(gradient(s, t) * (k + s), -kcat * e * s)
        data = F.mse_loss(s, self.curve)
        self.log_dict({"physics": physics, "data": data})
        return physics + 10 * data

    def predict(self, t: Tensor) -> Tensor:
        return self.net(t)

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, s: Any) -> Any:
            return -2.0 * s / (0.5 + s)

        solved = solve_ivp(rhs, (0, 2), [1.0], t_eval=t[:, 0].numpy(), rtol=1e-9, atol=1e-9)
        return torch.as_tensor(solved.y[0])[:, None]

    def error(self) -> float:
        off = [abs(self.constant(k).item() / self.TRUE[k] - 1) for k in self.fitted]
        return max(super().error(), *off)


def fractions(c: Tensor) -> Tensor:
    return c


class Chain(Model):
    """A -> B -> C with unknown rates; an encoder of time and a head for each species."""

    RATES = (2.0, 1.0)

    def __init__(self, measured: Callable[[Tensor], Tensor] = fractions, **options: Any) -> None:
        super().__init__(((0.0, 3.0),), **options)
        self.encoder = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(32, 1) for _ in "ABC")
        self.log_k = nn.Parameter(torch.zeros(2))
        self.data = Times(3.0, 40, 20)
        samples = torch.linspace(0, 3, 13, dtype=torch.float64)[:, None]
        self.register_buffer("samples", samples.float())
        self.register_buffer("values", measured(self.truth(samples)).float())

    def loader(self, steps: int) -> DataLoader[Any]:
        return self.data.train_dataloader()

    def predict(self, t: Tensor) -> Tensor:
        code = self.encoder(t - 1.5)
        return torch.cat([head(code) for head in self.heads], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = batch[0].requires_grad_()
        a, b, c = self.predict(t).split(1, dim=1)
        k, m = self.log_k.exp()
        kinetics = (gradient(a, t) + k * a).square().mean()
        kinetics = kinetics + (gradient(b, t) - k * a + m * b).square().mean()
        kinetics = kinetics + (gradient(c, t) - m * b).square().mean()
        data = F.mse_loss(self.predict(self.samples), self.values)
        self.log_dict({"kinetics": kinetics, "data": data})
        return kinetics + 3 * data

    def truth(self, t: Tensor) -> Tensor:
        k, m = self.RATES
        a = torch.exp(-k * t)
        b = k / (m - k) * (torch.exp(-k * t) - torch.exp(-m * t))
        return torch.cat([a, b, 1 - a - b], dim=1)

    def error(self) -> float:
        off = [abs(k / true - 1) for k, true in zip(self.log_k.exp().tolist(), self.RATES)]
        return max(super().error(), *off)


class DoubleLayer(Model):
    """Poisson-Boltzmann at a charged membrane, x in Debye lengths, the potential in mV."""

    def __init__(
        self, thermal: float = 25.7, surface: float = 100.0, n: int = 60, **options: Any
    ) -> None:
        super().__init__(((0.0, 5.0),), **options)
        self.thermal, self.surface = thermal, surface
        self.net = mlp(1, 1, width=32)
        self.register_buffer("x", torch.linspace(0.02, 5, n)[:, None])

    def predict(self, x: Tensor) -> Tensor:
        return self.surface * torch.exp(-x) * (1 + x * self.net(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x.clone().requires_grad_()
        psi = self.predict(x) / self.thermal
        loss = F.mse_loss(gradient(gradient(psi, x), x), torch.sinh(psi))
        self.log("boltzmann", loss)
        return loss

    def truth(self, x: Tensor) -> Tensor:
        return 4 * 25.7 * torch.atanh(math.tanh(self.surface / 25.7 / 4) * torch.exp(-x))
