"""Systems in time: epidemics, drugs, chemistry, tumours, batteries."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from tests.broken.pinn import Pinn, d
from tests.broken.tenth.study import Study, gradient


class Epidemic(Study):
    """SIR over some days, fractions of the population, a hard start; rates per day."""

    def __init__(
        self,
        beta: float = 0.4,
        gamma: float = 0.15,
        days: float = 20.0,
        first: float = 0.0,
        growth: int = 0,
        **options: Any,
    ) -> None:
        super().__init__([(first, first + days)], 3, **options)
        self.beta, self.gamma, self.days, self.first = beta, gamma, days, first
        self.start, self.growth = (0.9, 0.1, 0.0), growth

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, y: Any) -> list[float]:
            new, gone = self.beta * y[0] * y[1], self.gamma * y[1]
            return [-new, new - gone, gone]

        times = t[:, 0].numpy() - self.first
        solved = solve_ivp(rhs, (0, self.days), self.start, t_eval=times, rtol=1e-8)
        return torch.as_tensor(solved.y.T)

    def forward(self, t: Tensor) -> Tensor:
        passed = t - self.first
        return self.const(*self.start) + passed / (passed + self.days / 4) * self.net(t)

    def losses(self, t: Tensor) -> dict[str, Tensor]:
        if self.growth:
            known = min(1.0, 0.1 + self.global_step / self.growth)
            t = (self.first + known * (t.detach() - self.first)).requires_grad_(True)
        s, i, r = (y := self(t)).split(1, dim=1)
        new, gone = self.beta * s * i, self.gamma * i
        rates = (-new, new - gone, gone)
        scale = self.days / 6
        ode = sum(((gradient(a, t) - b) * scale).square().mean() for a, b in zip((s, i, r), rates))
        return {"ode": ode, "total": (y.sum(1) - 1).square().mean()}


class Absorption(Study):
    """Gut -> plasma -> out; the rate constants are trained, plasma was sampled with noise.

    The error is the larger one of the curves' and the constants'.
    """

    def __init__(
        self, ka: float = 1.6, ke: float = 0.5, noise: float = 0.01, **options: Any
    ) -> None:
        super().__init__([(0.0, 6.0)], 2, **options)
        self.true = (ka, ke)
        self.log_ka, self.log_ke = (
            nn.Parameter(torch.zeros((), dtype=self.real)) for _ in range(2)
        )
        times = torch.linspace(0.2, 6, 20, dtype=torch.float64)[:, None]
        plasma = self.truth(times)[:, 1:]
        noises = torch.randn(20, 1, generator=torch.Generator().manual_seed(7))
        self.register_buffer("times", times.to(self.real))
        self.register_buffer("plasma", (plasma + noise * noises).to(self.real))

    def truth(self, t: Tensor) -> Tensor:
        ka, ke = self.true
        gut = torch.exp(-ka * t)
        return torch.cat([gut, ka / (ka - ke) * (torch.exp(-ke * t) - gut)], dim=1)

    def slope(self, u: Tensor, t: Tensor) -> Tensor:
        return gradient(u, t)

    def measured(self) -> Tensor:
        return self.plasma

    def losses(self, t: Tensor) -> dict[str, Tensor]:
        gut, plasma = self(t).split(1, dim=1)
        ka, ke = self.log_ka.exp(), self.log_ke.exp()
        dose = (self(torch.zeros_like(t[:1])) - self.const(1, 0)).square().sum()
        return {
            "gut": (self.slope(gut, t) + ka * gut).square().mean(),
            "plasma": (self.slope(plasma, t) - ka * gut + ke * plasma).square().mean(),
            "dose": dose,
            "data": F.mse_loss(self(self.times)[:, 1:], self.measured()),
        }

    def error(self) -> float:
        found = (self.log_ka.exp().item(), self.log_ke.exp().item())
        return max(super().error(), *(abs(a / b - 1) for a, b in zip(found, self.true)))


class Chain(Study):
    """A -> B -> C in a reactor, mass action; the amounts at the start by an ansatz or a loss."""

    def __init__(
        self,
        k1: float = 3.0,
        k2: float = 1.0,
        hard: bool = True,
        amounts: bool = True,
        **options: Any,
    ) -> None:
        super().__init__([(0.0, 2.0)], 3, **options)
        self.k1, self.k2, self.hard, self.amounts = k1, k2, hard, amounts

    def truth(self, t: Tensor) -> Tensor:
        a = torch.exp(-self.k1 * t)
        b = self.k1 / (self.k2 - self.k1) * (a - torch.exp(-self.k2 * t))
        return torch.cat([a, b, 1 - a - b], dim=1)

    def forward(self, t: Tensor) -> Tensor:
        y = self.net(t)
        return self.const(1, 0, 0) + torch.tanh(t) * y if self.hard else y

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.coordinates(batch)
        a, b, c = self(t).split(1, dim=1)
        r1, r2 = self.k1 * a, self.k2 * b
        residuals = [gradient(a, t) + r1, gradient(b, t) - r1 + r2, gradient(c, t) - r2]
        loss = torch.cat(residuals, dim=1).square().sum(1).mean()
        if not self.hard and self.amounts:
            loss = loss + 10 * F.mse_loss(self(t.new_zeros(1, 1)), self.const(1, 0, 0)[None])
        self.log("train_loss", loss)
        return loss


class Tumour(Study):
    """Gompertz growth V' = a V log(K / V), V in units of ``unit`` cells."""

    def __init__(
        self, a: float = 1.0, capacity: float = 2.0, unit: float = 1.0, **options: Any
    ) -> None:
        super().__init__([(0.0, 4.0)], **options)
        self.a, self.capacity, self.unit = a, capacity, unit

    def truth(self, t: Tensor) -> Tensor:
        small = torch.log(torch.tensor(0.1, dtype=t.dtype))
        return self.capacity * torch.exp(small * torch.exp(-self.a * t))

    def forward(self, t: Tensor) -> Tensor:
        return self.unit * self.net(t)

    def losses(self, t: Tensor) -> dict[str, Tensor]:
        v = self(t)
        residual = gradient(v, t) - self.a * v * torch.log(self.capacity / v)
        start = self(t.new_zeros(1, 1)) - 0.1 * self.capacity
        return {
            "growth": residual.square().mean() / self.unit**2,
            "start": 5 * start.square().mean() / self.unit**2,
        }


class Bacteria(Tumour):
    """Logistic growth V' = a V (1 - V / K) of a culture."""

    def truth(self, t: Tensor) -> Tensor:
        return self.capacity / (1 + 9 * torch.exp(-self.a * t))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.coordinates(batch)
        v = self(t)
        growth = gradient(v, t) - self.a * v * (1 - v / self.capacity)
        start = self(t.new_zeros(1, 1)) - 0.1 * self.capacity
        loss = (growth / self.unit).pow(2).mean() + 5 * (start / self.unit).pow(2).mean()
        self.log("loss", loss)
        return loss


class Cell(Pinn):
    """A battery cell warms: tau T' = heat - T (over ambient), t in seconds; thermometer data."""

    def __init__(
        self,
        tau: float = 900.0,
        span: float = 3600.0,
        heat: float = 1.0,
        t0: float = 0.0,
        sensors: int = 0,
        tau_model: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(((t0, t0 + span),), **options)
        self.tau, self.heat, self.t0, self.span = tau, heat, t0, span
        self.tau_model = tau_model or tau
        times = torch.linspace(t0, t0 + span, sensors + 1, dtype=torch.float64)[1:, None]
        self.register_buffer("times", times.to(self.dtype))
        self.register_buffer("values", self.truth(times).to(self.dtype))

    def truth(self, t: Tensor) -> Tensor:
        return self.heat * (1 - torch.exp(-(t - self.t0) / self.tau))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        temperature = self.net(t)
        balance = self.tau_model * d(temperature, t) - self.heat + temperature
        terms = {"balance": F.mse_loss(balance, torch.zeros_like(balance))}
        terms["ambient"] = self.net(self.at(self.t0)).pow(2).mean()
        if len(self.times):
            terms["thermometer"] = F.mse_loss(self.net(self.times), self.values)
        return self.total(**terms)
