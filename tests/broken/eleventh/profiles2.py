"""More on a line, one with two optimizers, and ground with its days."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.eleventh.common import DNN, Problem, gradients, lhs, mse


def residual(model: Any, x: Tensor, m: float) -> Tensor:
    T = model(x)
    return gradients(T, x, 2) / m**2 - T


class Fin(Problem):
    """T'' = m^2 T, T(0) = 1, T'(1) + Bi T(1) = 0."""

    m, Bi = 2.0, 1.5

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.model = DNN(self.lb, self.ub, **self.net_options)
        self.x_f = lhs(60, self.lb, self.ub)

    def truth(self, x: Tensor) -> Tensor:
        def shape(s: Tensor) -> Tensor:
            return torch.cosh(self.m * s) + self.Bi / self.m * torch.sinh(self.m * s)

        return shape(1 - x) / shape(torch.ones(()))

    def predict(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        f = residual(self.model, self.x_f.clone().requires_grad_(), self.m)
        tip = torch.ones(1, 1, requires_grad=True)
        T = self.model(tip)
        robin = gradients(T, tip) + self.Bi * T
        base = self.model(torch.zeros(1, 1)) - 1
        self.log("pde", mse(f))
        self.log("bc", mse(robin) + mse(base))
        return mse(f) + mse(robin) + 5 * mse(base)


class Bratu(Problem):
    """u'' + e^u = 0 between zeros: Adam, then L-BFGS."""

    def __init__(self, first: int = 200, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False
        self.first = first
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.x_f = lhs(40, self.lb, self.ub)
        self.done = 0

    def configure_optimizers(self) -> Any:
        after = torch.optim.LBFGS(
            self.parameters(), max_iter=10, history_size=30, line_search_fn="strong_wolfe"
        )
        return self.optim(self.parameters()), after

    def truth(self, x: Tensor) -> Tensor:
        theta = 1.5171645990507543
        return -2 * torch.log(torch.cosh((x - 0.5) * theta / 2) / math.cosh(theta / 4))

    def loss(self) -> Tensor:
        x = self.x_f.clone().requires_grad_()
        u = self.net(x)
        walls = self.net(torch.tensor([[0.0], [1.0]]))
        return mse(gradients(u, x, 2) + torch.exp(u)) + 10 * mse(walls)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()[0 if self.done < self.first else 1]
        self.done += 1

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss()
            self.manual_backward(loss)
            return loss

        self.log("loss", optimizer.step(closure))


class Aquifer(Problem):
    """K h'' = -R with both unknown, fifteen wells, and the flow into the river K h'(0)."""

    K_true, R_true = 2.0, 3.0

    def __init__(self, river: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.river = river
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.log_K = nn.Parameter(torch.tensor(0.0))
        self.log_R = nn.Parameter(torch.tensor(0.0))
        self.x_f, self.x_d = torch.linspace(0, 1, 40)[:, None], torch.linspace(0, 1, 15)[:, None]

    def truth(self, x: Tensor) -> Tensor:
        return 0.5 + self.R_true / self.K_true * (x - x**2 / 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x_f.clone().requires_grad_()
        h_x, K, R = gradients(self.net(x), x), self.log_K.exp(), self.log_R.exp()
        loss = mse(K * gradients(h_x, x) + R)
        loss = loss + 10 * mse(self.net(self.x_d) - self.truth(self.x_d))
        if self.river:
            loss = loss + mse(K * h_x[0] - self.R_true)
        self.log("loss", loss)
        return loss

    def error(self) -> float:
        K, R = self.log_K.exp().item() / self.K_true, self.log_R.exp().item() / self.R_true
        return max(super().error(), abs(K - 1), abs(R - 1))


class Permafrost(Problem):
    """T_t = a T_xx + f over some days; `window`: steps in which a window of times moves on."""

    lb, ub, a, w = (0.0, 0.0), (1.0, 2.0), 0.1, 4.0

    def __init__(self, window: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.window = window
        self.net = DNN(self.lb, self.ub, **self.net_options)

    def truth(self, X: Tensor) -> Tensor:
        return torch.sin(math.pi * X[:, :1]) * torch.cos(self.w * X[:, 1:])

    def times(self, n: int) -> Tensor:
        t = 2 * torch.rand(n, 1)
        if self.window:
            t = 0.2 * t + 1.6 * min(1.0, self.global_step / self.window)
        return t

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, t = torch.rand(150, 1).requires_grad_(), self.times(150).requires_grad_()
        T = self.net(torch.cat([x, t], dim=1))
        shape = torch.sin(math.pi * x.detach())
        f = shape * (self.a * math.pi**2 * torch.cos(self.w * t) - self.w * torch.sin(self.w * t))
        pde = mse(gradients(T, t) - self.a * gradients(T, x, 2) - f.detach()) / self.w
        s = torch.rand(50, 1)
        X0 = torch.cat([s, torch.zeros_like(s)], dim=1)
        day = self.times(50)
        walls = torch.cat([torch.cat([torch.full_like(s, e), day], 1) for e in (0.0, 1.0)])
        ic, bc = mse(self.net(X0) - self.truth(X0)), mse(self.net(walls))
        self.log_dict({"pde": pde, "ic": ic, "bc": bc})
        return pde + 5 * ic + 5 * bc
