"""Homework of the chemist: lists of conditions as in DeepXDE."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.thirteenth.common import Lesson, grad, rand

Conditions = list[tuple[str, float, Callable[[], Tensor]]]


class Reaction(Lesson):
    """Loss = norm of the equation + sum of weighted conditions (name, weight, error)."""

    n_points = 80
    batch_size: int | None = None

    def __init__(self, n_points: int | None = None, **kw: Any) -> None:
        super().__init__(**kw)
        self.x = rand(n_points or self.n_points, self.lb, self.ub)

    def loader(self, steps: int) -> DataLoader[Any]:
        if self.batch_size is None:
            return super().loader(steps)
        return DataLoader(TensorDataset(self.x), batch_size=self.batch_size, shuffle=True)

    def equation(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def conditions(self) -> Conditions:
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x if self.batch_size is None else batch[0]
        x = x.clone().requires_grad_(True)
        losses = [self.equation(x).pow(2).mean()]
        self.log("loss_eq", losses[0])
        for name, weight, condition in self.conditions():
            losses.append(weight * condition().pow(2).mean())
            self.log(f"loss_{name}", losses[-1])
        return torch.stack(losses).sum()


class Order(Reaction):
    """Kinetics of order 3/2: c' = -k c^1.5, with c from the net."""

    ub, k = (1.5,), 2.0

    def __init__(self, positive: bool = True, **kw: Any) -> None:
        super().__init__(**kw)
        self.positive = positive

    def truth(self, t: Tensor) -> Tensor:
        return (1 + self.k * t / 2) ** -2

    def predict(self, t: Tensor) -> Tensor:
        return nn.functional.softplus(self.net(t)) if self.positive else self.net(t)

    def equation(self, t: Tensor) -> Tensor:
        c = self.predict(t)
        return grad(c, t) + self.k * c**1.5

    def conditions(self) -> Conditions:
        return [("c0", 10.0, lambda: self.predict(torch.zeros(1, 1)) - 1)]


class Chain(Reaction):
    """A -> B -> C in a batch reactor, in mini-batches."""

    ub, n_out, batch_size = (4.0,), 3, 20
    k1, k2 = 1.5, 0.6

    def truth(self, t: Tensor) -> Tensor:
        a = torch.exp(-self.k1 * t)
        b = self.k1 / (self.k2 - self.k1) * (a - torch.exp(-self.k2 * t))
        return torch.cat([a, b, 1 - a - b], 1)

    def equation(self, t: Tensor) -> Tensor:
        a, b, c = self.net(t).split(1, 1)
        r1, r2 = self.k1 * a, self.k2 * b
        return torch.cat([grad(a, t) + r1, grad(b, t) - r1 + r2, grad(c, t) - r2], 1)

    def conditions(self) -> Conditions:
        start = torch.tensor([[1.0, 0.0, 0.0]])
        return [("feed", 1.0, lambda: self.net(torch.zeros(1, 1)) - start)]


class Reversible(Reaction):
    """A <-> B with the known rates, and an assay of both at eight times."""

    ub, n_out = (2.0,), 2
    kf, kb = 1.5, 0.5

    def __init__(self, swapped: bool = False, **kw: Any) -> None:
        super().__init__(**kw)
        self.t = torch.linspace(0.25, 2, 8)[:, None]
        table = self.truth(self.t).numpy()
        a, b = (table[:, 1], table[:, 0]) if swapped else (table[:, 0], table[:, 1])
        self.ab = torch.tensor(np.stack([a, b], axis=1))

    def truth(self, t: Tensor) -> Tensor:
        a = 0.25 + 0.75 * torch.exp(-2 * t)
        return torch.cat([a, 1 - a], 1)

    def equation(self, t: Tensor) -> Tensor:
        a, b = self.net(t).split(1, 1)
        rate = self.kf * a - self.kb * b
        return torch.cat([grad(a, t) + rate, grad(b, t) - rate], 1)

    def conditions(self) -> Conditions:
        return [
            ("start", 1.0, lambda: self.net(torch.zeros(1, 1)) - torch.tensor([[1.0, 0.0]])),
            ("assay", 10.0, lambda: self.net(self.t) - self.ab),
        ]


class Pellet(Reaction):
    """Slab of catalyst, Thiele modulus 3: c'' = phi^2 c, by central differences."""

    phi = 3.0

    def __init__(self, h: float = 0.03, **kw: Any) -> None:
        super().__init__(**kw)
        self.h = h

    def truth(self, x: Tensor) -> Tensor:
        return torch.cosh(self.phi * x) / math.cosh(self.phi)

    def equation(self, x: Tensor) -> Tensor:
        x, h = x.detach(), self.h
        c = self.net(x)
        c_xx = (self.net(x + h) - 2 * c + self.net(x - h)) / h**2
        return c_xx - self.phi**2 * c

    def conditions(self) -> Conditions:
        h = self.h
        at = lambda x: self.net(torch.tensor([[x]]))  # noqa: E731
        return [
            ("surface", 100.0, lambda: at(1.0) - 1),
            ("centre", 1.0, lambda: (at(h) - at(-h)) / (2 * h)),
        ]


class PlugFlow(Reaction):
    """Tube with dispersion: c'' / Pe - c' - Da c = 0, closed at both ends (Danckwerts)."""

    pe, da = 5.0, 2.0

    def truth(self, x: Tensor) -> Tensor:
        q = math.sqrt(1 + 4 * self.da / self.pe)
        p, m = self.pe * (1 + q) / 2, self.pe * (1 - q) / 2
        a = torch.tensor([[1 - p / self.pe, 1 - m / self.pe], [p * math.exp(p), m * math.exp(m)]])
        k = torch.linalg.solve(a, torch.tensor([1.0, 0.0]))
        return k[0] * torch.exp(p * x) + k[1] * torch.exp(m * x)

    def equation(self, x: Tensor) -> Tensor:
        c = self.net(x)
        c_x = grad(c, x)
        return grad(c_x, x) / self.pe - c_x - self.da * c

    def end(self, x: float) -> tuple[Tensor, Tensor]:
        x_ = torch.tensor([[x]], requires_grad=True)
        c = self.net(x_)
        return c, grad(c, x_)

    def inlet(self) -> Tensor:
        c, c_x = self.end(0.0)
        return c - c_x / self.pe - 1

    def conditions(self) -> Conditions:
        return [("inlet", 10.0, self.inlet), ("outlet", 1.0, lambda: self.end(1.0)[1])]


class Enzyme(Reaction):
    """Michaelis-Menten: s' = -v s / (K + s) with v and K from an assay."""

    ub = (4.0,)

    def __init__(self, column: bool = True, **kw: Any) -> None:
        super().__init__(**kw)
        self.v = nn.Parameter(torch.tensor(0.6))
        self.K = nn.Parameter(torch.tensor(1.0))
        assay = np.linspace(0, 4, 40)
        self.t = torch.tensor(assay, dtype=torch.float32).reshape(-1, 1)
        s = self.truth(self.t).numpy().ravel()
        self.s = torch.from_numpy(s.reshape(-1, 1) if column else s)

    def truth(self, t: Tensor) -> Tensor:
        s = torch.full_like(t, 1.0, dtype=torch.float64)  # 0.5 ln s + s = 2 - ... by Newton
        for _ in range(60):
            y = torch.log(s)
            f = 0.5 * y + torch.exp(y) - 2 - 0.5 * math.log(2) + t
            s = torch.exp(y - f / (0.5 + torch.exp(y)))
        return s.float()

    def equation(self, t: Tensor) -> Tensor:
        s = self.net(t)
        return grad(s, t) * (self.K + s) + self.v * s

    def conditions(self) -> Conditions:
        return [("assay", 10.0, lambda: self.net(self.t) - self.s)]

    def error(self) -> float:
        return max(super().error(), abs(self.v.item() - 1))
