"""The triangular factor of a Jacobian that is never formed, against that of the whole one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pinn_ntk import FactoredJacobian, empirical_ntk
from pinn_ntk.kernel import tsqr
from pinn_ntk.kernel.factors import Dense, Outer
from pinn_ntk.kernel.tsqr import factor_precision, triangular_factor
from tests.asserts import assert_near
from tests.operators import laplacian

pytestmark = pytest.mark.usefixtures("float64")


def outer(rows: int, m: int, n: int, sites: int = 2) -> Outer:
    return Outer(*(tuple(torch.randn(rows, size) for _ in range(sites)) for size in (m, n)))


def jacobian(rows: int, **factors: Outer | Dense | int) -> FactoredJacobian:
    """A Jacobian of these factors; a number stands for a parameter without effect."""
    sizes = {n: f if isinstance(f, int) else f.numel for n, f in factors.items()}
    present = {n: f for n, f in factors.items() if not isinstance(f, int)}
    return FactoredJacobian(present, sizes, rows)


def some_jacobians() -> dict[str, FactoredJacobian]:
    return {
        "weight and bias": jacobian(7, w=outer(7, 3, 5), b=Dense(torch.randn(7, 3))),
        "several layers": jacobian(
            9, a=outer(9, 4, 1), b=Dense(torch.randn(9, 4)), c=outer(9, 4, 4, 3), d=outer(9, 1, 4)
        ),
        "fewer parameters than rows": jacobian(8, w=outer(8, 2, 2, 1)),
        "one row": jacobian(1, w=outer(1, 3, 2), b=Dense(torch.randn(1, 3))),
        "one parameter": jacobian(4, w=Dense(torch.randn(4, 1))),
        "an unused parameter": jacobian(5, w=outer(5, 2, 3), unused=6, b=Dense(torch.randn(5, 2))),
    }


NAMES = tuple(some_jacobians())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 100])
def test_blocks_of_any_width_give_the_same(name: str, width: int, monkeypatch: pytest.MonkeyPatch):
    whole = some_jacobians()[name]
    monkeypatch.setattr(tsqr, "_width", lambda *_: width)
    triangle = triangular_factor([whole])
    assert triangle.shape == (min(whole.shape), whole.rows)
    assert torch.equal(triangle, triangle.triu())
    assert_near(triangle.mT @ triangle, whole.gram(), 1e-13, f"{name}, {width} columns")


@pytest.mark.parametrize("width", [1, 2, 5, 6, 11, 1000])
def test_every_column_is_taken_once(width: int):
    whole = some_jacobians()["several layers"]
    pieces = list(tsqr._pieces([whole], width))
    assert max(piece.shape[1] for piece in pieces) <= width
    assert torch.equal(torch.cat(pieces, 1), whole.dense())


def test_terms_below_one_another():
    """Factors of different kinds, one absent, and rows that are scaled."""
    a = jacobian(4, w=outer(4, 3, 2), b=Dense(torch.randn(4, 3)))
    b = jacobian(3, w=Dense(torch.randn(3, 6)), b=3)
    c = jacobian(2, w=6, b=Dense(torch.randn(2, 3)))
    stacked = torch.cat([a.dense(), b.dense(), c.dense()])
    for scale in (None, torch.rand(9)):
        triangle = triangular_factor([a, b, c], scale)
        rows = stacked if scale is None else scale[:, None] * stacked
        assert_near(triangle.mT @ triangle, rows @ rows.mT, 1e-13, "three terms")


def test_graded_columns_keep_the_small_singular_values():
    """Twelve decades of sigma, which are 24 of lambda: the Gram matrix has lost half of them."""
    left = torch.linalg.qr(torch.randn(6, 6)).Q
    right = torch.linalg.qr(torch.randn(40, 6)).Q
    sigma = torch.logspace(0, -12, 6, dtype=torch.float64)
    found = torch.linalg.svdvals(triangular_factor([jacobian(6, w=Dense(left * sigma @ right.mT))]))
    assert torch.allclose(found, sigma, rtol=1e-3, atol=0)


def test_no_effect_at_all_and_other_parameters():
    assert triangular_factor([jacobian(3, w=5)]).shape == (0, 3)
    with pytest.raises(ValueError, match="over the same parameters"):
        triangular_factor([jacobian(2, w=3), jacobian(2, v=3)])


def test_width_follows_the_budget():
    def width(rows: int, budget: int) -> int:
        return tsqr._width(FactoredJacobian({}, {}, rows, memory_budget=budget), rows)

    assert width(100, 0) == 100  # a block smaller than T would cost more than it saves
    assert width(100, 5 * 8 * 100 * (100 + 250)) == 250
    assert width(100, 2**40) == 400


@pytest.mark.parametrize("rows", [64, 200])
def test_memory_stays_within_the_budget(rows: int):
    from benchmarks.measure import peak_extra_memory

    budget = 3 * 5 * 8 * rows * rows
    weight = outer(rows, 64, 64, 3)
    whole = FactoredJacobian({"w": weight}, {"w": 4096}, rows, memory_budget=budget)
    triangle, peak = peak_extra_memory(lambda: triangular_factor([whole]), torch.device("cpu"))
    assert triangle.shape == (rows, rows)
    assert peak <= 1.1 * budget


def test_precision_is_that_of_the_coarsest_numbers():
    single, double = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
    net = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)).float()
    of_float32 = empirical_ntk(net(torch.ones(2, 1, dtype=torch.float32)), net).jacobian("residual")
    assert of_float32.dtype == torch.float64
    of_float64 = jacobian(2, w=outer(2, 2, 2), b=Dense(torch.randn(2, 2)))
    assert factor_precision([of_float32]) == single
    assert factor_precision([of_float64]) == double
    assert factor_precision([of_float64, of_float32]) == single
    mixed = jacobian(2, w=outer(2, 2, 2), b=Dense(torch.randn(2, 2).float()))
    assert factor_precision([mixed]) == single
    assert factor_precision([jacobian(3, w=5)]) == double


def test_a_network_with_derivatives():
    net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
    x = torch.linspace(-1, 1, 11, dtype=torch.float64)[:, None].requires_grad_()
    whole = empirical_ntk(laplacian(net(x), x), net).jacobian("residual")
    triangle = triangular_factor([whole])
    assert math.prod(triangle.shape) == 121
    assert_near(triangle.mT @ triangle, whole.gram(), 1e-13, "u_xx")
