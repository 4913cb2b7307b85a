"""An electrical circuit, a draining tank, reaction kinetics."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.fourth.base import Task, dense, slope


class Circuit(Task):
    """Series RLC: q' = i, i' = -2 d i - w^2 q, with q(0) = 1 and i(0) = `current`.

    `graph`: whether derivatives keep one; `ask_current`: with the condition for i(0).
    """

    def __init__(
        self,
        *,
        damping: float = 0.3,
        omega: float = 2.0,
        current: float = 0.0,
        span: float = 3.0,
        graph: bool = True,
        ask_current: bool = True,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.damping, self.omega, self.current, self.span = damping, omega, current, span
        self.graph, self.ask_current = graph, ask_current
        self.qi = dense(1, 2, **self.options)
        self.criterion = nn.MSELoss()

    def forward(self, t: Tensor) -> Tensor:
        return self.qi(t / self.span * 2 - 1) * torch.tensor([1.0, self.omega])

    def rate(self, y: Tensor, t: Tensor) -> Tensor:
        ones = torch.ones_like(y)
        return torch.autograd.grad(y, t, ones, retain_graph=True, create_graph=self.graph)[0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = torch.empty(64, 1).uniform_(0, self.span).requires_grad_()
        q, i = self(t).unbind(1)
        q, i = q.unsqueeze(1), i.unsqueeze(1)
        q_t, i_t = self.rate(q, t), self.rate(i, t)
        law = (i_t + 2 * self.damping * i + self.omega**2 * q) / self.omega
        charge, current = self(torch.zeros(1, 1))[0]
        loss_ode = self.criterion(q_t, i) + self.criterion(law, torch.zeros_like(law))
        self.log("kirchhoff", loss_ode)
        loss_ic = self.criterion(charge, torch.tensor(1.0))
        if self.ask_current:
            loss_ic = loss_ic + self.criterion(current, torch.tensor(self.current))
        self.log("switch_on", loss_ic)
        return loss_ode + 10 * loss_ic

    def compare(self) -> tuple[Tensor, Tensor]:
        t = torch.linspace(0, self.span, 300)
        w = math.sqrt(self.omega**2 - self.damping**2)
        free = (w * t).cos() + (self.current + self.damping) / w * (w * t).sin()
        return self(t[:, None])[:, 0], torch.exp(-self.damping * t) * free


class Tank(Task):
    """Torricelli: h' = -2 c sqrt(h) from h(0) = 1, hence h = (1 - c t)^2 until it is empty.

    `guard`: smallest value under the root, none where it is None; `step`: of a central
    difference in place of the derivative.
    """

    def __init__(
        self,
        *,
        c: float = 0.9,
        guard: float | None = 1e-4,
        step: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.c, self.guard, self.step = c, guard, step
        self.level = dense(1, 1, **self.options)
        self.times = torch.linspace(0, 1, 60)[:, None]

    def rate(self, t: Tensor) -> Tensor:
        if self.step:
            return (self.level(t + self.step) - self.level(t - self.step)) / (2 * self.step)
        h = self.level(t)
        return slope(h, t)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        t = self.times.clone().requires_grad_()
        h = self.level(t)
        under = h if self.guard is None else h.clamp(min=self.guard)
        outflow = self.rate(t) + 2 * self.c * under.sqrt()
        terms = {"outflow": outflow.pow(2).mean(), "full": (h[0, 0] - 1).pow(2)}
        self.log_dict(terms)
        return {"loss": terms["outflow"] + terms["full"]}

    def compare(self) -> tuple[Tensor, Tensor]:
        t = torch.linspace(0, 1, 200)[:, None]
        return self.level(t), (1 - self.c * t) ** 2


class Settling(Task):
    """-u'' = pi^2 sin(pi x), u = 0 at both ends; the curvature by differences of width `h`."""

    def __init__(self, *, h: float = 0.02, double: bool = False, **training: Any) -> None:
        super().__init__(**training)
        self.h = h
        self.u = dense(1, 1, **self.options)
        self.register_buffer("x", torch.linspace(0.03, 0.97, 40)[:, None])
        if double:
            self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.u(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, h = self.x, self.h
        second = (self(x + h) - 2 * self(x) + self(x - h)) / h**2
        residual = second / 10 + torch.sin(math.pi * x) * math.pi**2 / 10
        walls = self(torch.tensor([[0.0], [1.0]], dtype=x.dtype))
        loss_pde, loss_bc = residual.square().mean(), walls.square().mean()
        self.log("diffusion", loss_pde)
        self.log("walls", loss_bc)
        return loss_pde + loss_bc

    def compare(self) -> tuple[Tensor, Tensor]:
        x = torch.linspace(0, 1, 100, dtype=self.x.dtype)[:, None]
        return self(x), torch.sin(math.pi * x)


class Kinetics(Task):
    """A -> B -> C in a batch reactor with unknown rates and measured concentrations of A and B.

    `fit_rates`: the rates go to the optimizer; `guess`: where they begin.
    """

    def __init__(
        self,
        *,
        rates: tuple[float, float] = (2.0, 1.0),
        fit_rates: bool = True,
        guess: float = 1.0,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.rates, self.fit_rates = rates, fit_rates
        self.net = dense(1, 2, **self.options)
        self.log_k = nn.Parameter(math.log(guess) * torch.ones(2))
        self.samples = torch.linspace(0, 2, 32)[:, None]

    def exact(self, t: Tensor) -> Tensor:
        k, m = self.rates
        a, b = torch.exp(-k * t), k / (m - k) * (torch.exp(-k * t) - torch.exp(-m * t))
        return torch.cat([a, b], 1)

    def loader(self, steps: int) -> DataLoader[Any]:
        data = TensorDataset(self.samples, self.exact(self.samples))
        return DataLoader(data, batch_size=16, shuffle=True)

    def configure_optimizers(self) -> Any:
        groups = [{"params": self.net.parameters()}]
        if self.fit_rates:
            groups.append({"params": [self.log_k]})
        return self.opt(groups)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, measured = batch
        t.requires_grad_()
        a, b = self.net(t).split(1, 1)
        k, m = self.log_k.exp()
        reaction = (slope(a, t) + k * a) ** 2 + (slope(b, t) - k * a + m * b) ** 2
        data = ((a - measured[:, :1]) ** 2).mean() + ((b - measured[:, 1:]) ** 2).mean()
        begin = self.net(torch.zeros(1, 1)) - torch.tensor([1.0, 0.0])
        self.log_dict({"rate_law": reaction.mean(), "data/mse": data, "feed": begin.pow(2).sum()})
        return reaction.mean() + 5 * data + begin.pow(2).sum()

    def compare(self) -> tuple[Tensor, Tensor]:
        t = torch.linspace(0, 2, 100)[:, None]
        found = torch.cat([self.net(t).flatten(), 5 * self.log_k.exp()])
        return found, torch.cat([self.exact(t).flatten(), 5 * torch.tensor(self.rates)])
