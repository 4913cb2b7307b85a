"""Epidemics, predators, delayed growth."""

from __future__ import annotations

from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from tests.broken.fourth.base import Task, dense, slope


class Epidemic(Task):
    """SI model in a calendar year: y' = b y (1 - y / N), y at the beginning is `first` N.

    `centred`: whether the network gets the time since the middle in half years, or the date;
    `people`: N, and `unit`: people per unit of the network's output;
    `second`: a share of infected that is reported for the end;
    `ramp`: steps over which the points spread from January to the whole year.
    """

    def __init__(
        self,
        *,
        b: float = 4.0,
        year: float = 2020.0,
        centred: bool = True,
        people: float = 1.0,
        unit: float = 1.0,
        first: float = 0.3,
        second: float | None = None,
        ramp: int = 0,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.b, self.year, self.centred, self.first, self.ramp = b, year, centred, first, ramp
        self.people, self.unit, self.second = people, unit, second
        self.net = dense(1, 1, **self.options)

    def infected(self, date: Tensor) -> Tensor:
        return self.unit * self.net(2 * (date - self.year) - 1 if self.centred else date)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        part = min(1.0, 0.1 + self.global_step / self.ramp) if self.ramp else 1.0
        date = (self.year + part * torch.linspace(0, 1, 50)).view(-1, 1).requires_grad_()
        y = self.infected(date)
        growth = slope(y, date) - self.b * y * (1 - y / self.people)
        first = y[0] - self.first * self.people
        mse_growth = growth.pow(2).mean() / self.people**2
        mse_first = 2 * (first / self.first / self.people).pow(2).mean()
        self.log("mse_growth", mse_growth)
        self.log("mse_first", mse_first)
        total = mse_growth + mse_first
        if self.second is not None:
            mse_last = 20 * (y[-1] / self.people - self.second).pow(2).mean()
            self.log("mse_last", mse_last)
            total = total + mse_last
        self.log("total", total)
        return total

    def compare(self) -> tuple[Tensor, Tensor]:
        t = torch.linspace(0, 1, 200)[:, None]
        return self.infected(self.year + t), self.people / (
            1 + (1 / self.first - 1) * torch.exp(-self.b * t)
        )


class Hunters(Task):
    """Lotka-Volterra with hard initial values; causal weights where `causal` is set.

    The time is cut into 20 slices; a slice counts by exp(-causal * what is left before it).
    """

    def __init__(self, *, span: float = 3.0, causal: float = 0.0, **training: Any) -> None:
        super().__init__(**training)
        self.span, self.causal = span, causal
        self.net = dense(1, 2, **self.options)
        self.begin = torch.tensor([1.8, 0.6])

    def forward(self, t: Tensor) -> Tensor:
        return self.begin + torch.tanh(2 * t) * self.net(2 * t / self.span - 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = torch.linspace(0, self.span, 120).reshape(-1, 1).requires_grad_()
        hare, lynx = self(t).split(1, -1)
        r_hare = slope(hare, t) - 1.5 * hare * (1 - lynx)
        r_lynx = slope(lynx, t) - 1.5 * lynx * (hare - 1)
        slices = (r_hare**2 + r_lynx**2).view(20, -1).mean(1)
        if self.causal:
            before = slices.detach().cumsum(0) - slices.detach()
            weights = torch.exp(-self.causal * before)
            loss = (weights * slices).mean()
        else:
            loss = slices.mean()
        self.log("dynamics", loss)
        return loss

    def compare(self) -> tuple[Tensor, Tensor]:
        def rates(_: float, y: Any) -> list[float]:
            return [1.5 * y[0] * (1 - y[1]), 1.5 * y[1] * (y[0] - 1)]

        t = torch.linspace(0, self.span, 200).double()
        path = solve_ivp(rates, (0, self.span), [1.8, 0.6], t_eval=t.numpy(), rtol=1e-9)
        return self(t.float()[:, None]), torch.from_numpy(path.y.T.copy())


class Delay(Task):
    """u' = -u(t - 1) on 0 < t < 2 with u = 1 before; u is 1 - t, then 1 - t + (t - 1)^2 / 2.

    `whole`: times are drawn as whole numbers.
    """

    def __init__(self, *, whole: bool = False, **training: Any) -> None:
        super().__init__(**training)
        self.whole = whole
        self.net = dense(1, 1, **self.options)

    def u(self, t: Tensor) -> Tensor:
        return torch.where(t <= 0, torch.ones_like(t), 1 + t * self.net(t - 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = torch.randint(0, 2, (48, 1)).float() if self.whole else 2 * torch.rand(48, 1)
        t.requires_grad_()
        present = 1 + t * self.net(t - 1)
        residual = slope(present, t) + self.u(t - 1)
        loss = (residual * residual).mean()
        self.log("train_loss", loss)
        return loss

    def compare(self) -> tuple[Tensor, Tensor]:
        t = torch.linspace(0, 2, 200)[:, None]
        return self.u(t), 1 - t + (t - 1).clamp(min=0) ** 2 / 2
