"""The turbine engineer: one network per part, kept in a ModuleDict; every term is logged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tests.broken.networks import mlp
from tests.broken.twelfth.base import Model


def slope(u: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0]


def everything(nets: nn.ModuleDict) -> Iterable[nn.Parameter]:
    return nets.parameters()


class Blade(Model):
    """Blade of two alloys, k T'' = H T; hot root, insulated tip; a network for each alloy.

    x in lengths of the blade, T in units of the root's. ``si`` writes the terms in SI units.
    """

    LENGTH, CONDUCTIVITY, KELVIN = 0.05, 20.0, 500.0

    def __init__(
        self,
        si: bool = False,
        trained: Callable[[nn.ModuleDict], Iterable[nn.Parameter]] = everything,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.si, self.trained = si, trained
        self.k, self.film = {"root": 1.0, "tip": 3.0}, 6.0
        self.nets = nn.ModuleDict({part: mlp(1, 1, width=24) for part in self.k})
        self.register_buffer("x", torch.linspace(0, 0.5, 25)[:, None])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optim(self.trained(self.nets))

    def units(self) -> tuple[float, float, float]:
        """Of a source, a flux, and a temperature."""
        if not self.si:
            return 1.0, 1.0, 1.0
        flux = self.CONDUCTIVITY * self.KELVIN / self.LENGTH
        return flux / self.LENGTH, flux, self.KELVIN

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        source, flux, kelvin = self.units()
        loss, ends = torch.zeros(()), {}
        for part, start in (("root", 0.0), ("tip", 0.5)):
            x = (self.x + start).requires_grad_()
            t = self.nets[part](x)
            t_x = slope(t, x)
            residual = source * (self.k[part] * slope(t_x, x) - self.film * t)
            self.log(f"conduction_{part}", residual.square().mean())
            loss = loss + residual.square().mean()
            ends[part] = (t[0], t[-1], self.k[part] * t_x[0], self.k[part] * t_x[-1])
        root = (kelvin * (ends["root"][0] - 1)).square().mean()
        tip = (flux * ends["tip"][3]).square().mean()
        joint = (kelvin * (ends["root"][1] - ends["tip"][0])).square().mean()
        heat = (flux * (ends["root"][3] - ends["tip"][2])).square().mean()
        for name, term in {"root": root, "tip": tip, "joint": joint, "heat": heat}.items():
            self.log(name, term)
        return loss + 10 * root + tip + 10 * joint + heat

    def predict(self, x: Tensor) -> Tensor:
        return torch.where(x < 0.5, self.nets["root"](x), self.nets["tip"](x))

    def truth(self, x: Tensor) -> Tensor:
        (k, c), h = self.k.values(), 0.5
        m, n = (self.film / k) ** 0.5, (self.film / c) ** 0.5
        matrix = [[np.cosh(m * h), np.sinh(m * h), -np.cosh(n * h)]]
        matrix += [[k * m * np.sinh(m * h), k * m * np.cosh(m * h), c * n * np.sinh(n * h)]]
        matrix += [[1.0, 0.0, 0.0]]
        a, b, e = np.linalg.solve(np.array(matrix), np.array([0.0, 0.0, 1.0]))
        near = a * torch.cosh(m * x) + b * torch.sinh(m * x)
        return torch.where(x < 0.5, near, e * torch.cosh(n * (1 - x)))


class Beam(Model):
    """Cantilever under its own weight: M'' = q and w'' = M, a network for each."""

    def __init__(
        self,
        activation: str = "tanh",
        fixed: tuple[str, ...] = ("deflection", "rotation"),
        q: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.q, self.fixed = q, fixed
        self.nets = nn.ModuleDict({u: mlp(1, 1, width=24, activation=activation) for u in "wM"})

    def function(self, name: str) -> Callable[[Tensor], Tensor]:
        net = self.nets[name]
        weights = dict(net.named_parameters())
        return lambda x: functional_call(net, weights, (x[None],))[0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, (w, m) = torch.rand(32), map(self.function, "wM")
        w_xx, m_xx = vmap(grad(grad(w)))(x), vmap(grad(grad(m)))(x)
        foot, tip = torch.zeros(()), torch.ones(())
        terms = {
            "curvature": (w_xx - vmap(m)(x)).square().mean(),
            "load": (m_xx - self.q).square().mean(),
            "moment": m(tip) ** 2,
            "shear": grad(m)(tip) ** 2,
        }
        if "deflection" in self.fixed:
            terms["deflection"] = w(foot) ** 2
        if "rotation" in self.fixed:
            terms["rotation"] = grad(w)(foot) ** 2
        self.log_dict(terms)
        return sum(terms.values())

    def predict(self, x: Tensor) -> Tensor:
        return self.nets["w"](x)

    def truth(self, x: Tensor) -> Tensor:
        return self.q / 24 * x**2 * (x**2 - 4 * x + 6)


class Duffing(Model):
    """Driven blade root with play: u'' + c u' - u + u^3 = f cos(omega t); start built in."""

    def __init__(
        self, span: float = 4.0, width: int = 40, points: int = 80, **options: Any
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.span, self.points = span, points
        self.modes = nn.ModuleDict(
            {
                "slow": mlp(1, 1, width=width, box=self.box),
                "fast": mlp(1, 1, width=width, box=self.box, activation="sin"),
            }
        )

    def predict(self, t: Tensor) -> Tensor:
        added = self.modes["slow"](t) + self.modes["fast"](t)
        return 1.0 + (1 - torch.exp(-(t**2))) * added

    def acceleration(self, t: Any, u: Any, v: Any, cos: Any) -> Any:
        return -0.3 * v + u - u**3 + 0.5 * cos(1.2 * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = (torch.rand(self.points, 1) * self.span).requires_grad_()
        u = self.predict(t)
        v = slope(u, t)
        residual = slope(v, t) - self.acceleration(t, u, v, torch.cos)
        loss = nn.functional.mse_loss(residual, torch.zeros_like(residual))
        self.log("duffing", loss)
        return loss

    def truth(self, t: Tensor) -> Tensor:
        def rhs(t: float, y: Any) -> Any:
            return [y[1], self.acceleration(t, y[0], y[1], np.cos)]

        solved = solve_ivp(
            rhs, (0, self.span), [1, 0], t_eval=t[:, 0].numpy(), rtol=1e-9, atol=1e-9
        )
        return torch.as_tensor(solved.y[0])[:, None]
