"""Springs, beams, signals, chaotic systems."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from tests.broken.pinn import Pinn, d
from tests.broken.tenth.models import Field
from tests.broken.tenth.study import Study, gradient


class Spring(Study):
    """Damped: x' = v, v' = -2 zeta w v - w^2 x; position and velocity have a network each."""

    def __init__(
        self,
        w: float = 3.0,
        zeta: float = 0.1,
        span: float = 3.0,
        net: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__([(0.0, span)], net=net, **options)
        self.w, self.zeta, self.span = w, zeta, span
        del self.net
        self.make(dict(net or {}))

    def make(self, net: dict[str, Any]) -> None:
        self.nets = nn.ModuleDict({k: Field(1, 1, self.limits, **net) for k in ("x", "v")})

    def truth(self, t: Tensor) -> Tensor:
        damp = self.zeta * self.w
        w = math.sqrt(self.w**2 - damp**2)
        e, c, s = torch.exp(-damp * t), torch.cos(w * t), torch.sin(w * t)
        x = e * (c + damp / w * s)
        v = -e * s * (w + damp**2 / w)
        return torch.cat([x, v / self.w], dim=1)

    def forward(self, t: Tensor) -> Tensor:
        """Position and velocity / w."""
        return torch.cat([self.nets["x"](t), self.nets["v"](t)], dim=1)

    def losses(self, t: Tensor) -> dict[str, Tensor]:
        x, v = self(t).split(1, dim=1)
        start = self(t.new_zeros(1, 1)) - self.const(1, 0)
        return {
            "kinematics": (gradient(x, t) / self.w - v).square().mean(),
            "newton": (gradient(v, t) / self.w + 2 * self.zeta * v + x).square().mean(),
            "start": start.square().sum(),
        }


class Beam(Pinn):
    """stiffness u'''' = load sin(mode pi x), simply supported on [0, 1]; one sum as loss."""

    def __init__(
        self,
        mode: int = 1,
        size: float = 1.0,
        unit: float = 1.0,
        load_unit: float | None = None,
        supports: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.mode, self.size, self.unit, self.supports = mode, size, unit, supports
        self.load = size * (mode * math.pi) ** 4
        self.load_unit = load_unit or unit * (mode * math.pi) ** 4

    def truth(self, x: Tensor) -> Tensor:
        return self.size * torch.sin(self.mode * math.pi * x)

    def predict(self, x: Tensor) -> Tensor:
        return self.unit * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        moment = d(d(self.predict(x), x), x)
        force = d(d(moment, x), x) - self.load * torch.sin(self.mode * math.pi * x)
        ends = torch.tensor([[0.0], [1.0]], dtype=self.dtype, requires_grad=True)
        u = self.predict(ends)
        bend = d(d(u, ends), ends) / (self.mode * math.pi) ** 2
        loss = ((force / self.load_unit) ** 2).mean()
        loss = loss + self.supports * ((u / self.unit) ** 2 + (bend / self.unit) ** 2).mean()
        self.log("loss", loss)
        return loss


class Signal(Study):
    """A noisy record of a signal of some tones, with its slope from a second sensor."""

    def __init__(
        self, tones: tuple[float, ...] = (1.0, 2.0), samples: int = 200, **options: Any
    ) -> None:
        super().__init__([(0.0, 1.0)], n=samples, **options)
        self.tones = tones

    def truth(self, t: Tensor) -> Tensor:
        return sum(torch.sin(2 * math.pi * f * t + i) for i, f in enumerate(self.tones))

    def losses(self, t: Tensor) -> dict[str, Tensor]:
        top = 2 * math.pi * max(self.tones)
        with torch.enable_grad():
            value = self.truth(t)
            slope = gradient(value, t).detach()
        u = self(t)
        return {
            "record": nn.functional.mse_loss(u, value.detach()),
            "slope": 0.1 * ((gradient(u, t) - slope) / top).square().mean(),
        }


class Pendulum(Study):
    """A pendulum let go: q' = p, p' = -sin q - friction p; with hard start and a horizon.

    ``growth``: steps until the horizon has reached the whole time. ``window``: only this part of
    the time before the horizon has points. ``eps``: of causal weights over time.
    """

    def __init__(
        self,
        span: float = 10.0,
        angle: float = 2.0,
        friction: float = 0.0,
        growth: int = 0,
        window: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__([(0.0, span)], 2, **options)
        self.span, self.angle, self.friction = span, angle, friction
        self.growth, self.window = growth, window

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, y: Any) -> list[float]:
            return [y[1], -math.sin(y[0]) - self.friction * y[1]]

        times = t[:, 0].numpy()
        solved = solve_ivp(rhs, (0, self.span), (self.angle, 0), t_eval=times, rtol=1e-8)
        return torch.as_tensor(solved.y.T)

    def forward(self, t: Tensor) -> Tensor:
        return self.const(self.angle, 0) + torch.tanh(t) * self.net(t)

    def coordinates(self, batch: Any) -> Tensor:
        t = super().coordinates(batch).detach()
        if self.growth:
            horizon = min(1.0, 0.1 + self.global_step / self.growth)
            low = max(0.0, horizon - self.window)
            t = low * self.span + (horizon - low) * t
        return t.requires_grad_(True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.coordinates(batch)
        q, p = self(t).split(1, dim=1)
        kinematics = gradient(q, t) - p
        torque = gradient(p, t) + torch.sin(q) + self.friction * p
        loss = kinematics.norm() ** 2 / len(t) + torque.norm() ** 2 / len(t)
        self.log_dict({"kinematics": kinematics.norm(), "torque": torque.norm()})
        return loss


class Rivals(Pendulum):
    """Two species in a food web (Lotka-Volterra), in place of the pendulum's two."""

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, y: Any) -> list[float]:
            return [y[0] * (1 - y[1]), y[1] * (y[0] - 1)]

        times = t[:, 0].numpy()
        solved = solve_ivp(rhs, (0, self.span), (self.angle, 1), t_eval=times, rtol=1e-8)
        return torch.as_tensor(solved.y.T)

    def forward(self, t: Tensor) -> Tensor:
        return self.const(self.angle, 1) + torch.tanh(t) * self.net(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.coordinates(batch)
        prey, hunter = self(t).split(1, dim=1)
        a = gradient(prey, t) - prey * (1 - hunter)
        b = gradient(hunter, t) - hunter * (prey - 1)
        loss = a.square().mean() + b.square().mean()
        self.log("loss", loss, prog_bar=True)
        return loss
