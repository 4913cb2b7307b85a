"""The triangular factor of a Jacobian that is never formed, against that of the whole one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pinn_ntk import FactoredJacobian, empirical_ntk
from pinn_ntk.kernel import tsqr
from pinn_ntk.kernel.factors import Dense, Outer
from pinn_ntk.kernel.tsqr import factor_precision, triangular_factor
from tests.asserts import assert_near
from tests.networks import stack
from tests.operators import laplacian

pytestmark = pytest.mark.usefixtures("float64")


def outer(rows: int, m: int, n: int, sites: int = 2) -> Outer:
    return Outer(*(tuple(torch.randn(rows, size) for _ in range(sites)) for size in (m, n)))


def dense(rows: int, columns: int) -> Dense:
    return Dense(torch.randn(rows, columns))


def jacobian(rows: int, **factors: Outer | Dense | int) -> FactoredJacobian:
    """A Jacobian of these factors; a number stands for a parameter without effect."""
    sizes = {n: f if isinstance(f, int) else f.numel for n, f in factors.items()}
    present = {n: f for n, f in factors.items() if not isinstance(f, int)}
    return FactoredJacobian(present, sizes, rows)


def of_u_xx() -> FactoredJacobian:
    net, x = stack([1, 6, 6, 1]), torch.linspace(-1, 1, 11)[:, None].requires_grad_()
    return empirical_ntk(laplacian(net(x), x), net).jacobian("residual")


JACOBIANS: dict[str, Callable[[], FactoredJacobian]] = {
    "weight and bias": lambda: jacobian(7, w=outer(7, 3, 5), b=dense(7, 3)),
    "several layers": lambda: jacobian(
        9, a=outer(9, 4, 1), b=dense(9, 4), c=outer(9, 4, 4, 3), d=outer(9, 1, 4)
    ),
    "fewer parameters than rows": lambda: jacobian(8, w=outer(8, 2, 2, 1)),
    "one row": lambda: jacobian(1, w=outer(1, 3, 2), b=dense(1, 3)),
    "one parameter": lambda: jacobian(4, w=dense(4, 1)),
    "an unused parameter": lambda: jacobian(5, w=outer(5, 2, 3), unused=6, b=dense(5, 2)),
    "u_xx of a network": of_u_xx,
}


@pytest.mark.parametrize("name", JACOBIANS)
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 100])
def test_blocks_of_any_width_give_the_same(name: str, width: int, monkeypatch: pytest.MonkeyPatch):
    whole = JACOBIANS[name]()
    monkeypatch.setattr(tsqr, "_width", lambda *_: width)
    triangle = triangular_factor([whole])
    assert triangle.shape == (min(whole.shape), whole.rows)
    assert torch.equal(triangle, triangle.triu())
    assert_near(triangle.mT @ triangle, whole.gram(), 1e-13, f"{name}, {width} columns")


@pytest.mark.parametrize("width", [1, 2, 5, 6, 11, 1000])
def test_every_column_is_taken_once(width: int):
    whole = JACOBIANS["several layers"]()
    pieces = list(tsqr._pieces([whole], width))
    assert max(piece.shape[1] for piece in pieces) <= width
    assert torch.equal(torch.cat(pieces, 1), whole.dense())


def test_terms_below_one_another():
    """Factors of different kinds, one absent, and rows that are scaled."""
    a = jacobian(4, w=outer(4, 3, 2), b=dense(4, 3))
    terms = [a, jacobian(3, w=dense(3, 6), b=3), jacobian(2, w=6, b=dense(2, 3))]
    stacked = torch.cat([term.dense() for term in terms])
    for scale in (None, torch.rand(9)):
        triangle = triangular_factor(terms, scale)
        rows = stacked if scale is None else scale[:, None] * stacked
        assert_near(triangle.mT @ triangle, rows @ rows.mT, 1e-13, "three terms")


def test_graded_columns_keep_the_small_singular_values():
    """Twelve decades of sigma, which are 24 of lambda: the Gram matrix has lost half of them."""
    left = torch.linalg.qr(torch.randn(6, 6)).Q
    right = torch.linalg.qr(torch.randn(40, 6)).Q
    sigma = torch.logspace(0, -12, 6)
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
    net = stack([1, 3, 1]).float()
    of_float32 = empirical_ntk(net(torch.ones(2, 1).float()), net).jacobian("residual")
    assert of_float32.dtype == torch.float64
    of_float64 = jacobian(2, w=outer(2, 2, 2), b=dense(2, 2))
    mixed = jacobian(2, w=outer(2, 2, 2), b=dense(2, 2).to(torch.float32))
    for of_single in ([of_float32], [of_float64, of_float32], [mixed]):
        assert factor_precision(of_single) == single
    for of_double in (of_float64, jacobian(3, w=5)):
        assert factor_precision([of_double]) == double
