"""Kernels for tests of what is computed from one: of the cases, and of Jacobians written out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pytest
import torch
from torch import Tensor

from pinn_ntk import NTK, FactoredJacobian, empirical_ntk
from pinn_ntk.graph.params import named_leaves
from pinn_ntk.kernel.factors import Dense
from tests.cases import Case

IN_FLOAT64 = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pinn_ntk.errors.NTKWarning"),  # rows one by one
]


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


def explicit(**jacobians: Tensor) -> NTK:
    """A kernel of Jacobians written out."""
    return NTK(
        {
            name: FactoredJacobian({"w": Dense(J)}, {"w": J.shape[1]}, len(J), device=J.device)
            for name, J in jacobians.items()
        }
    )


def two_terms() -> NTK:
    """Residuals 3 w of a "pde" and w_0 of a "bc"."""
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    return empirical_ntk({"pde": 3 * w, "bc": w[:1]}, [w])
