"""The graph: terms that are cut off from it, parameters that nobody trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.networks import adam, lbfgs, mlp, uniform
from tests.broken.odes import Decay, Inverse, Oscillator
from tests.broken.pdes import Burgers, Heat, Mixed, Poisson
from tests.broken.pinn import d
from tests.broken.run import Run

POISSON: dict[str, Any] = {"steps": 1500, "weights": {"bc": 100}}
SQUARE: dict[str, Any] = {
    "steps": 1500,
    "weights": {"walls": 100},
    "points": uniform(150, (0, 1), (0, 1)),
}


class SecondWithoutGraph(Poisson):
    def pde(self, x: Tensor) -> Tensor:
        u = self.net(x)
        u_x = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
        u_xx = torch.autograd.grad(u_x.sum(), x)[0]
        return u_xx - self.f(x.detach())


class WallsAsNumber(Poisson):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pde = self.pde(self.collocation(batch)).square().mean()
        bc = self.walls().square().mean().item()
        self.log_dict({"pde": pde, "bc": bc})
        return pde + 100 * bc


class PredictionWithoutGrad(Inverse):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        physics = ((d(u, t) + self.k * u) ** 2).mean()
        with torch.no_grad():
            predicted = self.net(self.times)
        data = ((predicted - self.truth(self.times)) ** 2).mean()
        return self.total(physics=physics, data=data)


class StartOfData(Heat):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pde = self.pde(self.collocation(batch)).pow(2).mean()
        loss_ic = (self.net(self.initial).data - self.truth(self.initial)).pow(2).mean()
        loss_bc = self.net(self.walls).pow(2).mean()
        self.log("train/pde", pde)
        self.log("train/ic", loss_ic)
        self.log("train/bc", loss_bc)
        return pde + loss_ic + loss_bc


class ThroughNumpy(Decay):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        pde = (d(u, t) + self.k * u).pow(2).mean()
        start = self.net(self.at(0.0)).detach().numpy()
        ic = ((torch.as_tensor(start) - 1) ** 2).mean()
        return self.total(pde=pde, ic=ic)


class DetachedInside(Burgers):
    """Detached for logging, then used."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        pde = self.residual(self.net(x), x) - self.residual(self.truth(x), x).detach()
        loss_pde = (pde.detach() ** 2).mean()
        loss_known = ((self.net(self.known) - self.truth(self.known)) ** 2).mean()
        self.log("loss_pde", loss_pde)
        self.log("loss_known", loss_known)
        return loss_pde + loss_known


class DiffusionWithoutGraph(Heat):
    """Of the equation only u_t is trained."""

    def pde(self, x: Tensor) -> Tensor:
        u = self.net(x)
        u_t, u_x = d(u, x).split(1, dim=1)
        u_xx = torch.autograd.grad(u_x.sum(), x, retain_graph=True)[0][:, 1:]
        return u_t - self.kappa * u_xx


DETACHED = [
    Run(
        "detached-second-derivative",
        "DETACHED",
        "set",
        Poisson,
        POISSON,
        {"problem": SecondWithoutGraph},
    ),
    Run("detached-walls-item", "DETACHED", "set", Poisson, POISSON, {"problem": WallsAsNumber}),
    Run(
        "detached-data-no-grad",
        "DETACHED",
        "set",
        Inverse,
        {"steps": 1500},
        {"problem": PredictionWithoutGrad},
    ),
    Run("detached-start-data", "DETACHED", "set", Heat, {"steps": 1000}, {"problem": StartOfData}),
    Run(
        "detached-start-numpy", "DETACHED", "set", Decay, {"steps": 800}, {"problem": ThroughNumpy}
    ),
    Run(
        "detached-burgers-residual",
        "DETACHED",
        "set",
        Burgers,
        {"steps": 1500, "optim": adam(5e-3)},
        {"problem": DetachedInside},
    ),
    Run(
        "detached-diffusion-partial",
        "DETACHED",
        "set",
        Heat,
        {"steps": 1500, "kappa": 0.3},
        {"problem": DiffusionWithoutGraph},
        note="partial: u_t keeps its graph",
    ),
]


def last_layer(module: Any) -> Any:
    return module.net[-1].parameters()


def network(module: Any) -> Any:
    return module.net.parameters()


class Frozen(Heat):
    """The first layers are left from another problem and kept."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net[:-1].requires_grad_(False)


class CoefficientOfItsOwn(Inverse):
    """k is a tensor that no parameter list knows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self.k
        self.k = torch.tensor(0.5, requires_grad=True)


class LayersInList(Oscillator):
    """Hidden layers in a list of Python, which registers nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.hidden = [nn.Linear(1, 16), nn.Linear(16, 16)]
        self.net = nn.Linear(16, 1)
        self.net.forward = self.through  # type: ignore[method-assign]

    def through(self, t: Tensor) -> Tensor:
        for layer in self.hidden:
            t = torch.tanh(layer(t))
        return nn.functional.linear(t, self.net.weight, self.net.bias)


class NetworkReplaced(Poisson):
    """The optimizer has been made for a network that was replaced since."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        self.net = mlp(1, **self.options)
        return optimizer


NOT_TRAINED = [
    Run(
        "untrained-all-but-last-layer",
        "NOT_TRAINED",
        "set",
        Poisson,
        POISSON | {"a": 2.0, "net": {"width": 20}},
        {"trained": last_layer},
    ),
    Run(
        "untrained-second-network",
        "NOT_TRAINED",
        "set",
        Mixed,
        {"steps": 1500, "weights": {"ends": 10}},
        {"trained": network},
    ),
    Run(
        "untrained-coefficient",
        "NOT_TRAINED",
        "set",
        Inverse,
        {"steps": 1500},
        {"trained": network},
    ),
    Run("untrained-frozen", "NOT_TRAINED", "set", Heat, {"steps": 1200}, {"problem": Frozen}),
    Run(
        "untrained-coefficient-of-its-own",
        "NOT_TRAINED",
        "set",
        Inverse,
        {"steps": 40, "optim": lbfgs(max_iter=10), "k": 3.0},
        {"problem": CoefficientOfItsOwn},
    ),
    Run(
        "untrained-layers-in-list",
        "NOT_TRAINED",
        "set",
        Oscillator,
        {"steps": 1500, "omega": 4.0, "net": {"width": 16}},
        {"problem": LayersInList},
    ),
    Run(
        "untrained-network-replaced",
        "NOT_TRAINED",
        "set",
        Poisson,
        POISSON,
        {"problem": NetworkReplaced},
    ),
]

GRAPH = [*DETACHED, *NOT_TRAINED]
