"""Dynamical systems, each with its own training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.nn import functional as F

from tests.broken.networks import mlp
from tests.broken.ninth.bare import Bare, gradient


def solved(rhs: Callable[..., Any], start: tuple[float, ...], span: float, t: Tensor) -> Tensor:
    times = np.clip(t[:, 0].numpy(), 0, span)
    y = solve_ivp(rhs, (0, span), start, t_eval=times, rtol=1e-8, atol=1e-10).y
    return torch.as_tensor(y.T)


class Pendulum(Bare):
    """Hamilton's equations of a pendulum, with the slopes of H by autograd."""

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        span: float = 4.0,
        start: tuple[float, float] = (1.5, 0.0),
        n: int = 60,
        begin: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.box, self.span, self.start = ((0.0, span),), span, start
        self.n, self.begin = n, begin
        self.phase = mlp(1, 2, **{"box": self.box, **(net or {})})

    def truth(self, t: Tensor) -> Tensor:
        return solved(lambda _, y: [y[1], -np.sin(y[0])], self.start, self.span, t)

    def predict(self, x: Tensor) -> Tensor:
        return self.phase(x)

    def times(self) -> Tensor:
        return self.span * torch.rand(self.n, 1)

    def slopes(self, y: Tensor, t: Tensor) -> Tensor:
        return torch.cat([gradient(y[:, 0], t), gradient(y[:, 1], t)], 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.times().requires_grad_()
        y = self.phase(t)
        energy = y[:, 1] ** 2 / 2 - torch.cos(y[:, 0])
        h = gradient(energy, y)
        flow = torch.stack([h[:, 1], -h[:, 0]], 1)
        loss = F.mse_loss(self.slopes(y, t), flow)
        begin = F.mse_loss(self.phase(torch.zeros(1, 1)), torch.tensor([self.start]))
        return loss + self.begin * begin


class FirstOrderOnly(Pendulum):
    """The slopes of the network come without a graph of their own."""

    def slopes(self, y: Tensor, t: Tensor) -> Tensor:
        parts = [torch.autograd.grad(part.sum(), t, retain_graph=True)[0] for part in y.T]
        return torch.cat(parts, 1)


class VanDerPol(Bare):
    """x' = y, y' = mu (1 - x^2) y - x; one network for each, that start where they should."""

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        mu: float = 1.0,
        span: float = 4.0,
        hard: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.box, self.mu, self.span, self.hard = ((0.0, span),), mu, span, hard
        self.x = mlp(1, 1, **{"box": self.box, **(net or {})})
        self.y = mlp(1, 1, **{"box": self.box, **(net or {})})

    def truth(self, t: Tensor) -> Tensor:
        return solved(
            lambda _, z: [z[1], self.mu * (1 - z[0] ** 2) * z[1] - z[0]], (1.0, 0.5), self.span, t
        )

    def predict(self, t: Tensor) -> Tensor:
        x, y = self.x(t), self.y(t)
        return torch.cat([1 + t * x, 0.5 + t * y], 1) if self.hard else torch.cat([x, y], 1)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        t = torch.linspace(0, self.span, 60)[:, None].requires_grad_()
        x, y = self.predict(t).split(1, 1)
        losses = {
            "x": (gradient(x, t) - y).pow(2).mean(),
            "y": (gradient(y, t) - self.mu * (1 - x**2) * y + x).pow(2).mean(),
        }
        self.log_dict(losses)
        return {"loss": sum(losses.values())}


class OnlyPosition(VanDerPol):
    def trained(self) -> Any:
        return self.x.parameters()


class Neuron(Bare):
    """FitzHugh-Nagumo: v' = v - v^3/3 - w + I, w' = (v + 0.7 - 0.8 w) / tau."""

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        current: float = 0.5,
        tau: float = 5.0,
        span: float = 10.0,
        weight: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.box, self.current, self.tau, self.span = ((0.0, span),), current, tau, span
        self.weight = weight
        self.model = mlp(1, 2, **{"box": self.box, **(net or {})})

    def rhs(self, v: Any, w: Any) -> tuple[Any, Any]:
        return v - v**3 / 3 - w + self.current, (v + 0.7 - 0.8 * w) / self.tau

    def truth(self, t: Tensor) -> Tensor:
        return solved(lambda _, z: self.rhs(*z), (-1.0, 0.5), self.span, t)

    def predict(self, t: Tensor) -> Tensor:
        return self.model(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.span * torch.rand(100, 1)
        t.requires_grad_()
        v, w = self.model(t).split(1, 1)
        v_t, w_t = self.rhs(v, w)
        self.log("v", fast := torch.linalg.norm(gradient(v, t) - v_t) ** 2 / 100)
        self.log("w", slow := torch.linalg.norm(gradient(w, t) - w_t) ** 2 / 100)
        begin = (self.model(torch.zeros(1, 1)) - torch.tensor([[-1.0, 0.5]])).square().sum()
        self.log("begin", begin)
        return fast + slow + self.weight * begin


class Bistable(Bare):
    """u' = u (1 - u^2) from near the state 0, which it leaves, to the state 1.

    ``causal``: how much the residuals before a time take from its weight.
    """

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        start: float = 0.05,
        span: float = 10.0,
        causal: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.box, self.start, self.span, self.causal = ((0.0, span),), start, span, causal
        self.u = mlp(1, 1, **{"box": self.box, **(net or {})})

    def truth(self, t: Tensor) -> Tensor:
        return 1 / torch.sqrt(1 + (self.start**-2 - 1) * torch.exp(-2 * t))

    def predict(self, t: Tensor) -> Tensor:
        return self.u(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.span * torch.linspace(0, 1, 100)[:, None]
        t.requires_grad_()
        u = self.u(t)
        squares = (gradient(u, t) - u * (1 - u**2)).square()
        before = (squares.cumsum(0) - squares).detach() * self.span / 100
        loss = (torch.exp(-self.causal * before) * squares).mean()
        start = F.mse_loss(self.u(torch.zeros(1, 1)), torch.tensor([[self.start]]))
        self.log_dict({"ode": loss, "start": start})
        return loss + 10 * start


class Gompertz(Bare):
    """Growth of a tumour: u' = -u log(u), from a twentieth."""

    def __init__(self, net: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.box = ((0.0, 4.0),)
        self.net = mlp(1, 1, **{"box": self.box, **(net or {})})

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(np.log(0.05) * torch.exp(-t))

    def predict(self, t: Tensor) -> Tensor:
        return self.net(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = torch.linspace(0, 4, 50)[:, None].requires_grad_()
        u = self.net(t)
        growth = gradient(u, t) + u * torch.log(u)
        begin = self.net(torch.zeros(1, 1)) - 0.05
        return growth.pow(2).mean() + 10 * begin.pow(2).mean()


class Circuit(Bare):
    """A condenser under two voltages, one of them fast: u' + u = f, u(0) = 0."""

    def __init__(
        self, net: dict[str, Any] | None = None, fast: float = 60.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.box, self.fast = ((0.0, 2.0),), fast
        self.net = mlp(1, 1, **{"box": self.box, **(net or {})})

    def truth(self, t: Tensor) -> Tensor:
        return torch.sin(2 * t) + 0.8 * torch.sin(self.fast * t)

    def predict(self, t: Tensor) -> Tensor:
        return self.net(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = (2 * torch.rand(150, 1)).requires_grad_()
        u, wanted = self.net(t), self.truth(t)
        law = gradient(u, t) + u - (gradient(wanted, t) + wanted).detach()
        self.log("law", value := law.square().mean() / self.fast**2)
        return value + self.net(torch.zeros(1, 1)).square().mean()
