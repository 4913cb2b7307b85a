"""Hand-written Lightning modules for ordinary differential equations."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def relative(u: Tensor, truth: Tensor) -> float:
    error = float((u - truth).norm() / truth.norm())
    return error if math.isfinite(error) else math.inf


def solve(rhs: Any, start: Any, t: Tensor) -> Tensor:
    times = t[:, 0].double().numpy()
    span = (times[0], times[-1])
    solved = solve_ivp(rhs, span, start, t_eval=times, rtol=1e-8, atol=1e-10)
    return torch.as_tensor(solved.y.T)


class Logistic(pl.LightningModule):
    """dN/dt = r N (1 - N/K), N(t0) = n0 K."""

    def __init__(
        self,
        r: float = 1.0,
        K: float = 1.0,
        n0: float = 0.1,
        t0: float = 0.0,
        t1: float = 6.0,
        hidden: int = 32,
        lr: float = 5e-3,
        optimizer: str = "Adam",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        n_points: int = 64,
        lambda_ic: float = 1.0,
        lambda_ode: float = 1.0,
        dropout: float = 0.0,
        normalize: bool = True,
        scale_u: bool = True,
        causal: float = 0.0,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["net"])
        self.model = nn.Sequential(
            nn.Linear(1, hidden),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )
        self.criterion = nn.MSELoss()

    def forward(self, t: Tensor) -> Tensor:
        h = self.hparams
        if h.normalize:
            t = (t - h.t0) / (h.t1 - h.t0)
        return self.model(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        h = self.hparams
        t = torch.linspace(h.t0, h.t1, h.n_points).view(-1, 1).requires_grad_(True)
        N = self.forward(t)
        dN = torch.autograd.grad(N, t, torch.ones_like(N), create_graph=True)[0]
        K = 1.0 if h.scale_u else h.K
        ode = dN / h.r - N * (1 - N / K)
        if h.causal > 0:
            past = torch.cumsum(ode.detach() ** 2, 0) - ode.detach() ** 2
            loss_ode = torch.mean(torch.exp(-h.causal * past) * ode**2)
        else:
            loss_ode = self.criterion(ode, torch.zeros_like(ode))
        N0 = self.forward(torch.tensor([[h.t0]]))
        loss_ic = self.criterion(N0, torch.full_like(N0, h.n0 * K))
        loss = h.lambda_ode * loss_ode + h.lambda_ic * loss_ic
        self.log_dict({"train_loss": loss, "ode": loss_ode, "ic": loss_ic})
        return loss

    def configure_optimizers(self) -> Any:
        h = self.hparams
        kind = getattr(torch.optim, h.optimizer)
        more = {"momentum": h.momentum} if h.momentum else {}
        return kind(self.parameters(), lr=h.lr, weight_decay=h.weight_decay, **more)

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(range(steps), batch_size=None)

    def predict(self, x: Tensor) -> Tensor:
        return self.forward(x) * (self.hparams.K if self.hparams.scale_u else 1.0)

    @torch.no_grad()
    def error(self) -> float:
        h = self.hparams
        t = torch.linspace(h.t0, h.t1, 200)[:, None]
        self.eval()
        N = self.predict(t)
        growth = torch.exp(h.r * (t - h.t0).double())
        return relative(N, h.K * h.n0 * growth / (1 - h.n0 + h.n0 * growth))


class Cooling(pl.LightningModule):
    """A cup of coffee: dT/dt = r (T_env - T) with measured temperatures, r is learned."""

    def __init__(
        self,
        normalize: bool = True,
        flat: bool = False,
        graph: bool = True,
        weight: float = 1.0,
        lr: float = 1e-2,
        last: float = 1000.0,
        r: float = 0.005,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.Tenv, self.T0, self.R, self.t_end = 25.0, 100.0, r, last
        self.normalize, self.graph, self.weight, self.lr = normalize, graph, weight, lr
        self.layers = nn.ModuleList([nn.Linear(1, 32), nn.Linear(32, 32), nn.Linear(32, 1)])
        self.r = nn.Parameter(torch.tensor([1.0]))
        t = torch.linspace(0, last, 12)
        T = self.Tenv + (self.T0 - self.Tenv) * torch.exp(-r * t)
        self.t_data = t.view(-1, 1)
        self.T_data = T if flat else T.view(-1, 1)
        self.t_phys = torch.linspace(0, last, 50).view(-1, 1).requires_grad_(True)

    def forward(self, t: Tensor) -> Tensor:
        out = t / self.t_end if self.normalize else t
        for layer in self.layers[:-1]:
            out = torch.tanh(layer(out))
        return 100 * self.layers[-1](out)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        data = torch.mean((self(self.t_data) / 100 - self.T_data / 100) ** 2)
        T = self(self.t_phys)
        dT = torch.autograd.grad(T.sum(), self.t_phys, create_graph=self.graph, retain_graph=True)[
            0
        ]
        res = (self.t_end * dT - self.r * (self.Tenv - T)) / 100
        loss = data + self.weight * torch.mean(res**2)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(range(steps), batch_size=None)

    predict = forward

    @torch.no_grad()
    def error(self) -> float:
        t = torch.linspace(0, self.t_end, 200)[:, None]
        T = self.Tenv + (self.T0 - self.Tenv) * torch.exp(-self.R * t)
        of_r = abs(self.r.item() / (self.R * self.t_end) - 1)
        return max(relative(self(t) - self.Tenv, T - self.Tenv), of_r)


class Pendulum(pl.LightningModule):
    """theta'' + w^2 sin(theta) = 0 in mini-batches of times, and a dict of losses."""

    def __init__(
        self,
        act: type[nn.Module] = nn.Tanh,
        width: int = 32,
        tmax: float = 4.0,
        t_train: float | None = None,
        theta0: float = 1.0,
        lr: float = 5e-3,
        n: int = 96,
        batch_size: int = 32,
        start_weight: float = 1.0,
        gamma: float | None = None,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.tmax, self.theta0, self.lr, self.gamma = tmax, theta0, lr, gamma
        self.batch_size, self.start_weight = batch_size, start_weight
        self.net = nn.Sequential(
            nn.Linear(1, width), act(), nn.Linear(width, width), act(), nn.Linear(width, 1)
        )
        self.t = torch.linspace(0, t_train or tmax, n).unsqueeze(-1)

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x * 2 / self.tmax - 1)

    def derivative(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.autograd.grad(
            y, x, grad_outputs=torch.ones_like(y), create_graph=True, retain_graph=True
        )[0]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        (t,) = batch
        t.requires_grad = True
        th = self.predict(t)
        om = self.derivative(th, t)
        al = self.derivative(om, t)
        zero = torch.zeros(1, 1, requires_grad=True)
        th0 = self.predict(zero)
        om0 = self.derivative(th0, zero)
        losses = {
            "ode": torch.mean(torch.square(al + torch.sin(th))),
            "theta0": self.start_weight * torch.mean(torch.square(th0 - self.theta0)),
            "omega0": self.start_weight * torch.mean(torch.square(om0)),
        }
        for key, value in losses.items():
            self.log(key, value)
        return {"loss": sum(losses.values())}

    def configure_optimizers(self) -> Any:
        opt = torch.optim.Adam(self.parameters(), lr=self.lr)
        if self.gamma is None:
            return opt
        return [opt], [torch.optim.lr_scheduler.ExponentialLR(opt, self.gamma)]

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.t), batch_size=self.batch_size, shuffle=True)

    def error(self) -> float:
        t = torch.linspace(0, self.tmax, 200)[:, None]
        truth = solve(lambda _, y: [y[1], -math.sin(y[0])], [self.theta0, 0], t)[:, :1]
        return relative(self.predict(t).detach(), truth)
