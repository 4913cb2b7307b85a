"""Kernels for tests of what is computed from one: of the cases, and of Jacobians written out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import NTK, FactoredJacobian, empirical_ntk
from pinn_ntk.graph.params import named_leaves
from pinn_ntk.kernel.factors import Dense
from tests.cases import Case
from tests.networks import stack
from tests.scripts import run

IN_FLOAT64 = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pinn_ntk.errors.NTKWarning"),  # rows one by one
]

MPMATH: dict[str, Callable[[Any], Any]] = {
    "tanh": mpmath.tanh,
    "sigmoid": lambda u: 1 / (1 + mpmath.exp(-u)),
    "silu": lambda u: u / (1 + mpmath.exp(-u)),
    "gelu": lambda u: u * mpmath.ncdf(u),
    "softplus": lambda u: mpmath.log(1 + mpmath.exp(u)),
    "erf": mpmath.erf,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "identity": lambda u: u,
}
"""Activations to any number of digits."""


@cache
def built(case: Case) -> tuple[dict[str, Tensor], list[Tensor], NTK]:
    """Residuals, leaves and kernel of a case."""
    residuals, params = case.build()
    leaves = list(named_leaves(params).values())
    return residuals, leaves, empirical_ntk(residuals, params, certify=False)


def by_autograd(losses: Mapping[str, Tensor], leaves: list[Tensor]) -> Tensor:
    """Gradient of each term's loss, one backward pass a term, (T, P)."""
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    rows = [torch.autograd.grad(loss, leaves, **options) for loss in losses.values()]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


class Movable:
    """A network ``net`` with its ``residuals``, which are looked at elsewhere, too."""

    net: nn.Module
    residuals: Callable[..., dict[str, Tensor]]

    @torch.no_grad()
    def moved(self, direction: list[Tensor], step: float) -> dict[str, Tensor]:
        """Residuals at theta + step * direction; the parameters are put back."""
        start = nn.utils.parameters_to_vector(self.net.parameters())
        change = nn.utils.parameters_to_vector(direction)
        nn.utils.vector_to_parameters(start + step * change, self.net.parameters())
        with torch.enable_grad():
            after = {name: r.detach() for name, r in self.residuals().items()}
        nn.utils.vector_to_parameters(start, self.net.parameters())
        return after


def explicit(**jacobians: Tensor) -> NTK:
    """A kernel of Jacobians written out."""

    def factored(J: Tensor) -> FactoredJacobian:
        return FactoredJacobian({"w": Dense(J)}, {"w": J.shape[1]}, len(J), device=J.device)

    return NTK({name: factored(J) for name, J in jacobians.items()})


def two_terms() -> NTK:
    """Residuals 3 w of a "pde" and w_0 of a "bc"."""
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    return empirical_ntk({"pde": 3 * w, "bc": w[:1]}, [w])


def gaussian(n: int, dim: int, dtype: torch.dtype = torch.float64, seed: int = 5) -> Tensor:
    return torch.randn(n, dim, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mlp(
    *sizes: int, activation: Callable[[], nn.Module] = nn.Tanh, bias: bool = True
) -> nn.Sequential:
    return stack(list(sizes), activation, partial(nn.Linear, bias=bias)).double()


class Standardised(nn.Sequential):
    """As in the example of the Poisson equation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 0.3) / 0.2)


def assert_imports_no_torch(module: str) -> None:
    run(sys.executable, "-c", f"import sys, {module}; sys.exit('torch' in sys.modules)")
