"""Outer-product and written-out factors against plain einsum, in every tiling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pinn_ntk.kernel import factors
from pinn_ntk.kernel.factors import Dense, Factor, Outer, add_gram
from pinn_ntk.kernel.jacobian import DEFAULT_BUDGET
from tests.asserts import assert_near

R, OTHER_R, M, N = 7, 5, 3, 4

pytestmark = pytest.mark.usefixtures("float64")


def outer(sites: int, rows: int = R) -> Outer:
    return Outer(tuple(torch.randn(sites, rows, M)), tuple(torch.randn(sites, rows, N)))


def written_out(factor: Factor) -> Tensor:
    """Row gradients, term by term."""
    if isinstance(factor, Dense):
        return factor.gradients
    rows = torch.zeros(len(factor.left[0]), factor.numel)
    for left, right in zip(factor.left, factor.right, strict=True):
        rows += torch.stack([torch.outer(a, b).flatten() for a, b in zip(left, right, strict=True)])
    return rows


def made(sites: int, rows: int = R) -> Factor:
    return outer(sites, rows) if sites else Dense(torch.randn(rows, M * N))


@pytest.fixture(params=[1, 3, 0], ids=["one_site", "three_sites", "dense"])
def factor(request: pytest.FixtureRequest) -> Factor:
    return made(request.param)


def test_products_with_one_factor_have_the_dtype_asked_for(factor: Factor):
    rows, v, w = written_out(factor), torch.randn(M * N), torch.randn(R)
    assert factor.numel == M * N
    assert_near(factor.rows(), rows, 1e-14, "rows")
    assert_near(factor.diagonal(torch.float64), rows.square().sum(1), 1e-14, "diagonal")
    assert_near(factor.matvec(v), rows @ v, 1e-14, "matvec")
    assert_near(factor.rmatvec(w), rows.mT @ w, 1e-14, "rmatvec")
    assert_near(factor.slice(slice(2, 5)).rows(), rows[2:5], 1e-14, "slice")
    low = factor.to(torch.float32)
    assert low.rows().dtype == torch.float32
    assert_near(low.to(torch.float64).rows(), written_out(factor), 1e-6, "rows through float32")


BUDGETS = {"whole": DEFAULT_BUDGET, "tiles": 4 * 8 * 4, "one_by_one": 1}  # tiles of 2 x 2


@pytest.fixture(params=["chosen", "outer", "written_out"])
def formula(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "chosen":
        forced = request.param == "outer"
        monkeypatch.setattr(factors, "_outer_is_cheaper", lambda *_, **_kwargs: forced)
    return request.param


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("second", [2, 0], ids=["two_sites", "dense"])
def test_cross_block(factor: Factor, second: int, budget: int, formula: str):
    other, start = made(second, OTHER_R), torch.randn(R, OTHER_R)
    block = start.clone()
    add_gram(block, factor, other, torch.float64, budget, same=False)
    expected = start + written_out(factor) @ written_out(other).mT
    assert_near(block, expected, 1e-14, f"block by {formula}")


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_own_block_adds_to_what_is_there_and_is_symmetric(factor, budget: int, formula: str):
    start = (start := torch.randn(R, R)) + start.mT
    block = start.clone()
    add_gram(block, factor, factor, torch.float64, budget, same=True)
    rows = written_out(factor)
    assert_near(block, start + rows @ rows.mT, 1e-14, f"block by {formula}")
    assert_near(block, block.mT, 1e-15, "symmetry")


@pytest.mark.parametrize(
    ("sites", "width", "is_outer"), [(1, 64, True), (2, 64, True), (6, 64, False), (1, 4, False)]
)
def test_formula_follows_the_cost(
    sites: int, width: int, is_outer: bool, monkeypatch: pytest.MonkeyPatch
):
    wide = Outer(tuple(torch.randn(sites, 3, width)), tuple(torch.randn(sites, 3, width)))
    used = []
    monkeypatch.setattr(factors, "_add_outer", lambda *_args, **_kwargs: used.append(1))
    add_gram(torch.zeros(3, 3), wide, wide, torch.float64, DEFAULT_BUDGET, same=False)
    assert bool(used) == is_outer


def test_contraction_in_float32():
    factor = outer(2)
    block = torch.zeros(R, R, dtype=torch.float32)
    add_gram(block, factor, factor, torch.float32, DEFAULT_BUDGET, same=True)
    expected = written_out(factor) @ written_out(factor).mT
    assert_near(block.double(), expected, 1e-6, "block in float32")
    assert float((block.double() - expected).norm()) > 0
