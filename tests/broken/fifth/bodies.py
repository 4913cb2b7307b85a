"""Fins, beams, pellets, bars: boundary value problems; rods, pipes and tissue."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from tests.broken.networks import mlp
from tests.broken.pinn import Pinn, d


class Fin(Pinn):
    """theta'' = m^2 theta, hot at its base, insulated at its tip; ``h``: by differences."""

    def __init__(self, m: float = 2.0, length: float = 1.0, h: float = 0.0, **o: Any) -> None:
        super().__init__(((0.0, length),), **o)
        self.m, self.length, self.h = m, length, h

    def truth(self, x: Tensor) -> Tensor:
        m = self.m / self.length
        return torch.cosh(m * (self.length - x)) / math.cosh(self.m)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        if self.h:
            uxx = (self.net(x + self.h) - 2 * u + self.net(x - self.h)) / self.h**2
        else:
            uxx = d(d(u, x), x)
        fin = self.length**2 * uxx / self.m**2 - u
        end = self.at(self.length).requires_grad_()
        tip = self.length * d(self.net(end), end)
        base = self.net(self.at(0.0)) - 1
        return self.total(fin=(fin**2).mean(), base=(base**2).mean(), tip=(tip**2).mean())


class Beam(Pinn):
    """Simply supported beam under an even load, deflection at most 1; units of the load."""

    load = 76.8

    def __init__(self, rigidity: float = 1.0, **o: Any) -> None:
        super().__init__(((0.0, 1.0),), **o)
        self.rigidity = rigidity

    def truth(self, x: Tensor) -> Tensor:
        return self.load / 24 * (x**4 - 2 * x**3 + x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        w = self.net(x)
        bent = d(d(d(d(w, x), x), x), x)
        beam = self.rigidity * (bent / self.load - 1)
        ends = torch.tensor([[0.0], [1.0]], dtype=self.dtype).requires_grad_()
        w_e = self.net(ends)
        moments = d(d(w_e, ends), ends) / 10
        return self.total(beam=(beam**2).mean(), held=(w_e**2).sum(), hinges=(moments**2).sum())


class MixedBeam(Beam):
    """The same with a network for the moment, both zero at the ends by construction."""

    def __init__(self, **o: Any) -> None:
        super().__init__(**o)
        self.moment = mlp(1, 1, width=24, box=self.box)

    def predict(self, x: Tensor) -> Tensor:
        return 4 * x * (1 - x) * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        w, m = self.predict(x), 4 * x * (1 - x) * self.moment(x)
        bending = fn.mse_loss(d(d(w, x), x) / 10, -m)
        loading = fn.mse_loss(d(d(m, x), x), torch.full_like(m, -self.load / 10))
        self.log_dict({"bending": bending, "loading": loading})
        return bending + self.weights.get("loading", 1.0) * loading


class Pellet(Pinn):
    """Spherical catalyst: x u'' + 2 u' = phi^2 x u, u(1) = 1."""

    def __init__(self, phi: float = 3.0, surface: float = 10.0, **o: Any) -> None:
        super().__init__(((0.0, 1.0),), **o)
        self.phi, self.surface = phi, surface

    def truth(self, x: Tensor) -> Tensor:
        x = x.clamp_min(1e-9)
        return torch.sinh(self.phi * x) / (x * math.sinh(self.phi))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        ux = d(u, x)
        r = x * d(ux, x) + 2 * ux - self.phi**2 * x * u
        inside = r.norm() ** 2 / len(r)
        surface = (self.net(self.at(1.0)) - 1).norm() ** 2
        self.log("inside", inside)
        self.log("surface", surface)
        return inside + self.surface * surface


class Bar(Pinn):
    """Bar under a load along it, u'' = -f, held or pulled at its ends; u of a given size."""

    def __init__(
        self,
        waves: tuple[float, ...] = (0.5, 1.0),
        size: float = 1.0,
        level: float = 0.6,
        h: float = 0.0,
        **o: Any,
    ) -> None:
        super().__init__(((0.0, 1.0),), **o)
        self.waves, self.size, self.level, self.h = waves, size, level, h

    def truth(self, x: Tensor) -> Tensor:
        shape = sum(torch.sin(2 * math.pi * f * x) for f in self.waves)
        return self.size * (self.level + shape)

    def exact(self, x: Tensor, order: int) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            u = self.truth(x)
            for _ in range(order):
                u = d(u, x)
            return u.detach()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        if self.h:
            uxx = (self.net(x + self.h) - 2 * u + self.net(x - self.h)) / self.h**2
        else:
            uxx = d(d(u, x), x)
        unit = (2 * math.pi * max(self.waves)) ** 2
        load = (uxx - self.exact(x, 2)) / unit
        ends = torch.tensor([[0.0], [1.0]], dtype=self.dtype).requires_grad_()
        u_e = self.net(ends)
        pull = (d(u_e, ends) - self.exact(ends, 1)) / math.sqrt(unit)
        held = (u_e - self.truth(ends))[0]
        return self.total(
            load=load.square().mean(), pull=pull.square().sum(), held=held.square().mean()
        )


class Rod(Pinn):
    """u_t = u_xx / pi^2 + s, 0 at walls; alpha trained where there is a record; ``flat``: (N,)."""

    def __init__(
        self, span: float = 1.0, heat: float = 0.0, flat: bool = False, record: int = 0,
        sign: float = 1.0, **o: Any,
    ) -> None:  # fmt: skip
        super().__init__(((0.0, 1.0), (0.0, span)), **o)
        self.heat, self.flat, self.sign = heat, flat, sign
        self.alpha = nn.Parameter(torch.tensor(0.4)) if record else 1.0
        lines = torch.linspace(0.1, 0.9, max(record, 1)), torch.linspace(0.0, span, 6)
        self.register_buffer("where", torch.cartesian_prod(*lines).to(self.dtype))
        self.recorded = bool(record)
        x = torch.linspace(0, 1, 30)[:, None]
        t = torch.linspace(0, span, 30)[:, None]
        self.register_buffer("initial", torch.cat([x, 0 * x], 1).to(self.dtype))
        walls = torch.cat([torch.cat([0 * t, t], 1), torch.cat([0 * t + 1, t], 1)])
        self.register_buffer("walls", walls.to(self.dtype))

    def truth(self, x: Tensor) -> Tensor:
        first, second = (torch.sin(k * math.pi * x[:, :1]) for k in (1, 2))
        fade, t = torch.exp(-x[:, 1:]), x[:, 1:]
        return first * (fade + self.heat * (1 - fade)) + self.heat * t * second

    def source(self, x: Tensor) -> Tensor:
        first, second = (torch.sin(k * math.pi * x[:, 0]) for k in (1, 2))
        s = self.heat * (first + second + 4 * x[:, 1] * second)
        return self.sign * (s if self.flat else s[:, None])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        ux, ut = d(u, x).split(1, dim=1)
        uxx = d(ux, x)[:, :1]
        heat = ut - self.alpha * uxx / math.pi**2 - self.source(x.detach())
        terms = {
            "heat": torch.mean(heat**2),
            "ic": 5 * fn.mse_loss(self.net(self.initial), self.truth(self.initial)),
            "walls": 5 * self.net(self.walls).square().mean(),
        }
        if self.recorded:
            terms["record"] = 5 * fn.mse_loss(self.net(self.where), self.truth(self.where))
        return self.total(**terms)

    def error(self) -> float:
        alpha = abs(self.alpha.item() - 1) if self.recorded else 0.0
        return max(super().error(), alpha)
