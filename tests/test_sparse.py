"""Sparse tensors: as constant operands after the network, as gradients, as parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import empirical_ntk
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.errors import NTKWarning
from tests.asserts import assert_is_ntk_of
from tests.kernels import mlp
from tests.pinn import N_PDE, ours, same, told_once
from tests.zoo import Noted, assert_traces, compare, make, train

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "coo": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
    "csc": Tensor.to_sparse_csc,
}
# Of torch, once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CS. tensor support is in beta:UserWarning")


def stencil() -> Tensor:
    ones = torch.ones(N_PDE - 1, dtype=torch.float64)
    return torch.diag(ones, 1) + torch.diag(ones, -1) - 2 * torch.eye(N_PDE, dtype=torch.float64)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_matrix_after_the_network(layout: str):
    net, x = mlp(1, 5, 1), torch.linspace(-1, 1, N_PDE, dtype=torch.float64)[:, None]
    residuals = {"pde": LAYOUTS[layout](stencil()) @ net(x) - 1, "bc": net(x[:2])}
    assert_is_ntk_of(empirical_ntk(residuals, net), residuals, net)


class Stencil(Noted):
    layout = "coo"

    def residuals(self, batch: Any) -> dict[str, Tensor]:
        matrix = LAYOUTS[self.layout](stencil())
        return {"pde": matrix @ self.net(batch["x"]) - 1, "bc": self.net(batch["ends"])}


class Compressed(Stencil):
    layout = "csr"


@pytest.mark.parametrize("kind", [Stencil, Compressed])
def test_training_with_a_sparse_matrix(kind: Any):
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    module, _ = compare(kind, monitor)
    assert_traces(monitor, module, [0, 2, 4])
    compare(kind, balancer, weigh_every=2)


class Codes(Noted):
    """Latent codes whose gradients are sparse."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.codes = nn.Embedding(4, 1, sparse=True).double()

    def residuals(self, batch: Any) -> dict[str, Tensor]:
        codes = self.codes(torch.arange(N_PDE) % 3)
        return {"pde": self.net(batch["x"]) * codes - 1, "bc": self.net(batch["ends"])}

    def note(self, _: Any) -> None:
        """Row by row in torch's own way takes no sparse gradients."""


def test_sparse_gradients():
    monitor = NTKMonitor(every_n_steps=2)
    with pytest.warns(NTKWarning) as warned:
        module, _ = compare(Codes, monitor)
    assert all("exact rows are computed one by one" in said for said in ours(warned))
    residual = module.residuals(
        {"x": torch.ones(N_PDE, 1).double(), "ends": torch.ones(1, 1).double()}
    )
    with pytest.warns(NTKWarning):
        kernel = empirical_ntk(residual["pde"], module)
    rows = torch.zeros(N_PDE, 4, dtype=torch.float64)
    u = module.net(torch.ones(1, 1).double()).item()
    rows[torch.arange(N_PDE), torch.arange(N_PDE) % 3] = u
    found = kernel.jacobian("residual").factors["codes.weight"]
    torch.testing.assert_close(found.gradients, rows)


class Trained(Noted):
    """A sparse matrix is itself trained."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.matrix = nn.Parameter(stencil().to_sparse())

    def residuals(self, batch: Any) -> dict[str, Tensor]:
        mixed = torch.sparse.mm(self.matrix, self.net(batch["x"]))
        return {"pde": mixed - 1, "bc": self.net(batch["ends"])}

    def note(self, _: Any) -> None:
        """Nothing to compare with."""


@pytest.mark.parametrize("callback", [NTKMonitor, NTKBalancer])
def test_a_sparse_parameter_is_refused_by_name(callback: Any):
    said = r"params\['matrix'\] is sparse.*dense parameter.*params='net\.\*'"
    with told_once(said):
        module, plain = compare_dense(callback(every_n_steps=2))
    assert same(module.net, plain.net)


def compare_dense(*callbacks: Any) -> tuple[Any, Any]:
    modules = make(Trained), make(Trained)
    train(modules[0], *callbacks, steps=3)
    train(modules[1], steps=3)
    return modules


def test_the_kernel_over_the_other_parameters():
    monitor = NTKMonitor(every_n_steps=1, params="net.*")
    compare_dense(monitor)
    assert len(monitor.history["ntk/trace/pde"]) == 3
