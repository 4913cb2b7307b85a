"""Several networks: u made up of them, a field beside u, a subdomain each; trained weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.networks import adam, mlp
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run

A = 4.0


class Parts(Pinn):
    """u'' = -16 sin 4x with u at both ends, by networks that are put together in the step."""

    ends = torch.tensor([[0.0], [1.0]])  # which nothing but the class holds

    def __init__(self, both: bool = True, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **{"optim": adam(5e-3)} | options)
        self.ends = Parts.ends if both else Parts.ends[:1]
        self.other = mlp(1, 1, **self.options)

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(A * x)

    def pde(self, u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return (d(d(u(x), x), x) / A**2 + torch.sin(A * x)) * A

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.rand(60, 1, requires_grad=True)
        ends = self.predict(self.ends) - self.truth(self.ends)
        return self.total(pde=self.pde(self.predict, x).square().mean(), ends=10 * (ends**2).mean())


class Sum(Parts):
    def predict(self, x: Tensor) -> Tensor:
        return self.net(x) + self.other(x)


class Windows(Parts):
    """As in finite basis PINNs."""

    def predict(self, x: Tensor) -> Tensor:
        right = torch.sigmoid(20 * (x - 0.5))
        return (1 - right) * self.net(x) + right * self.other(x)


class BranchAndTrunk(Parts):
    n_out = 16

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.branch = mlp(1, 16, **self.options)

    def predict(self, x: Tensor) -> Tensor:
        return (self.branch(torch.ones_like(x)) * self.net(x)).sum(1, keepdim=True)


class EncoderAndHead(Parts):
    n_out = 16

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.head = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))

    def predict(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.net(x)))


class Basis(Parts):
    """Functions of a network, with weights of the module's own."""

    n_out = 8

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.c = nn.Parameter(0.3 * torch.randn(8, 1))

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x) @ self.c


class Subdomains(Parts):
    """As in XPINNs: a network on each half, which meet in the middle."""

    def predict(self, x: Tensor) -> Tensor:
        return torch.where(x < 0.5, self.net(x), self.other(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        left = (torch.rand(40, 1) / 2).requires_grad_()
        right = (0.5 + torch.rand(40, 1) / 2).requires_grad_()
        middle = torch.full((1, 1), 0.5, requires_grad=True)
        u, v = self.net(middle), self.other(middle)
        ends = torch.cat([self.net(self.ends[:1]), self.other(self.ends[1:])])
        return self.total(
            left=self.pde(self.net, left).square().mean(),
            right=self.pde(self.other, right).square().mean(),
            value=10 * (u - v).square().mean(),
            slope=(d(u, middle) - d(v, middle)).square().mean(),
            ends=10 * (ends - self.truth(self.ends)).square().mean(),
        )


class OwnWeights(Parts):
    """Self-adaptive weights (McClenny and Braga-Neto 2023): the optimizer lets them grow."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.w, self.w_ends = nn.Parameter(torch.ones(40, 1)), nn.Parameter(torch.ones(2, 1))

    def configure_optimizers(self) -> Any:
        weights = {"params": [self.w, self.w_ends], "maximize": True}
        return torch.optim.Adam([{"params": self.net.parameters()}, weights], lr=5e-3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pde = self.w * self.pde(self.net, self.collocation(batch))
        ends = self.w_ends * (self.net(self.ends) - self.truth(self.ends))
        return self.total(pde=pde.square().mean(), ends=10 * ends.square().mean())


class Conductivity(Pinn):
    """(k u')' = f with k(x) a network of its own, from u everywhere and one flux."""

    n_out = 1

    def __init__(self, flux: bool = True, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **{"optim": adam(5e-3)} | options)
        self.k, self.flux = mlp(1, 1, **self.options), flux

    def truth(self, x: Tensor) -> Tensor:
        return 2 + 0.5 * torch.sin(A * x)

    def predict(self, x: Tensor) -> Tensor:
        return self.k(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u, at = self.net(x), x.detach()
        flow = self.k(x) * d(u, x)
        source = self.truth(at) + 2 * torch.cos(A * at) * (1 + at)
        terms = {"balance": d(flow, x) - source, "readings": u - (at + at * at / 2)}
        if self.flux:
            terms["start"] = flow[0] - 2
        return self.total(**{name: r.square().mean() for name, r in terms.items()})


class Source(Pinn):
    """u'' = f with f(x) a network of its own, from readings of u: everywhere, or at both ends."""

    def __init__(self, readings: int = 40, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **{"optim": adam(5e-3)} | options)
        self.f = mlp(1, 1, **self.options)
        self.register_buffer("places", torch.linspace(0, 1, readings)[:, None])

    def truth(self, x: Tensor) -> Tensor:
        return -torch.sin(A * x)

    def predict(self, x: Tensor) -> Tensor:
        return self.f(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u_xx = d(d(self.net(x), x), x)
        readings = self.net(self.places) - torch.sin(A * self.places)
        equation = u_xx / A**2 - self.f(x)
        return self.total(equation=equation.square().mean(), readings=10 * readings.square().mean())


MANY = {"steps": 1500}
FURTHER = {"steps": 3000}
TOLD = FURTHER | {"weights": {"readings": 30, "start": 10}}

SEVERAL = [
    Run("several-sum", "CLEAN", "set", Sum, MANY),
    Run("several-windows", "CLEAN", "set", Windows, MANY),
    Run("several-branch", "CLEAN", "set", BranchAndTrunk, MANY),
    Run("several-basis", "CLEAN", "set", Basis, MANY),
    Run("several-subdomains", "CLEAN", "set", Subdomains, MANY),
    Run("several-weights", "CLEAN", "set", OwnWeights, MANY),
    Run("several-sum-one-end", "NOT_UNIQUE", "set", Sum, MANY, {"both": False}),
    Run("several-head-one-end", "NOT_UNIQUE", "set", EncoderAndHead, MANY, {"both": False}),
    Run("several-branch-one-end", "NOT_UNIQUE", "set", BranchAndTrunk, MANY, {"both": False}),
    Run("several-no-flux", "NOT_UNIQUE", "set", Conductivity, TOLD, {"flux": False}),
    Run("several-two-readings", "NOT_UNIQUE", "set", Source, FURTHER, {"readings": 2}),
]
