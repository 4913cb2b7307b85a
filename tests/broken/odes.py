"""Ordinary differential equations and fits of data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from tests.broken.pinn import Pinn, d


class Decay(Pinn):
    """span u' = -k u on [start, start + span], u(start) = size."""

    def __init__(
        self,
        k: float = 2.0,
        start: float = 0.0,
        span: float = 1.0,
        size: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(((start, start + span),), **options)
        self.k, self.start, self.span, self.size = k, start, span, size

    def truth(self, t: Tensor) -> Tensor:
        return self.size * torch.exp(-self.k * (t - self.start) / self.span)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        pde = self.span * d(u, t) + self.k * u
        ic = self.net(self.at(self.start)) - self.size
        return self.total(pde=(pde**2).mean(), ic=(ic**2).mean())


class Slope(Pinn):
    """u' = f, u(0) = u_0 for a u that is given (any function of t)."""

    def __init__(
        self, u: Callable[[Tensor], Tensor] = torch.sin, span: float = 2.0, **options: Any
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.truth = u

    def f(self, t: Tensor) -> Tensor:
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            return d(self.truth(t), t).detach()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        loss = torch.mean((d(self.net(t), t) - self.f(t)) ** 2)
        zero = self.at(0.0)
        start = torch.mean((self.net(zero) - self.truth(zero)) ** 2)
        return self.total(residual=loss, start=start)


class Oscillator(Pinn):
    """u'' + omega^2 u = force omega^2 with u(0) and u'(0); residuals in units of omega^2."""

    def __init__(
        self,
        omega: float = 2.0,
        span: float = 2.0,
        start: tuple[float, float] = (1.0, 0.0),
        force: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.omega, self.start, self.force = omega, start, force

    def truth(self, t: Tensor) -> Tensor:
        phase, (u, v) = self.omega * t, self.start
        return self.force + (u - self.force) * phase.cos() + v * phase.sin()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        ode = d(d(u, t), t) / self.omega**2 + u - self.force
        zero = self.at(0.0).requires_grad_()
        u_0 = self.net(zero)
        return self.total(
            ode=(ode**2).mean(),
            position=((u_0 - self.start[0]) ** 2).mean(),
            velocity=((d(u_0, zero) / self.omega - self.start[1]) ** 2).mean(),
        )


class System(Pinn):
    """u' = rhs(u) for as many unknowns as ``start`` has, each with a network output.

    ``hard``: u = start + t net(t). ``grow``: steps until the points have spread over all times;
    ``forget``: steps in which a window of a fifth of the time moves over it.
    """

    def __init__(
        self,
        rhs: Callable[[Tensor], Tensor],
        start: Sequence[float],
        span: float = 2.0,
        hard: bool = False,
        grow: int = 0,
        forget: int = 0,
        **options: Any,
    ) -> None:
        self.n_out = len(start)
        super().__init__(((0.0, span),), **options)
        self.rhs, self.start, self.span = rhs, start, span
        self.hard, self.grow, self.forget = hard, grow, forget

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, u: Any) -> Any:
            return self.rhs(torch.as_tensor(u)[None])[0].numpy()

        times = t[:, 0].numpy()
        solved = solve_ivp(rhs, (0, self.span), self.start, t_eval=times, rtol=1e-8, atol=1e-10)
        return torch.as_tensor(solved.y.T)

    def predict(self, x: Tensor) -> Tensor:
        u = self.net(x)
        return torch.tensor(self.start, dtype=x.dtype) + x / self.span * u if self.hard else u

    def collocation(self, batch: Any) -> Tensor:
        t = super().collocation(batch).detach()
        if self.grow:
            t = t * min(1.0, 0.1 + self.global_step / self.grow)
        if self.forget:
            t = 0.2 * t + 0.8 * self.span * min(1.0, self.global_step / self.forget)
        return t.requires_grad_()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.predict(t)
        slope = torch.cat([d(u[:, [i]], t) for i in range(self.n_out)], dim=1)
        equations = slope - self.rhs(u)
        start = self.predict(self.at(0.0)) - torch.tensor([self.start], dtype=self.dtype)
        terms = {} if self.hard else {"start": start.pow(2).mean()}
        return self.total(equations=equations.pow(2).mean(), **terms)


class Fit(Pinn):
    """A network fitted to values of u; the points come with their values in the batches."""

    def __init__(
        self, u: Callable[[Tensor], Tensor], span: float = 1.0, dim: int = 1, **options: Any
    ) -> None:
        super().__init__(((0.0, span),) * dim, **options)
        self.truth, self.loss = u, nn.MSELoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch).detach()
        return self.total(data=self.loss(self.net(x), self.truth(x)))


class Inverse(Pinn):
    """u' = -k u with unknown k and values of u at ten times; the error is that of u and k."""

    def __init__(self, k: float = 2.0, data: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.true_k, self.data = k, data
        self.k = nn.Parameter(torch.tensor(0.5, dtype=self.dtype))
        self.register_buffer("times", torch.linspace(0, 1, 10, dtype=self.dtype)[:, None])

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(-self.true_k * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        physics = ((d(u, t) + self.k * u) ** 2).mean()
        data = nn.functional.mse_loss(self.net(self.times), self.data * self.truth(self.times))
        return self.total(physics=physics, data=data)

    def error(self) -> float:
        return max(super().error(), abs(self.k.item() / self.true_k - 1))


def waves(*frequencies: float, amplitude: float = 0.7) -> Callable[[Tensor], Tensor]:
    """sin(2 pi t) and what rides on it, each with the same amplitude."""

    def u(t: Tensor) -> Tensor:
        t = t.sum(-1, keepdim=True)
        return torch.sin(2 * math.pi * t) + amplitude * sum(
            torch.sin(2 * math.pi * f * t) for f in frequencies
        )

    return u
