"""The quant: torch.func, Huber losses, a calendar, and bumps of the inputs."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.func import functional_call, hessian, jacrev, vmap

from tests.broken.networks import lbfgs, mlp
from tests.broken.twelfth.base import Model


class Call(Model):
    """Black-Scholes price of a European call; spot S and time to expiry, prices in index points.

    ``quote``: what the network's output of 1 stands for.
    """

    STRIKE, SIGMA, RATE = 5000.0, 0.4, 0.05

    def __init__(self, quote: float = 5000.0, n: int = 150, **options: Any) -> None:
        super().__init__(((0.0, 2 * self.STRIKE), (0.0, 1.0)), **options)
        self.quote = quote
        self.net = mlp(2, 1, width=32, box=self.box)
        low, high = torch.tensor(self.box).T
        self.register_buffer("market", low + (high - low) * torch.rand(n, 2))
        spot = torch.linspace(0, 2 * self.STRIKE, 60)
        self.register_buffer("expiry", torch.stack([spot, torch.zeros(60)], dim=1))
        tau = torch.rand(40)
        edges = [torch.stack([0 * tau + s, tau], dim=1) for s in (0.0, 2 * self.STRIKE)]
        self.register_buffer("edges", torch.cat(edges))

    def truth(self, x: Tensor) -> Tensor:
        s, tau = x.double().split(1, dim=1)
        deviation = self.SIGMA * tau.sqrt() + 1e-9
        drift = (self.RATE + self.SIGMA**2 / 2) * tau
        d = (torch.log(s / self.STRIKE + 1e-12) + drift) / deviation
        normal = torch.special.ndtr
        return s * normal(d) - self.STRIKE * torch.exp(-self.RATE * tau) * normal(d - deviation)

    def predict(self, x: Tensor) -> Tensor:
        return self.quote * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weights = dict(self.net.named_parameters())

        def price(x: Tensor) -> Tensor:
            return self.quote * functional_call(self.net, weights, (x[None],))[0, 0]

        x = self.market
        delta, gamma, v = (vmap(jacrev(price))(x), vmap(hessian(price))(x)[:, 0, 0], vmap(price)(x))
        s = x[:, 0]
        carry = 0.5 * self.SIGMA**2 * s**2 * gamma + self.RATE * (s * delta[:, 0] - v)
        equation = (delta[:, 1] - carry) / self.quote
        payoff = (self.predict(self.expiry) - self.truth(self.expiry).float()) / self.quote
        edges = (self.predict(self.edges) - self.truth(self.edges).float()) / self.quote
        terms = {"pde": equation, "payoff": payoff, "edges": edges}
        losses = {k: F.huber_loss(r, torch.zeros_like(r)) for k, r in terms.items()}
        self.log_dict(losses)
        return losses["pde"] + 10 * losses["payoff"] + 10 * losses["edges"]


class ShortRate(Model):
    """Fokker-Planck equation of a Vasicek rate, p_t = (a x p)_x + D p_xx, over a year.

    Time is counted from ``today``; the total probability is kept by a trapezoidal rule.
    """

    A, D, MEAN, VARIANCE = 1.5, 0.4, 1.2, 0.25

    def __init__(
        self, today: float = 0.0, summed: bool = False, activation: str = "tanh", **options: Any
    ) -> None:
        super().__init__(((-3.0, 3.0), (today, today + 1.0)), **options)
        self.today, self.summed = today, summed
        self.net = mlp(2, 1, width=40, activation=activation)
        self.register_buffer("rates", torch.linspace(-3, 3, 81))

    def truth(self, x: Tensor) -> Tensor:
        rate, t = x[:, [0]], x[:, [1]] - self.today
        mean, limit = self.MEAN * torch.exp(-self.A * t), self.D / self.A
        variance = limit + (self.VARIANCE - limit) * torch.exp(-2 * self.A * t)
        return torch.exp(-((rate - mean) ** 2) / variance / 2) / (2 * math.pi * variance).sqrt()

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def dated(self, t: Tensor) -> Tensor:
        """All rates at times t: (len(t) * 81, 2)."""
        return torch.cartesian_prod(self.rates, t).reshape(-1, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.rand(300, 2) * torch.tensor([6.0, 1.0]) + torch.tensor([-3.0, self.today])
        x.requires_grad_()
        p = self.net(x)
        p_x, p_t = torch.autograd.grad(p.sum(), x, create_graph=True)[0].split(1, dim=1)
        p_xx = torch.autograd.grad(p_x.sum(), x, create_graph=True)[0][:, :1]
        residual = p_t - self.A * (p + x[:, :1] * p_x) - self.D * p_xx
        fpe = residual.pow(2).sum() if self.summed else residual.pow(2).mean()
        now = self.dated(torch.tensor([self.today]))
        initial = (self.net(now) - self.truth(now)).pow(2).mean()
        t = self.today + torch.rand(5)
        mass = torch.trapezoid(self.net(self.dated(t)).reshape(81, 5), self.rates, dim=0)
        edge = torch.cartesian_prod(torch.tensor([-3.0, 3.0]), t)
        terms = {
            "fpe": fpe,
            "initial": 10 * initial,
            "mass": (mass - 1).pow(2).mean(),
            "edge": self.net(edge).pow(2).mean(),
        }
        self.log_dict(terms)
        return sum(terms.values())


class Riccati(Model):
    """Heston's B' = b - k B - s B^2 / 2, A' = m B, from zero; slopes by central differences."""

    def __init__(self, bump: float = 1e-2, n: int = 50, **options: Any) -> None:
        super().__init__(((0.0, 3.0),), **{"optim": lbfgs(max_iter=10)} | options)
        self.bump = bump
        self.net = mlp(1, 2, width=20)
        self.register_buffer("tau", torch.linspace(0, 3, n)[:, None])

    def rates(self, b: Any) -> tuple[Any, Any]:
        return 0.7 * b, 1.5 - 0.5 * b - 0.8 * b**2

    def predict(self, t: Tensor) -> Tensor:
        return self.net(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        h = self.bump
        slope = (self.net(self.tau + h) - self.net(self.tau - h)) / (2 * h)
        wanted = torch.cat(self.rates(self.net(self.tau)[:, 1:]), dim=1)
        equations = torch.mean((slope - wanted) ** 2)
        start = torch.mean(self.net(torch.zeros(1, 1)) ** 2)
        self.log("equations", equations)
        self.log("start", start)
        return equations + start

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, y: Any) -> Any:
            return self.rates(y[1])

        solved = solve_ivp(rhs, (0, 3), [0, 0], t_eval=t[:, 0].numpy(), rtol=1e-9, atol=1e-9)
        return torch.as_tensor(solved.y.T)
