"""Rivers, lakes, sediment."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from tests.broken.eighth.helpers import G, beside, columns, line, msq, weighed
from tests.broken.networks import adam, mlp
from tests.broken.pinn import Pinn, d


class Seiche(Pinn):
    """Linear shallow water in a closed lake: eta_t + H u_x = 0, u_t + g eta_x = 0; m and s."""

    n_out = 2

    def __init__(
        self, length: float = 2000.0, deep: float = 10.0, rise: float = 0.5, **options: Any
    ) -> None:
        super().__init__(((0.0, length), (0.0, 200.0)), **options)
        self.length, self.deep, self.rise = length, deep, rise
        self.k = math.pi / length
        self.omega = self.k * math.sqrt(G * deep)
        self.speed = rise * math.sqrt(G / deep)

    def truth(self, x: Tensor) -> Tensor:
        x, t = columns(x)
        kx, wt = self.k * x, self.omega * t
        return torch.cat([self.rise * kx.cos() * wt.cos(), self.speed * kx.sin() * wt.sin()], dim=1)

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x) * torch.tensor([self.rise, self.speed])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        xt = self.collocation(batch)
        eta, u = columns(self.predict(xt))
        (eta_x, eta_t), (u_x, u_t) = columns(d(eta, xt)), columns(d(u, xt))
        mass = (eta_t + self.deep * u_x) / (self.omega * self.rise)
        momentum = (u_t + G * eta_x) / (self.omega * self.speed)
        time = line(0, 200, 20)
        walls = self.predict(torch.cat([beside(0.0, time), beside(self.length, time)]))[:, 1]
        first = beside(line(0, self.length, 20), 0.0)
        eta_0, u_0 = columns(self.predict(first) - self.truth(first))
        losses = {
            "mass": msq(mass),
            "momentum": msq(momentum),
            "walls": msq(walls / self.speed),
            "level": msq(eta_0 / self.rise),
            "rest": msq(u_0 / self.speed),
        }
        return weighed(self, losses)


class Streeter(Pinn):
    """Oxygen sag: L' = -kd L, D' = kd L - ka D behind a discharge; days along the river.

    With ``gauged`` the rates are trained, and there are samples of L and D.
    """

    n_out = 2

    def __init__(self, gauged: bool = False, days: float = 4.0, **options: Any) -> None:
        super().__init__(((0.0, days),), **options)
        self.gauged, self.days = gauged, days
        rates = torch.tensor([0.2, 0.4] if gauged else [0.6, 1.2])
        if gauged:
            self.rates = nn.Parameter(rates)
        else:
            self.register_buffer("rates", rates)

    def truth(self, x: Tensor) -> Tensor:
        load, other = torch.exp(-0.6 * x), torch.exp(-1.2 * x)
        return torch.cat([load, 0.6 / 0.6 * (load - other)], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        load, lack = columns(self.net(t))
        kd, ka = self.rates
        slopes = (d(load, t) + kd * load), (d(lack, t) - kd * load + ka * lack)
        load_0, lack_0 = columns(self.net(self.at(0.0)))
        terms = {"bod": msq(slopes[0]), "oxygen": msq(slopes[1])}
        terms |= {"discharge": msq(load_0 - 1), "clean": msq(lack_0)}
        if self.gauged:
            bottles = line(0, self.days, 12)
            terms["bottles"] = F.mse_loss(self.net(bottles), self.truth(bottles))
        return self.total(**terms)

    def error(self) -> float:
        off = (self.rates.detach() / torch.tensor([0.6, 1.2]) - 1).abs().max()
        return max(super().error(), float(off))


class Backwater(Pinn):
    """(1 - Fr^2) h' = S_0 - S_f above a weir; metres, Manning friction."""

    def __init__(self, q: float = 2.0, weir: float = 3.0, **options: Any) -> None:
        super().__init__(((-2000.0, 0.0),), **options)
        self.q, self.weir, self.fall, self.n = q, weir, 1e-3, 0.03

    def balance(self, h: Any, slope: Any) -> Any:
        friction = (self.n * self.q) ** 2 / h ** (10 / 3)
        return (1 - self.q**2 / (G * h**3)) * slope - self.fall + friction

    def truth(self, x: Tensor) -> Tensor:
        def slope(_: float, h: Any) -> Any:
            zero, one = self.balance(h, 0.0), self.balance(h, 1.0)
            return -zero / (one - zero)

        up = x[:, 0].flip(0).numpy()
        solved = solve_ivp(slope, (0, -2000), [self.weir], t_eval=up, rtol=1e-8)
        return torch.as_tensor(solved.y.T.copy()).flip(0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        h = self.net(x)
        energy = self.balance(h, d(h, x)) / self.fall
        weir = self.net(self.at(0.0)) - self.weir
        loss = torch.mean(energy**2) + self.weights.get("weir", 1.0) * torch.mean(weir**2)
        self.log("train_loss", loss)
        return loss


class Cascade(pl.LightningModule):
    """Nash's linear reservoirs in a row: S_i' = (S_(i-1) - S_i) / k, rain on the first."""

    def __init__(
        self,
        n: int = 2,
        k: float = 1.0,
        hours: float = 3.0,
        optim: Callable[..., torch.optim.Optimizer] | None = None,
        net: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.n, self.k, self.hours = n, k, hours
        self.optim = optim or adam(3e-3)
        self.net = mlp(1, n, box=((0.0, hours),), **(net or {}))
        self.register_buffer("times", line(0, hours, 40))

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(range(steps), batch_size=None)

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters())

    def predict(self, t: Tensor) -> Tensor:
        return self.net(t)

    def stored(self, t: Tensor) -> Tensor:
        s = t / self.k
        return torch.cat([s**i / math.factorial(i) * torch.exp(-s) for i in range(self.n)], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.times.clone().requires_grad_()
        stores = columns(self.predict(t))
        loss, above = torch.zeros(()), torch.zeros_like(t)
        for s in stores:
            loss = loss + msq(self.k * d(s, t) - above + s)
            above = s
        start = self.predict(torch.zeros(1, 1)) - self.stored(torch.zeros(1, 1))
        self.log("water", loss)
        self.log("start", start.square().sum())
        return loss + start.square().sum()

    @torch.no_grad()
    def error(self) -> float:
        t = line(0, self.hours, 300)
        off = float((self.predict(t) - self.stored(t)).norm() / self.stored(t).norm())
        return off if math.isfinite(off) else math.inf


class Rouse(Pinn):
    """Suspended sediment: z (1 - z) c' + P c = 0; bottles give c, P is trained."""

    def __init__(self, number: float = 0.6, **options: Any) -> None:
        super().__init__(((0.1, 0.9),), **options)
        self.number = number
        self.p = nn.Parameter(torch.tensor(0.1))
        self.register_buffer("z", line(0.1, 0.9, 15))

    def truth(self, x: Tensor) -> Tensor:
        return ((1 - x) / x / 9) ** self.number

    def bottles(self) -> Tensor:
        return self.truth(self.z)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = self.collocation(batch)
        c = self.net(z)
        settling = z * (1 - z) * d(c, z) + self.p * c
        loss = F.mse_loss(self.net(self.z), self.bottles())
        self.log("data", loss)
        return 3 * loss + torch.linalg.vector_norm(settling) ** 2 / len(z)

    def error(self) -> float:
        return max(super().error(), abs(self.p.item() / self.number - 1))


class RouseTable(Rouse):
    def bottles(self) -> Tensor:
        table = torch.cat([self.z, self.truth(self.z)], dim=1)
        return table[:, 1]
