"""Numbers of different rows, by sketches of the Jacobian, against those that were made."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pinn_ntk import FactoredJacobian, empirical_ntk
from pinn_ntk.analysis.distinct_rows import distinct_rows
from tests.kernels import IN_FLOAT64, explicit, gaussian
from tests.networks import NETWORKS
from tests.operators import laplacian, points

pytestmark = IN_FLOAT64


def count(J: Tensor) -> int:
    return distinct_rows(explicit(pde=J).jacobian("pde"))


LABELS = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(labels=LABELS, exponent=st.integers(-15, 15), seed=st.integers(0, 10**6))
def test_rows_that_were_repeated(labels: list[int], exponent: int, seed: int) -> None:
    J = gaussian(10, 7, seed=seed) * 10.0**exponent
    assert count(J[labels]) == len(set(labels))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", ["mlp", "five_hidden", "siren", "gated", "shared_trunk"])
def test_points_given_several_times(name: str, dtype: torch.dtype) -> None:
    net = NETWORKS[name](2, 1).to(dtype)
    order = torch.randperm(90) % 30
    x = points(30, 2).detach().to(dtype)[order].requires_grad_()
    kernel = empirical_ntk({"u": net(x), "u_xx": laplacian(net(x), x)}, net, certify=False)
    assert [distinct_rows(kernel.jacobian(term)) for term in kernel] == [30, 30]


@pytest.mark.parametrize(("relative", "expected"), [(1e-3, 2), (1e-12, 2), (2e-16, 1)])
def test_how_close_rows_may_be(relative: float, expected: int) -> None:
    row = torch.randn(1, 50)
    other = row + relative * row.norm() * torch.nn.functional.normalize(torch.randn(1, 50))
    assert count(torch.cat([row, other])) == expected


def test_rows_that_are_no_repetitions() -> None:
    row = torch.randn(1, 5)
    assert count(torch.cat([row, -row, 2 * row, 1e-6 * row, row])) == 4
    moving, still = torch.randn(2, 5), torch.zeros(3, 5)
    assert count(torch.cat([still, moving, moving])) == 5
    assert count(still) == 3
    assert distinct_rows(FactoredJacobian({}, {"w": 4}, 3)) == 3


def test_the_order_of_rows_does_not_matter() -> None:
    J = torch.randn(20, 6)[torch.randint(20, (200,))]
    counts = {count(J[torch.randperm(200)]) for _ in range(5)}
    assert counts == {len(J.unique(dim=0))}


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    count(torch.ones(4, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_on_each_device(device: torch.device) -> None:
    net, x = NETWORKS["mlp"](1, 1).to(device), points(6, 1).detach().to(device)
    kernel = empirical_ntk({"bc": net(torch.cat([x, x]))}, net)
    assert distinct_rows(kernel.jacobian("bc")) == 6
