"""Problems on the common base: evolutions in time."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from tests.broken.pinn import Pinn, d


def in_time(r: Tensor, causal: float) -> Tensor:
    """Weights of Wang et al. 2022: a time counts as soon as the residuals before it are small."""
    past = torch.cumsum(r.detach(), 0) - r.detach()
    return torch.exp(-causal * past)


class Spring(Pinn):
    """m x'' + c x' + k x = 0 with x(0) = 0, x'(0) = 1; residual over k."""

    def __init__(self, c: float = 0.4, k: float = 4.0, span: float = 4.0, **options: Any) -> None:
        super().__init__(((0.0, span),), **options)
        self.c, self.k = c, k

    def truth(self, t: Tensor) -> Tensor:
        w = math.sqrt(self.k - self.c**2 / 4)
        return torch.exp(-self.c * t / 2) * torch.sin(w * t) / w

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        x = self.net(t)
        v = d(x, t)
        motion = (d(v, t) + self.c * v + self.k * x) / math.sqrt(self.k)
        zero = self.at(0.0).requires_grad_()
        x_0 = self.net(zero)
        return self.total(
            motion=motion.pow(2).mean(),
            x_0=self.k * x_0.pow(2).mean(),
            v_0=(d(x_0, zero) - 1).pow(2).mean(),
        )


class Epidemic(Pinn):
    """S' = -b S I, I' = b S I - g I, R' = g I; shares of the people, days in tens."""

    n_out = 3

    def __init__(
        self,
        b: float = 3.0,
        g: float = 1.0,
        days: float = 5.0,
        ill: float = 0.1,
        causal: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, days),), **options)
        self.b, self.g, self.days = b, g, days
        self.start = (1 - ill, ill, 0.0)
        self.causal = causal

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, u: Any) -> list[float]:
            new = self.b * u[0] * u[1]
            return [-new, new - self.g * u[1], self.g * u[1]]

        times = t[:, 0].numpy()
        solved = solve_ivp(rhs, (0, self.days), self.start, t_eval=times, rtol=1e-8, atol=1e-10)
        return torch.as_tensor(solved.y.T)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        S, I, R = self.net(t).split(1, dim=1)  # noqa: E741
        r_S = (d(S, t) + self.b * S * I).pow(2)
        r_I = (d(I, t) - self.b * S * I + self.g * I).pow(2)
        r_R = (d(R, t) - self.g * I).pow(2)
        w = in_time(r_S + r_I + r_R, self.causal)
        start = self.net(self.at(0.0)) - torch.tensor([self.start])
        return self.total(
            S=(w * r_S).mean(),
            I=(w * r_I).mean(),
            R=(w * r_R).mean(),
            start=start.pow(2).sum(),
        )


class Tumour(Pinn):
    """Gompertz: u' = -u log u, u(0) = 0.1."""

    def __init__(self, u_0: float = 0.1, span: float = 4.0, **options: Any) -> None:
        super().__init__(((0.0, span),), **options)
        self.u_0 = u_0

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(math.log(self.u_0) * torch.exp(-t))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        growth = d(u, t) + u * torch.log(u)
        start = self.net(self.at(0.0)) - self.u_0
        return self.total(growth=growth.pow(2).mean(), start=start.pow(2).mean())


class Bistable(Pinn):
    """u' = rate (u - u^3) from near the unstable point; weights that respect causality or not."""

    def __init__(
        self, u_0: float = 0.02, span: float = 10.0, causal: float = 0.0, **options: Any
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.u_0, self.causal = u_0, causal

    def truth(self, t: Tensor) -> Tensor:
        e = torch.exp(t)
        return self.u_0 * e / torch.sqrt(1 - self.u_0**2 + (self.u_0 * e) ** 2)

    def predict(self, x: Tensor) -> Tensor:
        return self.u_0 + x / self.box[0][1] * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.predict(t)
        r = (d(u, t) - u + u**3).pow(2)
        return self.total(ode=(in_time(r, self.causal) * r).mean())


class Barometer(Pinn):
    """Pressure that relaxes to its mean of 1e5 Pa: p' = -k (p - mean), off by some mPa at first."""

    def __init__(
        self, k: float = 3.0, mean: float = 1e5, off: float = 5e-3, **options: Any
    ) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.k, self.mean, self.off = k, mean, off

    def truth(self, t: Tensor) -> Tensor:
        return self.off * torch.exp(-self.k * t)

    def pressure(self, t: Tensor) -> Tensor:
        return self.mean + self.off * self.net(t)

    def predict(self, x: Tensor) -> Tensor:
        return self.pressure(x) - self.mean

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        p = self.pressure(t)
        relax = (d(p, t) + self.k * (p - self.mean)) / self.off
        p_0 = (self.pressure(self.at(0.0)) - self.mean - self.off) / self.off
        return self.total(relax=relax.pow(2).mean(), p_0=p_0.pow(2).mean())


class Signal(Pinn):
    """u' = f with an u of several tones, u(0) = 0: one integrates a measured rate."""

    def __init__(self, tones: tuple[int, ...] = (1, 2), **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.tones = tones

    def truth(self, t: Tensor) -> Tensor:
        return sum(torch.sin(2 * math.pi * n * t) for n in self.tones)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        rate = sum(2 * math.pi * n * torch.cos(2 * math.pi * n * t.detach()) for n in self.tones)
        unit = 2 * math.pi * max(self.tones)
        residual = (d(self.net(t), t) - rate) / unit
        zero = self.net(self.at(0.0))
        return self.total(rate=(residual**2).mean(), zero=(zero**2).mean())
