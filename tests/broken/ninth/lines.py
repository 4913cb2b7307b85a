"""Boundary and initial value problems on a line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.nn import functional as F

from tests.broken.pinn import Pinn, d


class Layer(Pinn):
    """Singularly perturbed: -eps u'' + u' = 1 in units of the length, u = 0 at both ends."""

    def __init__(self, eps: float = 0.1, length: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, length),), **options)
        self.eps, self.length = eps, length

    def truth(self, x: Tensor) -> Tensor:
        x, low = x / self.length, math.exp(-1 / self.eps)
        return x - (torch.exp((x - 1) / self.eps) - low) / (1 - low)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        u_x = self.length * d(u, x)
        residual = -self.eps * self.length * d(u_x, x) + u_x - 1
        ends = torch.cat([self.net(self.at(0.0)), self.net(self.at(self.length))])
        return self.total(ode=residual.square().mean(), ends=ends.square().mean())


class Beam(Pinn):
    """Euler-Bernoulli beam on two supports: EI u'''' = q, u = u'' = 0 at both ends."""

    def __init__(
        self,
        length: float = 1.0,
        stiffness: float = 1.0,
        load: float = 76.8,
        units: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, length),), **options)
        self.length, self.stiffness, self.load = length, stiffness, load
        self.deflection = 5 * load * length**4 / (384 * stiffness)
        self.units = units

    def truth(self, x: Tensor) -> Tensor:
        long = self.length
        return self.load / (24 * self.stiffness) * (x**4 - 2 * long * x**3 + long**3 * x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        u_xx = d(d(u, x), x)
        equation = self.stiffness * d(d(u_xx, x), x) - self.load
        ends = torch.tensor([[0.0], [self.length]], dtype=self.dtype, requires_grad=True)
        u_end = self.net(ends)
        moment = d(d(u_end, ends), ends) * self.length**2
        if self.units:
            equation = equation / self.load
            u_end, moment = u_end / self.deflection, moment / self.deflection
        return self.total(
            equation=equation.square().mean(),
            deflection=u_end.square().mean(),
            moment=moment.square().mean(),
        )


class Helmholtz(Pinn):
    """u'' + k^2 u = f for a chosen u with given ends; optionally by differences of h.

    ``f`` is that of u = x and the sum of sin(pi n x); residuals in units of the largest.
    """

    def __init__(
        self, k: float = 2.0, waves: tuple[int, ...] = (1, 3), h: float = 0.0, **options: Any
    ) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.k, self.waves, self.h = k, waves, h
        self.unit = (math.pi * max(waves)) ** 2

    def truth(self, x: Tensor) -> Tensor:
        return sum(torch.sin(math.pi * n * x) for n in self.waves) + x

    def f(self, x: Tensor) -> Tensor:
        waves = sum((math.pi * n) ** 2 * torch.sin(math.pi * n * x) for n in self.waves)
        return self.k**2 * self.truth(x) - waves

    def second(self, u: Tensor, x: Tensor) -> Tensor:
        if not self.h:
            return d(d(u, x), x)
        return (self.net(x + self.h) - 2 * u + self.net(x - self.h)) / self.h**2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        res = (self.second(u, x) + self.k**2 * u - self.f(x)) / self.unit
        ends = torch.tensor([[0.0], [1.0]], dtype=self.dtype)
        return self.total(res=F.mse_loss(res, 0 * res), bc=F.mse_loss(self.net(ends), ends))


class FlatForce(Helmholtz):
    """The source term is computed for a plain list of coordinates."""

    def f(self, x: Tensor) -> Tensor:
        return super().f(x.squeeze(-1))


class Flux(Pinn):
    """Heat in a rod: u'' = f with the flux at both ends, and the temperature of the left one."""

    def __init__(self, right: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.right = right

    def truth(self, x: Tensor) -> Tensor:
        return 0.5 + 2 * x * x - x**3 - x + torch.sin(math.pi * x) / math.pi

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        f = 4 - 6 * x - math.pi * torch.sin(math.pi * x)
        ends = torch.tensor([[0.0], [1.0]], dtype=self.dtype, requires_grad=True)
        u_end = self.net(ends)
        slope = d(u_end, ends)
        return self.total(
            balance=(d(d(u, x), x) - f).square().mean(),
            left=(slope[0] - 0.0).square().mean(),
            right=(slope[1] + self.right).square().mean(),
            level=(u_end[0] - 0.5).square().mean(),
        )


class Duffing(Pinn):
    """u'' + 0.2 u' + u + beta u^3 = gamma cos(omega t), u(0) = 1, u'(0) = 0."""

    def __init__(
        self,
        beta: float = 1.0,
        gamma: float = 0.5,
        omega: float = 1.2,
        span: float = 4.0,
        hard: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.beta, self.gamma, self.omega, self.span = beta, gamma, omega, span
        self.hard = hard

    def truth(self, t: Tensor) -> Tensor:
        def rhs(s: float, y: Any) -> Any:
            force = self.gamma * math.cos(self.omega * s)
            return [y[1], force - 0.2 * y[1] - y[0] - self.beta * y[0] ** 3]

        times = np.clip(t[:, 0].numpy(), 0, self.span)
        solved = solve_ivp(rhs, (0, self.span), [1.0, 0.0], t_eval=times, rtol=1e-8, atol=1e-9)
        return torch.as_tensor(solved.y[:1].T)

    def predict(self, x: Tensor) -> Tensor:
        return 1 + (x / self.span * 2) ** 2 * self.net(x) if self.hard else self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.predict(t)
        v = d(u, t)
        force = self.gamma * torch.cos(self.omega * t)
        residual = d(v, t) + 0.2 * v + u + self.beta * u**3 - force
        terms = {"motion": residual.square().mean()}
        if not self.hard:
            zero = self.at(0.0).requires_grad_()
            u_0 = self.predict(zero)
            terms["place"] = 5 * (u_0 - 1).square().mean()
            terms["speed"] = 5 * d(u_0, zero).square().mean()
        return self.total(**terms)


class Warming(Pinn):
    """Newton's law: u' = r (level - u), three tenths of the level at the time ``begin``."""

    def __init__(
        self,
        r: float = 0.8,
        level: float = 1.0,
        begin: float = 0.0,
        span: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(((begin, begin + span),), **options)
        self.r, self.level, self.begin = r, level, begin

    def truth(self, t: Tensor) -> Tensor:
        return self.level * (1 - 0.7 * torch.exp(-self.r * (t - self.begin)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        law = d(u, t) / self.r - (self.level - u)
        first = self.net(self.at(self.begin)) - 0.3 * self.level
        unit = self.level**2
        return self.total(law=law.square().mean() / unit, first=first.square().mean() / unit)
