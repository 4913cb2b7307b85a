"""A falling ball with unknown drag, and a stirred tank; hand-written."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.broken.seventh.ode_hand import relative, solve


class Times(Dataset[Tensor]):
    def __init__(self, t: Tensor, steps: int) -> None:
        self.t, self.steps = t, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Tensor:
        return self.t


class Falling(pl.LightningModule):
    """v' = g - c v^2, v(0) = 0, velocities measured, c unknown; v in units of 10 m/s."""

    def __init__(self, as_parameter: bool = True, lr: float = 1e-2, net: Any = None) -> None:
        super().__init__()
        self.g, self.true_c, self.tmax, self.lr = 0.981, 0.4, 4.0, lr
        self.f = nn.Sequential(
            nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1)
        )
        if as_parameter:
            self.c = nn.Parameter(torch.tensor(1.5))
        else:
            self.c = torch.tensor(1.5, requires_grad=True)
        t = torch.linspace(0.2, 4.0, 8).unsqueeze(1)
        self.register_buffer("t_obs", t)
        self.register_buffer("v_obs", self.truth(t).float())

    def truth(self, t: Tensor) -> Tensor:
        vinf = (self.g / self.true_c) ** 0.5
        return vinf * torch.tanh((self.g * self.true_c) ** 0.5 * t.double())

    def predict(self, x: Tensor) -> Tensor:
        return x * self.f(x / 2 - 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        t = batch.clone().detach().requires_grad_(True)
        v = self.predict(t)
        (v_t,) = torch.autograd.grad(v, t, torch.ones_like(v), create_graph=True)
        mse_f = (v_t - self.g + self.c * v**2).square().mean()
        mse_u = (self.predict(self.t_obs) - self.v_obs).square().mean()
        self.log("mse_f", mse_f, prog_bar=True)
        self.log("mse_u", mse_u, prog_bar=True)
        return mse_u + mse_f

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def loader(self, steps: int) -> DataLoader[Any]:
        t = torch.linspace(0, self.tmax, 40).unsqueeze(1)
        return DataLoader(Times(t, steps), batch_size=None)

    def error(self) -> float:
        t = torch.linspace(0, self.tmax, 200)[:, None]
        of_c = abs(self.c.item() / self.true_c - 1)
        return max(relative(self.predict(t).detach(), self.truth(t)), of_c)


class Tank(pl.LightningModule):
    """A -> B -> C in a stirred tank: two concentrations, minimised by L-BFGS or Adam."""

    def __init__(
        self,
        k1: float = 2.0,
        k2: float = 1.0,
        width: int = 24,
        lr: float = 5e-3,
        optimizer: str = "Adam",
        reseed: bool = False,
        n: int = 6,
        tau: float = 3.0,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.k1, self.k2, self.lr, self.optimizer = k1, k2, lr, optimizer
        self.reseed, self.n, self.tau = reseed, n, tau
        self.hidden = nn.Linear(1, width)
        self.hidden2 = nn.Linear(width, width)
        self.output = nn.Linear(width, 2)
        self.generator = torch.Generator().manual_seed(7)

    def predict(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.hidden(2 * x / self.tau - 1))
        return self.output(torch.tanh(self.hidden2(z)))

    def sample(self) -> Tensor:
        generator = self.generator
        if self.reseed:
            generator = torch.Generator().manual_seed(7)
        return self.tau * torch.rand(self.n, 1, generator=generator)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.sample().requires_grad_()
        c = self.predict(t)
        a, b = c[:, 0:1], c[:, 1:2]
        a_t = torch.autograd.grad(a, t, torch.ones_like(a), create_graph=True)[0]
        b_t = torch.autograd.grad(b, t, torch.ones_like(b), create_graph=True)[0]
        r1 = a_t + self.k1 * a
        r2 = b_t - self.k1 * a + self.k2 * b
        c0 = self.predict(torch.zeros(1, 1)) - torch.tensor([[1.0, 0.0]])
        loss = (r1**2).mean() + (r2**2).mean() + 5 * (c0**2).sum()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        if self.optimizer == "LBFGS":
            return torch.optim.LBFGS(
                self.parameters(), lr=1.0, max_iter=20, line_search_fn="strong_wolfe"
            )
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(torch.zeros(steps, 1), batch_size=1)

    def error(self) -> float:
        t = torch.linspace(0, self.tau, 200)[:, None]
        k1, k2 = self.k1, self.k2
        truth = solve(lambda _, c: [-k1 * c[0], k1 * c[0] - k2 * c[1]], [1, 0], t)
        return relative(self.predict(t).detach(), truth)
