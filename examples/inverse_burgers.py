"""An inverse problem: the viscosity of Burgers' equation from noisy data, after Raissi et al. 2019.

    u_t + u u_x = nu u_xx on [0, 1] x [-1, 1],    u(t, -1) = u(t, 1) = 0,    nu = 0.03 to be found
    300 values of u with noise of 5 % of their deviation

Three terms: the data, u on both ends, and the residual inside. The data fit before nu is right, and
weights that let the equation learn as fast as they do may also fit their noise. The reference is
the transform of Cole and Hopf with the true nu; the error of nu is printed beside that of u.

    python examples/inverse_burgers.py fit --config configs/inverse_burgers.yaml    # minutes
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gallery import points, references
from gallery.command_line import Report, run
from gallery.derivatives import gradient, tracked
from gallery.plots import draw
from gallery.problem import BoxProblem
from torch import Tensor, nn

PUBLISHED = "nu = 0.0032098 in place of 0.0031831 (noise of 1 %, 2000 values, L-BFGS)"
BOX = points.Box((0.0, -1.0), (1.0, 1.0))
NU = 0.03
Batch = points.Batch


def solution(points: Tensor) -> Tensor:
    """u for the true viscosity, (N, 1), at points (N, 2)."""
    t, x = points.double().cpu().numpy().T
    return torch.as_tensor(references.burgers(t, x, NU)).to(points)[:, None]


class Points(points.BoxPoints):
    """The data, which stay, and points (t, x) for the other terms, drawn anew at each step.

    Args:
        n_residual: Points inside.
        n_data: Values of u that are known.
        n_boundary: Points on both ends together.
        noise: Deviation of their errors, as a share of that of u.
        settings: Those of ``BoxPoints``.
    """

    def __init__(
        self,
        n_residual: int = 400,
        n_data: int = 300,
        n_boundary: int = 60,
        noise: float = 0.05,
        **settings: Any,
    ) -> None:
        super().__init__(BOX, **settings)
        self.n_residual, self.n_boundary = n_residual, n_boundary
        generator = self.generator(0)
        self.places = BOX.inside(n_data, generator)
        u = solution(self.places)
        self.values = u + noise * u.std() * torch.randn(u.shape, generator=generator)

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number, (N, 2), and the data, (N, 2) and (N, 1)."""
        generator = self.generator(number)
        return {
            "r": BOX.inside(self.n_residual, generator),
            "b": BOX.boundary(self.n_boundary, generator, axes=(1,)),
            "places": self.places,
            "values": self.values,
        }


class InverseBurgers(BoxProblem):
    """The PINN, and log(nu), which is trained with it; Adam with a decaying learning rate.

    Args:
        nu: What the search begins with.
        settings: Those of ``BoxProblem``.
    """

    def __init__(self, nu: float = 0.1, **settings: Any) -> None:
        super().__init__(BOX, **settings)
        self.log_nu = nn.Parameter(torch.tensor(math.log(nu)))

    def reference(self, points: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 2)."""
        return solution(points)

    def found(self) -> dict[str, str]:
        """The viscosity that was found, and how far it is off."""
        nu = math.exp(float(self.log_nu.detach()))
        return {"nu": f"{nu:.4g}, {abs(nu / NU - 1):.1%} off {NU}"}

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: errors of u at the data and at the ends, the residual inside."""
        points = tracked(batch["r"])
        u = self.net(points)
        u_t, u_x = gradient(u, points)
        return {
            "loss_data": self.net(batch["places"]) - batch["values"],
            "loss_b": self.net(batch["b"]),
            "loss_r": u_t + u * u_x - self.log_nu.exp() * gradient(u_x, points)[1],
        }


def main() -> None:
    """Run the command line."""
    run(InverseBurgers, Points, Report("Inverse Burgers", PUBLISHED, draw), max_steps=5001)


if __name__ == "__main__":
    main()
