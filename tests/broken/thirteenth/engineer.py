"""Homework of the electrical engineer: one training_step each, terms by self.log."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.broken.thirteenth.common import PINN, Lesson, grad, rand


class Ripple(Lesson):
    """Low pass behind a switched supply: tau v' + v = s(t), v(0) = 0."""

    def __init__(self, f: float = 14.0, tau: float = 0.05, **kw: Any) -> None:
        super().__init__(**kw)
        self.f, self.tau = f, tau
        self.t = torch.linspace(0, 1, 200).view(-1, 1)

    def truth(self, t: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * t) + 0.6 * torch.sin(2 * math.pi * self.f * t)

    def source(self, t: Tensor) -> Tensor:
        w1, w2 = 2 * math.pi, 2 * math.pi * self.f
        slope = w1 * torch.cos(w1 * t) + 0.6 * w2 * torch.cos(w2 * t)
        return self.truth(t) + self.tau * slope

    def training_step(self, batch: Any, i: int) -> Tensor:
        t = self.t.clone().requires_grad_(True)
        v = self.net(t)
        loss_f = F.mse_loss(self.tau * grad(v, t) + v, self.source(t.detach()))
        loss_0 = self.net(torch.zeros(1, 1)).square().mean()
        self.log("loss_f", loss_f)
        self.log("loss_0", loss_0)
        return loss_f + 10 * loss_0


class Discharge(Lesson):
    """R and C of a discharging capacitor from an oscilloscope: R C v' + v = 0, i = v / R."""

    ub = (3.0,)

    def __init__(self, current_probe: bool = True, **kw: Any) -> None:
        super().__init__(**kw)
        self.R = nn.Parameter(torch.tensor(1.0))
        self.C = nn.Parameter(torch.tensor(1.0))
        self.current_probe = current_probe
        self.t_data = torch.linspace(0, 3, 25).view(-1, 1)
        self.v_data = self.truth(self.t_data)
        self.i_data = self.v_data / 2.0

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(-t / (2.0 * 0.8))

    def training_step(self, batch: Any, i: int) -> Tensor:
        t = rand(60, self.lb, self.ub).requires_grad_(True)
        v = self.net(t)
        loss_ode = (self.R * self.C * grad(v, t) + v).pow(2).mean()
        v_hat = self.net(self.t_data)
        loss_v = F.mse_loss(v_hat, self.v_data)
        self.log_dict({"loss_ode": loss_ode, "loss_v": loss_v, "R": self.R, "C": self.C})
        loss = loss_ode + 10 * loss_v
        if self.current_probe:
            loss_i = F.mse_loss(v_hat / self.R, self.i_data)
            self.log("loss_i", loss_i)
            loss = loss + 10 * loss_i
        return loss

    def error(self) -> float:
        return max(super().error(), abs(self.R.item() / 2 - 1), abs(self.C.item() / 0.8 - 1))


class RLC(Lesson):
    """Step response, voltage and current with a network each: v' = i, i' = 1 - v - 0.4 i."""

    ub = (6.0,)

    def __init__(self, only_voltage: bool = False, **kw: Any) -> None:
        super().__init__(**kw)
        self.net_i = PINN(self.lb, self.ub, 1)
        self.only_voltage = only_voltage

    def truth(self, t: Tensor) -> Tensor:
        w = math.sqrt(0.96)
        e = torch.exp(-0.2 * t)
        v = 1 - e * (torch.cos(w * t) + 0.2 / w * torch.sin(w * t))
        return torch.cat([v, e * torch.sin(w * t) / w], 1)

    def predict(self, t: Tensor) -> Tensor:
        return torch.cat([self.net(t), self.net_i(t)], 1)

    def configure_optimizers(self) -> Any:
        nets = self.net.parameters() if self.only_voltage else self.parameters()
        return self.make_optimizer(nets)

    def training_step(self, batch: Any, i: int) -> Tensor:
        t = torch.linspace(0, 6, 80).view(-1, 1).requires_grad_(True)
        v, i_ = self.net(t), self.net_i(t)
        res_v = grad(v, t) - i_
        res_i = grad(i_, t) - (1 - v - 0.4 * i_)
        start = self.predict(torch.zeros(1, 1))
        losses = {"v": res_v.pow(2).mean(), "i": res_i.pow(2).mean(), "ic": start.pow(2).sum()}
        self.log_dict(losses)
        return losses["v"] + losses["i"] + 10 * losses["ic"]


class Ringing(Lesson):
    """v'' + 2 a v' + v = 0 with v(0) = 1, v'(0) = 0, several periods."""

    ub = (7.0,)
    a = 0.1

    def truth(self, t: Tensor) -> Tensor:
        w = math.sqrt(1 - self.a**2)
        return torch.exp(-self.a * t) * (torch.cos(w * t) + self.a / w * torch.sin(w * t))

    def training_step(self, batch: Any, i: int) -> Tensor:
        t = torch.linspace(0, 7, 90)[:, None].requires_grad_()
        v = self.net(t)
        v_t = grad(v, t)
        f = grad(v_t, t) + 2 * self.a * v_t + v
        loss_f = torch.mean(f**2)
        loss_0 = (v[0] - 1).pow(2).mean() + v_t[0].pow(2).mean()
        self.log("train/ode", loss_f)
        self.log("train/ic", loss_0)
        return loss_f + 5 * loss_0


class Line(Lesson):
    """Lossless line shorted at both ends: v_tt = c^2 v_xx, with probes that measured v."""

    lb, ub = (0.0, 0.0), (1.0, 2.0)
    c = 0.5

    def __init__(self, c2: float = 0.25, probes: bool = False, **kw: Any) -> None:
        super().__init__(**kw)
        self.c2, self.probes = c2, probes
        self.xt_p = rand(100, self.lb, self.ub)

    def truth(self, xt: Tensor) -> Tensor:
        x, t = xt[:, :1], xt[:, 1:]
        return torch.sin(math.pi * x) * torch.cos(math.pi * self.c * t)

    def training_step(self, batch: Any, i: int) -> Tensor:
        xt = rand(150, self.lb, self.ub).requires_grad_(True)
        g = grad(self.net(xt), xt)
        v_xx = grad(g[:, :1], xt)[:, :1]
        v_tt = grad(g[:, 1:], xt)[:, 1:]
        x0 = torch.cat([torch.rand(40, 1), torch.zeros(40, 1)], 1).requires_grad_(True)
        v0 = self.net(x0)
        ends = torch.cat([torch.randint(0, 2, (40, 1)).float(), 2 * torch.rand(40, 1)], 1)
        loss = {
            "pde": F.mse_loss(v_tt, self.c2 * v_xx),
            "v0": F.mse_loss(v0, torch.sin(math.pi * x0[:, :1])),
            "v0_t": grad(v0, x0)[:, 1:].square().mean(),
            "ends": self.net(ends).square().mean(),
        }
        if self.probes:
            loss["probes"] = F.mse_loss(self.net(self.xt_p), self.truth(self.xt_p))
        self.log_dict(loss)
        return sum(loss.values())


class Fin(Lesson):
    """Cooling fin: k theta'' = h theta over its length; base at 1, tip insulated."""

    def __init__(self, k: float = 1.0, m: float = 2.0, **kw: Any) -> None:
        super().__init__(**kw)
        self.k, self.m = k, m

    def truth(self, x: Tensor) -> Tensor:
        return torch.cosh(self.m * (1 - x)) / math.cosh(self.m)

    def training_step(self, batch: Any, i: int) -> Tensor:
        x = torch.rand(64, 1).requires_grad_(True)
        th = self.net(x)
        res = self.k * grad(grad(th, x), x) - self.k * self.m**2 * th
        tip = torch.ones(1, 1, requires_grad=True)
        loss_f = torch.mean(res**2)
        loss_b = torch.mean((self.net(torch.zeros(1, 1)) - 1) ** 2)
        loss_t = torch.mean(grad(self.net(tip), tip) ** 2)
        self.log("f", loss_f)
        self.log("base", loss_b)
        self.log("tip", loss_t)
        return loss_f + 10 * loss_b + loss_t
