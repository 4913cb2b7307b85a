"""Networks of heat capacities, nerves, cooling, records of sensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from tests.broken.fifth.kinetics import solved
from tests.broken.pinn import Pinn, d


class Rooms(Pinn):
    """Three heat capacities in a row, the first heated; ``hard``: T = T_0 + t net."""

    n_out = 3

    def __init__(self, span: float = 2.0, hard: bool = True, heat: float = 2.0, **o: Any) -> None:
        super().__init__(((0.0, span),), **o)
        self.hard, self.heat = hard, heat
        k = [[-2.0, 1.5, 0.0], [1.5, -3.0, 1.5], [0.0, 1.5, -2.5]]
        self.register_buffer("k", torch.tensor(k, dtype=self.dtype))
        self.register_buffer("q", torch.tensor([heat, 0.0, 0.0], dtype=self.dtype))
        self.register_buffer("cold", torch.tensor([0.0, 0.5, 1.0], dtype=self.dtype))

    def truth(self, t: Tensor) -> Tensor:
        k, q, cold = self.k.double(), self.q.double(), self.cold.double()
        final = -torch.linalg.solve(k, q)
        return final + torch.matrix_exp(k * t[:, :, None]) @ (cold - final)

    def predict(self, x: Tensor) -> Tensor:
        return self.cold + x * self.net(x) if self.hard else self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.predict(t)
        slope = torch.cat([d(u[:, i : i + 1], t) for i in range(3)], dim=1)
        loss = torch.linalg.vector_norm(slope - u @ self.k.T - self.q, dim=1).square().mean()
        self.log("balances", loss)
        if not self.hard:
            cold = (self.predict(self.at(0.0)) - self.cold).square().sum()
            self.log("cold", cold)
            loss = loss + self.weights.get("cold", 1.0) * cold
        return loss


class Nerve(Pinn):
    """FitzHugh and Nagumo's nerve under a current."""

    n_out = 2

    def __init__(
        self,
        span: float = 2.0,
        grow: int = 0,
        current: float = 0.5,
        begin: tuple[float, float] = (0.3, -0.4),
        **o: Any,
    ) -> None:
        super().__init__(((0.0, span),), **o)
        self.span, self.grow, self.current = span, grow, current
        self.rest = begin

    def rates(self, v: Any, w: Any) -> Any:
        return 2 * (v - v**3 / 3 - w + self.current), 0.5 * (v + 0.7 - 0.8 * w)

    def truth(self, t: Tensor) -> Tensor:
        return solved(lambda _, u: np.array(self.rates(*u)), self.rest, self.span, t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch).detach()
        if self.grow:
            t = t * min(1.0, 0.1 + self.global_step / self.grow)
        t = t.requires_grad_()
        v, w = self.net(t).split(1, dim=1)
        r_v, r_w = self.rates(v, w)
        rest = self.net(self.at(0.0)) - torch.tensor([self.rest])
        return self.total(
            v=(d(v, t) - r_v).pow(2).mean(),
            w=(d(w, t) - r_w).pow(2).mean(),
            rest=rest.pow(2).sum(),
        )


class Cooling(Pinn):
    """Newton's cooling over ``span`` seconds with k trained, and a record of temperatures."""

    def __init__(
        self, k: float = 3.0, span: float = 1.0, n: int = 25, flat: bool = False, **o: Any
    ) -> None:
        super().__init__(((0.0, span),), **o)
        self.true_k, self.span = k, span
        self.log_k = nn.Parameter(torch.zeros((), dtype=self.dtype))
        times = torch.linspace(0, span, n, dtype=torch.float64)[:, None]
        record = self.truth(times)
        self.register_buffer("times", times.to(self.dtype))
        self.register_buffer("record", (record[:, 0] if flat else record).to(self.dtype))

    def truth(self, t: Tensor) -> Tensor:
        return 0.2 + 1.6 * torch.exp(-self.true_k * t / self.span)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        cooling = self.span * d(u, t) + self.log_k.exp() * (u - 0.2)
        fit = (self.net(self.times) - self.record) ** 2
        return self.total(cooling=cooling.square().mean(), fit=fit.mean())

    def error(self) -> float:
        return max(super().error(), abs(self.log_k.exp().item() / self.true_k - 1))


class Enthalpy(Pinn):
    """Mixer: (H_0 + u)' as a balance of enthalpies that are counted from far below."""

    def __init__(self, zero: float = 3e7, k: float = 2.0, **o: Any) -> None:
        super().__init__(((0.0, 1.5),), **o)
        self.zero, self.k = zero, k

    def truth(self, t: Tensor) -> Tensor:
        return 1.2 - torch.exp(-self.k * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        inlet, held = self.zero + 1.2, self.zero + u
        stored = d(u, t)
        balance = stored - self.k * (inlet - held)
        begin = self.zero + self.net(self.at(0.0)) - (self.zero + 0.2)
        return self.total(balance=balance.pow(2).mean(), begin=begin.pow(2).mean())


class Pressure(Pinn):
    """A record of a pulse (heartbeat) together with the vessel's p' + p / tau = flow / c."""

    def __init__(
        self,
        wave: Callable[[Tensor], Tensor] | None = None,
        n: int = 120,
        physics: float = 1e-3,
        **o: Any,
    ) -> None:
        super().__init__(((0.0, 1.0),), **o)
        self.truth = wave or beat(1.0, 2.0)
        self.physics = physics
        self.register_buffer("times", torch.linspace(0, 1, n, dtype=self.dtype)[:, None])

    def flow(self, t: Tensor) -> Tensor:
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            p = self.truth(t)
            return (d(p, t) + p).detach()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        p = self.net(t)
        vessel = fn.mse_loss(d(p, t) + p, self.flow(t))
        record = fn.mse_loss(self.net(self.times), self.truth(self.times))
        self.log("vessel", vessel)
        self.log("record", record)
        return self.physics * vessel + record


def beat(*harmonics: float, amplitude: float = 0.8) -> Callable[[Tensor], Tensor]:
    def p(t: Tensor) -> Tensor:
        return 0.3 + amplitude * sum(
            torch.sin(2 * math.pi * f * t + i) for i, f in enumerate(harmonics)
        )

    return p
