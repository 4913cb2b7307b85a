"""Things that move or change in time: ordinary, delayed and integro-differential equations."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.func import jvp
from torch.utils.data import DataLoader

from tests.broken.others.graded import Graded, dense

ADAM: Any = partial(torch.optim.Adam, lr=5e-3)


class Cooling(Graded):
    """T' = -r (T - room), r unknown, T read at some times; units of the degree are free."""

    r, room, hot = 1.5, 0.2, 1.0

    def __init__(
        self, begin: float = 0.0, degree: float = 1.0, weight: float = 1.0,
        everything: bool = True, shift: bool = True,
        optim: Any = ADAM,
        probes: tuple[float, ...] = (1.0,), net: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.box = ((begin, begin + 2.0),)
        self.degree, self.weight, self.everything = degree, weight, everything
        self.shift, self.optim = begin + 1.0 if shift else 0.0, optim
        self.temperature = dense(1, 24, 24, 1, act=nn.Sigmoid)
        self.rate = nn.Parameter(torch.tensor(0.3))
        t = torch.linspace(begin, begin + 2, 12)[:, None]
        reads = [probe * self.exact(t.double()).float() for probe in probes]
        self.data_t, self.data = t.repeat(len(probes), 1), torch.cat(reads)

    def forward(self, t: Tensor) -> Tensor:
        return self.temperature(t - self.shift)

    def exact(self, t: Tensor) -> Tensor:
        late = torch.exp(-self.r * (t - self.box[0][0]))
        return self.degree * (self.room + (self.hot - self.room) * late)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = torch.linspace(*self.box[0], 40)[:, None]
        T, slope = jvp(self, (t,), (torch.ones_like(t),))
        physics = nn.functional.mse_loss(slope, -self.rate * (T - self.degree * self.room))
        data = nn.functional.mse_loss(self(self.data_t), self.data)
        self.log("physics", physics)
        self.log("measurements", data, prog_bar=True)
        return self.weight * physics + 4 * data

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters() if self.everything else self.temperature.parameters())

    def error(self) -> float:
        return max(super().error(), abs(self.rate.item() / self.r - 1))


class Pendulum(Graded):
    """theta' = omega, omega' = -sin theta; both start as given, by construction."""

    def __init__(
        self, span: float = 4.0, start: tuple[float, float] = (1.0, 0.0), hidden: int = 32,
        grow: int = 0, lr: float = 4e-3, n: int = 60, sine: bool = False, net: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.box, self.grow, self.lr, self.n = ((0.0, span),), grow, lr, n
        self.start = torch.tensor([start])
        self.model = dense(1, hidden, hidden, 2)

    def forward(self, t: Tensor) -> Tensor:
        span = self.box[0][1]
        return self.start.to(t) + (1 - torch.exp(-t)) * self.model(2 * t / span - 1)

    def exact(self, t: Tensor) -> Tensor:
        times, (theta, omega) = t[:, 0].numpy(), self.start[0].tolist()
        path = solve_ivp(
            lambda _, y: (y[1], -torch.tensor(y[0]).sin().item()),
            (0, times[-1]), (theta, omega), t_eval=times, rtol=1e-7, atol=1e-9,
        )  # fmt: skip
        return torch.as_tensor(path.y.T)

    def loader(self, steps: int) -> Any:
        draws = [{"t": torch.rand(self.n, 1)} for _ in range(50)]
        return DataLoader(draws, batch_size=None, shuffle=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        reach = min(1.0, 0.15 + self.global_step / self.grow) if self.grow else 1.0
        t = batch["t"] * self.box[0][1] * reach
        y, dy = jvp(self, (t,), (torch.ones_like(t),))
        kinematics = (dy[:, 0] - y[:, 1]).square().mean()
        force = (dy[:, 1] + torch.sin(y[:, 0])).square().mean()
        self.log_dict({"ode/kinematics": kinematics, "ode/force": force})
        return kinematics + force

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Epidemic(Graded):
    """S' = -b S I / N, I' = b S I / N - g I on 6 weeks; S and I from two small nets."""

    b, g = 1.6, 0.6

    def __init__(
        self, people: float = 1.0, unit: float = 1.0, ic: float = 1.0, optim: Any = None,
        hidden: int = 20, clip: bool = False, net: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.box, self.people, self.unit, self.ic = ((0.0, 6.0),), people, unit, ic
        self.optim = optim or partial(torch.optim.AdamW, lr=1e-2)
        self.S, self.I = dense(1, hidden, hidden, 1), dense(1, hidden, hidden, 1)

    def forward(self, t: Tensor) -> Tensor:
        return self.unit * torch.hstack([self.S(t / 3 - 1), self.I(t / 3 - 1)])

    def rates(self, s: Any, i: Any) -> Any:
        new = self.b * s * i / self.people
        return -new, new - self.g * i

    def exact(self, t: Tensor) -> Tensor:
        first, times = [0.9 * self.people, 0.1 * self.people], t[:, 0].numpy()
        solved = solve_ivp(lambda _, y: self.rates(*y), (0, 6), first, t_eval=times, rtol=1e-8)
        return torch.as_tensor(solved.y.T)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = (6 * torch.rand(50, 1)).requires_grad_()
        s, i = self(t).T
        rates = self.rates(s, i)
        slopes = [torch.autograd.grad(v.sum(), t, create_graph=True)[0][:, 0] for v in (s, i)]
        loss_ode = sum(0.5 * torch.mean((a - b) ** 2) for a, b in zip(slopes, rates, strict=True))
        begin = self(torch.zeros(1, 1)) - self.people * torch.tensor([[0.9, 0.1]])
        loss_ic = 0.5 * torch.sum(begin**2)
        self.log("loss_ode", loss_ode)
        self.log("loss_ic", loss_ic)
        loss = loss_ode + self.ic * loss_ic
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters())


class Delayed(Graded):
    """u'(t) = -u(t - 1) on [0, 2] with u = 1 before; the past is filled in by torch.where."""

    history = 1.0

    def __init__(
        self, lr: float = 5e-3, act: Any = nn.SiLU, wide: int = 24, net: Any = None
    ) -> None:
        super().__init__()
        self.box, self.lr = ((0.0, 2.0),), lr
        self.trunk = dense(1, wide, wide, 1, act=act)

    def forward(self, t: Tensor) -> Tensor:
        return self.trunk(t - 1)

    def exact(self, t: Tensor) -> Tensor:
        return self.history * (1 - t + 0.5 * torch.relu(t - 1) ** 2)

    def slope(self, t: Tensor) -> Tensor:
        return torch.autograd.grad(self(t).sum(), t, create_graph=True)[0]

    def times(self) -> Tensor:
        return 2 * torch.rand(64, 1)

    def begin(self) -> Tensor:
        return (self(torch.zeros(1, 1)) - self.history).square().squeeze()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.times().requires_grad_()
        past = torch.where(t < 1, torch.full_like(t, self.history), self(t - 1))
        equation = (self.slope(t) + past).square().mean()
        start = self.begin()
        self.log_dict({"equation": equation, "start": start})
        return equation + start

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Memory(Graded):
    """u' + 2 u + 5 int_0^t u = 1, u(0) = 0; the integral by the trapezoidal rule on the grid."""

    def __init__(
        self, lr: float = 5e-3, bias: float = 1.0, half: bool = False, net: Any = None
    ) -> None:
        super().__init__()
        self.box, self.lr = ((0.0, 3.0),), lr
        self.net = dense(1, 24, 24, 1)
        self.register_buffer("grid", torch.linspace(0, 3, 60)[:, None])

    def forward(self, t: Tensor) -> Tensor:
        return self.net(t / 1.5 - 1)

    def exact(self, t: Tensor) -> Tensor:
        return 0.5 * torch.exp(-t) * torch.sin(2 * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.grid.clone().requires_grad_()
        u = self(t)
        u_t = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]
        area = torch.cumulative_trapezoid(u, self.grid, dim=0)
        r = u_t[1:] + 2 * u[1:] + 5 * area - 1
        residual, initial = (r * r).mean(), u[0].pow(2).sum()
        self.log("residual", residual)
        self.log("initial", initial)
        return residual + initial

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.lr)


class WholeTimes(Delayed):
    """randint for rand: the times are 0 and 1."""

    def times(self) -> Tensor:
        return torch.randint(0, 2, (64, 1)).float()


class FlatSlope(Delayed):
    """The slope loses its last axis, what is added to it does not."""

    def slope(self, t: Tensor) -> Tensor:
        return super().slope(t).squeeze()
