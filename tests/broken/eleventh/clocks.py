"""Evolutions in time: chains, populations, chaos, pendulum."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.eleventh.common import DNN, Problem, gradients, lhs, mse


def solved(rhs: Any, start: Any, t: Tensor) -> Tensor:
    times = t[:, 0].numpy()
    sol = solve_ivp(rhs, (0, times[-1]), start, t_eval=times, rtol=1e-8, atol=1e-10)
    return torch.as_tensor(sol.y.T)


class RadioactiveChain(Problem):
    """N1 -> N2 -> N3 with counts at twenty times."""

    half_lives = (2.0, 3.0)

    def __init__(self, rates: tuple[float, float], **options: Any) -> None:
        self.ub = (6.0,)
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, 3, **self.net_options)
        self.rates = rates
        self.register_buffer("t_f", lhs(80, self.lb, self.ub))
        self.register_buffer("t_d", torch.linspace(0, 6, 20)[:, None])
        self.register_buffer("N_d", self.truth(self.t_d).float())

    def truth(self, t: Tensor) -> Tensor:
        a, b = (math.log(2) / half for half in self.half_lives)
        n1 = torch.exp(-a * t)
        n2 = a / (b - a) * (torch.exp(-a * t) - torch.exp(-b * t))
        return torch.cat([n1, n2, 1 - n1 - n2], dim=1)

    def net_f(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        N = self.net(t)
        n1, n2, n3 = N[:, 0:1], N[:, 1:2], N[:, 2:3]
        l1, l2 = self.rates
        f1 = gradients(n1, t) + l1 * n1
        f2 = gradients(n2, t) - l1 * n1 + l2 * n2
        f3 = gradients(n3, t) - l2 * n2
        return f1, f2, f3

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        f1, f2, f3 = self.net_f(self.t_f.clone().requires_grad_())
        self.loss_dict = {
            "f1": mse(f1),
            "f2": mse(f2),
            "f3": mse(f3),
            "data": F.mse_loss(self.net(self.t_d), self.N_d),
        }
        self.log_dict(self.loss_dict)
        return sum(self.loss_dict.values())


class LotkaVolterra(Problem):
    """Prey and predators from (1.6, 0.6), the start built in."""

    start = (1.6, 0.6)

    def __init__(self, keepdim: bool = True, **options: Any) -> None:
        self.ub = (4.0,)
        super().__init__(**options)
        self.keepdim = keepdim
        self.net = DNN(self.lb, self.ub, 2, **self.net_options)

    def truth(self, t: Tensor) -> Tensor:
        return solved(lambda _, u: (u[0] - u[0] * u[1], u[0] * u[1] - u[1]), self.start, t)

    def predict(self, x: Tensor) -> Tensor:
        return torch.tensor(self.start) + torch.tanh(x) * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = (4.0 * torch.rand(64, 1)).requires_grad_()
        u = self.predict(t)
        if self.keepdim:
            x, y = u[:, 0:1], u[:, 1:2]
        else:
            x, y = u[:, 0], u[:, 1]
        prey = gradients(x, t) - (x - x * y)
        predators = gradients(y, t) - (x * y - y)
        loss = torch.mean(prey**2) + torch.mean(predators**2)
        self.log("loss", loss)
        return loss


class Lorenz(Problem):
    """Lorenz 63 from (-8, 7, 27)."""

    start = (-8.0, 7.0, 27.0)

    def __init__(self, t_end: float = 0.5, **options: Any) -> None:
        self.ub = (t_end,)
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, 3, **self.net_options)
        self.t_f = torch.linspace(0, t_end, 150)[:, None]

    @staticmethod
    def rhs(x: Any, y: Any, z: Any) -> tuple[Any, Any, Any]:
        return 10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z

    def truth(self, t: Tensor) -> Tensor:
        return solved(lambda _, u: self.rhs(*u), self.start, t)

    def predict(self, x: Tensor) -> Tensor:
        return torch.tensor(self.start) + 20.0 * x * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.t_f.clone().requires_grad_()
        u = self.predict(t)
        x, y, z = u.split(1, dim=1)
        for name, v, f in zip("xyz", (x, y, z), self.rhs(x, y, z), strict=True):
            self.loss_dict[name] = mse((gradients(v, t) - f) / 20.0)
            self.log(name, self.loss_dict[name])
        return self.loss_dict["x"] + self.loss_dict["y"] + self.loss_dict["z"]


class Pendulum(Problem):
    """theta'' + sin(theta) = 0 from a large angle, with the causal weights of Wang et al."""

    def __init__(self, eps: float = 20.0, n_f: int = 128, **options: Any) -> None:
        self.ub = (10.0,)
        super().__init__(**options)
        self.eps, self.n_f = eps, n_f
        self.net = DNN(self.lb, self.ub, **self.net_options)

    def truth(self, t: Tensor) -> Tensor:
        return solved(lambda _, u: (u[1], -math.sin(u[0])), (2.0, 0.0), t)[:, :1]

    def predict(self, x: Tensor) -> Tensor:
        return 2.0 + torch.tanh(x) ** 2 * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        dt = 10.0 / self.n_f
        t = dt * (torch.arange(self.n_f)[:, None] + torch.rand(self.n_f, 1))
        t.requires_grad_()
        theta = self.predict(t)
        r = (gradients(theta, t, 2) + torch.sin(theta)) ** 2
        before = torch.cumsum(r.detach(), dim=0) - r.detach()
        loss = torch.mean(torch.exp(-self.eps * dt * before) * r)
        self.log("loss", loss)
        return loss


class CarbonBoxes(Problem):
    """Air, surface water and deep water exchange carbon; mini-batches of times."""

    def __init__(self, **options: Any) -> None:
        self.ub = (4.0,)
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, 3, **self.net_options)
        self.M = torch.tensor([[-1.0, 0.6, 0.0], [1.0, -1.1, 0.2], [0.0, 0.5, -0.2]])
        self.c0 = torch.tensor([[1.0, 0.0, 0.0]])

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(TensorDataset(lhs(200, self.lb, self.ub)), batch_size=25, shuffle=True)

    def truth(self, t: Tensor) -> Tensor:
        M = self.M.numpy()
        return solved(lambda _, c: M @ c, (1.0, 0.0, 0.0), t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = batch[0].requires_grad_()
        c = self.net(t)
        c_t = torch.cat([gradients(c[:, i : i + 1], t) for i in range(3)], dim=1)
        loss_ode = F.mse_loss(c_t, c @ self.M.T)
        loss_ic = F.mse_loss(self.net(torch.zeros(1, 1)), self.c0)
        self.log_dict({"ode": loss_ode, "ic": loss_ic})
        return loss_ode + 5 * loss_ic


class Seismometer(Problem):
    """A damped mass: u'' + 2 zeta w u' + w^2 u = 0, u(0) = 1, u'(0) = 0."""

    w, zeta = 4.0, 0.15

    def __init__(self, **options: Any) -> None:
        self.ub = (2.0,)
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.t_f = torch.linspace(0, 2, 60)[:, None]

    def truth(self, t: Tensor) -> Tensor:
        a, b = self.zeta * self.w, self.w * math.sqrt(1 - self.zeta**2)
        return torch.exp(-a * t) * (torch.cos(b * t) + a / b * torch.sin(b * t))

    def net_u(self, t: Tensor) -> tuple[Tensor, Tensor]:
        u = self.net(t)
        return u, gradients(u, t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.t_f.clone().requires_grad_()
        u, u_t = self.net_u(t)
        f = gradients(u_t, t) / self.w**2 + 2 * self.zeta / self.w * u_t + u
        u0, v0 = self.net_u(torch.zeros(1, 1, requires_grad=True))
        loss = mse(f) + mse(u0 - 1) + mse(v0 / self.w)
        self.log("train_loss", loss)
        return loss


class Cooling(Problem):
    """Lava cools: T' = -k (T - T_air), k unknown, twelve readings."""

    k_true, T_air = 1.5, 0.2

    def __init__(self, **options: Any) -> None:
        self.ub = (2.0,)
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.k = nn.Parameter(torch.tensor(0.3))
        self.t_d = torch.linspace(0, 2, 12)[:, None]

    def truth(self, t: Tensor) -> Tensor:
        return self.T_air + torch.exp(-self.k_true * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = torch.linspace(0, 2, 50)[:, None].requires_grad_()
        T = self.net(t)
        loss = {
            "physics": mse(gradients(T, t) + self.k * (T - self.T_air)),
            "readings": mse(self.net(self.t_d) - self.truth(self.t_d)),
        }
        self.log_dict(loss)
        return torch.stack(list(loss.values())).sum()

    def error(self) -> float:
        return max(super().error(), abs(self.k.item() / self.k_true - 1))
