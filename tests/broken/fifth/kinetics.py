"""Reactors, drugs, populations, circuits: ordinary differential equations in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.nn import functional as fn

from tests.broken.networks import mlp
from tests.broken.pinn import Pinn, d


def solved(rhs: Callable[[float, Any], Any], start: Any, span: float, t: Tensor) -> Tensor:
    times = t[:, 0].numpy()
    result = solve_ivp(rhs, (0, span), start, t_eval=times, rtol=1e-9, atol=1e-11)
    return torch.as_tensor(result.y.T)


class Consecutive(Pinn):
    """A -> B -> C in a batch reactor; the loss is one sum."""

    n_out = 2

    def __init__(
        self, k_1: float = 3.0, k_2: float = 1.0, span: float = 2.0, **options: Any
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.k_1, self.k_2 = k_1, k_2

    def truth(self, t: Tensor) -> Tensor:
        a, c = torch.exp(-self.k_1 * t), torch.exp(-self.k_2 * t)
        return torch.cat([a, self.k_1 / (self.k_2 - self.k_1) * (a - c)], dim=1)

    def start(self) -> Any:
        a, b = self.net(self.at(0.0))[0]
        return (a - 1.0) ** 2 + b**2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        a, b = self.net(t).split(1, dim=1)
        r_a = d(a, t) + self.k_1 * a
        r_b = d(b, t) - self.k_1 * a + self.k_2 * b
        loss = (r_a**2 + r_b**2).mean() + self.weights.get("start", 1.0) * self.start()
        self.log("loss", loss)
        return loss


class ConsecutiveItems(Consecutive):
    def start(self) -> Any:
        a, b = (u.item() for u in self.net(self.at(0.0))[0])
        return (a - 1.0) ** 2 + b**2


class Oral(Pinn):
    """Drug in gut and plasma, a network for each."""

    n_out = 1

    def __init__(self, ka: float = 3.0, ke: float = 0.8, **options: Any) -> None:
        super().__init__(((0.0, 4.0),), **options)
        self.ka, self.ke = ka, ke
        self.gut = mlp(1, 1, width=24, box=self.box)

    def truth(self, t: Tensor) -> Tensor:
        gut, out = torch.exp(-self.ka * t), torch.exp(-self.ke * t)
        return torch.cat([gut, self.ka / (self.ka - self.ke) * (out - gut)], dim=1)

    def predict(self, x: Tensor) -> Tensor:
        return torch.cat([self.gut(x), self.net(x)], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, zero = self.collocation(batch), self.at(0.0)
        gut, plasma = self.gut(t), self.net(t)
        absorbed = d(gut, t) + self.ka * gut
        balance = d(plasma, t) - self.ka * gut + self.ke * plasma
        return self.total(
            absorption=absorbed.pow(2).mean(),
            balance=balance.pow(2).mean(),
            dose=(self.gut(zero) - 1).pow(2).mean(),
            empty=self.net(zero).pow(2).mean(),
        )


class Infusion(Pinn):
    """c' = rate / volume - ke c with ke (and volume) found from samples of c; dict of losses."""

    def __init__(
        self,
        ke: float = 1.5,
        volume: float = 0.5,
        rate: float = 1.0,
        start: float | None = 0.2,
        times: int = 12,
        guess: float = 0.4,
        last: float = 3.0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, 3.0),), **options)
        self.true = {"ke": ke, "volume": volume}
        self.rate, self.c_0 = rate, start
        self.ke = nn.Parameter(torch.tensor(guess))
        self.volume = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("times", torch.linspace(0.0, last, times, dtype=self.dtype)[:, None])
        self.register_buffer("samples", self.truth(self.times))

    def truth(self, t: Tensor) -> Tensor:
        level = self.rate / self.true["volume"] / self.true["ke"]
        return level + (self.c_0 - level) * torch.exp(-self.true["ke"] * t)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        t = self.collocation(batch)
        c = self.net(t)
        r = d(c, t) + self.ke * c - self.rate / self.volume
        losses = {"physics": fn.mse_loss(r, torch.zeros_like(r))}
        losses["samples"] = fn.mse_loss(self.net(self.times), self.samples)
        self.log_dict(losses)
        weighted = {k: self.weights.get(k, 1.0) * v for k, v in losses.items()}
        return {"loss": sum(weighted.values())}

    def error(self) -> float:
        found = {"ke": self.ke.item(), "volume": self.volume.item()}
        return max([super().error(), *(abs(found[k] / self.true[k] - 1) for k in found)])


class Growth(Pinn):
    """Logistic population from a start year on."""

    def __init__(
        self,
        r: float = 3.0,
        u_0: float = 0.1,
        start: float = 0.0,
        span: float = 2.0,
        size: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(((start, start + span),), **options)
        self.r, self.u_0, self.start, self.span = r, u_0, start, span
        self.size = size

    def truth(self, t: Tensor) -> Tensor:
        grown = torch.exp(-self.r * (t - self.start) * 2 / self.span)
        return self.size / (1 + (1 / self.u_0 - 1) * grown)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        rate = 2 * self.r * (1 - u / self.size)
        ode = (self.span * d(u, t) - rate * u) / self.size
        born = self.net(self.at(self.start)) / self.size - self.u_0
        return self.total(ode=torch.mean(ode**2), born=10 * torch.mean(born**2))


class Tumour(Pinn):
    """Gompertz' growth of a tumour, u' = -r u log u."""

    def __init__(self, r: float = 1.5, u_0: float = 0.1, **options: Any) -> None:
        super().__init__(((0.0, 2.0),), **options)
        self.r, self.u_0 = r, u_0

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(math.log(self.u_0) * torch.exp(-self.r * t))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        ode = d(u, t) + self.r * u * torch.log(u)
        found = self.net(self.at(0.0)) - self.u_0
        return self.total(growth=(ode**2).mean(), found=5 * found.square().mean())


def backward(u: Tensor, x: Tensor) -> Tensor:
    """Derivative, quickly."""
    return torch.autograd.grad(u.sum(), x, retain_graph=True)[0]


class Circuit(Pinn):
    """Voltage and current of an R L C circuit that is switched on; by h: differences in time."""

    n_out = 2

    def __init__(
        self,
        omega: float = 4.0,
        zeta: float = 0.25,
        span: float = 2.0,
        h: float = 0.0,
        slope: Callable[[Tensor, Tensor], Tensor] = d,
        damping: float | None = None,
        measured: int = 0,
        window: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.omega, self.zeta, self.h, self.slope = omega, zeta, h, slope
        self.damping = zeta if damping is None else damping
        times = torch.linspace(0.0, span, max(measured, 2), dtype=torch.float64)[:, None]
        self.register_buffer("times", times.to(self.dtype))
        self.register_buffer("record", self.truth(times).to(self.dtype))
        self.measured, self.window, self.span = measured, window, span

    def truth(self, t: Tensor) -> Tensor:
        rate = self.zeta * self.omega
        damped = math.sqrt(self.omega**2 - rate**2)
        fade = torch.exp(-rate * t)
        v = 1 - fade * (torch.cos(damped * t) + rate / damped * torch.sin(damped * t))
        return torch.cat([v, fade * self.omega / damped * torch.sin(damped * t)], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch).detach()
        if self.window:
            t = 0.2 * t + 0.8 * self.span * min(1.0, self.global_step / self.window)
        t = t.requires_grad_()
        u = self.net(t)
        v, i = u.split(1, dim=1)
        if self.h:
            slopes = (self.net(t + self.h) - self.net(t - self.h)) / (2 * self.h)
            dv, di = slopes.split(1, dim=1)
        else:
            dv, di = self.slope(v, t), self.slope(i, t)
        capacitor = dv / self.omega - i
        coil = di / self.omega + 2 * self.damping * i + v - 1
        terms = {
            "kirchhoff": (capacitor**2 + coil**2).mean(),
            "off": self.net(self.at(0.0)).pow(2).sum(),
        }
        if self.measured:
            terms["record"] = fn.mse_loss(self.net(self.times), self.record)
        return self.total(**terms)
