"""Outer-product and written-out factors against plain einsum, in every tiling."""

from __future__ import annotations

from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from pinn_ntk.kernel import gram
from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.gram import add_gram
from pinn_ntk.kernel.jacobian import DEFAULT_BUDGET
from pinn_ntk.kernel.scaled import Scaled, Site
from tests.asserts import assert_near

R, OTHER_R, M, N = 7, 5, 3, 4

pytestmark = pytest.mark.usefixtures("float64")


def outer(sites: int, rows: int = R) -> Outer:
    return Outer(tuple(torch.randn(sites, rows, M)), tuple(torch.randn(sites, rows, N)))


def written_out(factor: Factor) -> Tensor:
    """Row gradients, term by term."""
    if isinstance(factor, Dense):
        return factor.gradients
    if isinstance(factor, Scaled):
        return sum(one_by_one(site) for site in factor.sites)
    rows = torch.zeros(len(factor.left[0]), factor.numel)
    for left, right in zip(factor.left, factor.right, strict=True):
        rows += torch.stack([torch.outer(a, b).flatten() for a, b in zip(left, right, strict=True)])
    return rows


def one_by_one(site: Site) -> Tensor:
    """Gradients of one site, a loop over rows."""
    matrix = torch.ones(M, N) if site.matrix is None else site.matrix
    rows = []
    for i in range(len(site.tensors[0])):
        left = torch.ones(M) if site.left is None else site.left[i]
        right = torch.ones(N) if site.right is None else site.right[i]
        rows.append((left.diag() @ matrix @ right.diag()).flatten())
    return torch.stack(rows)


def scaled(kinds: str, rows: int = R) -> Scaled:
    """A site a word: which of left, right and matrix are there."""
    sizes = {"l": (rows, M), "r": (rows, N), "m": (M, N)}
    parts = [{c: torch.randn(sizes[c]) for c in word} for word in kinds.split()]
    return Scaled(tuple(Site(p.get("l"), p.get("r"), p.get("m")) for p in parts), (M, N))


def made(kind: int | str, rows: int = R) -> Factor:
    if isinstance(kind, str):
        return scaled(kind, rows)
    return outer(kind, rows) if kind else Dense(torch.randn(rows, M * N))


SCALED = {
    "rows_scaled": "lr lr lm",
    "columns_scaled": "lr rm rm",
    "both": "lr lm rm",
    "all": "lrm lr",
}


@pytest.fixture(
    params=[1, 3, 0, *SCALED.values()], ids=["one_site", "three_sites", "dense", *SCALED]
)
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
    if not isinstance(factor, Dense):
        a, b = torch.randn(M, 2), torch.randn(N, 2)
        expected = torch.einsum("rmn,mk,nk->rk", rows.view(-1, M, N), a, b)
        assert_near(factor.bilinear(a, b), expected, 1e-14, "bilinear")
        part = rows.view(-1, M, N)[:, 1:3, 2:4].flatten(1)
        assert_near(factor.columns(1, 3, slice(2, 4)).rows(), part, 1e-14, "columns")
    low = factor.to(torch.float32)
    assert low.rows().dtype == torch.float32
    assert_near(low.to(torch.float64).rows(), written_out(factor), 1e-6, "rows through float32")


BUDGETS = {"whole": DEFAULT_BUDGET, "tiles": 4 * 8 * 4, "one_by_one": 1}  # tiles of 2 x 2


@pytest.fixture(params=["chosen", "outer", "written_out"])
def formula(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "chosen":
        forced = request.param == "outer"
        monkeypatch.setattr(gram, "_outer_is_cheaper", lambda *_, **_kwargs: forced)
        if not forced:
            monkeypatch.setattr(gram, "pairwise_cost", lambda *_: float("inf"))
    return request.param


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("second", [2, 0, *SCALED.values()], ids=["two_sites", "dense", *SCALED])
def test_cross_block(factor: Factor, second: int | str, budget: int, formula: str):
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
    monkeypatch.setattr(gram, "_add_outer", lambda *_args, **_kwargs: used.append(1))
    add_gram(torch.zeros(3, 3), wide, wide, torch.float64, DEFAULT_BUDGET, same=False)
    assert bool(used) == is_outer


@pytest.mark.parametrize(
    ("kinds", "written"), [("lr lm", False), ("lr rm", False), ("lm rm", False), ("lr lrm", True)]
)
def test_fixed_matrices_that_scale_rows_or_columns_are_never_written_out(kinds: str, written: bool):
    wide = Scaled(tuple(s.mapped(lambda x: x.repeat(1, 9)) for s in scaled(kinds).sites), (27, 36))
    tall = wide.sites[1].matrix
    sites = [s if s.matrix is None else s._replace(matrix=tall.repeat(9, 1)) for s in wide.sites]
    factor = Scaled(tuple(sites), wide.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scaled, "rows", Mock(side_effect=MemoryError))
        block = torch.zeros(R, R)
        with pytest.raises(MemoryError) if written else nullcontext():
            add_gram(block, factor, factor, torch.float64, DEFAULT_BUDGET, same=True)
    if not written:
        assert_near(block, factor.rows() @ factor.rows().mT, 1e-13, "block")


def test_contraction_in_float32():
    factor = outer(2)
    block = torch.zeros(R, R, dtype=torch.float32)
    add_gram(block, factor, factor, torch.float32, DEFAULT_BUDGET, same=True)
    expected = written_out(factor) @ written_out(factor).mT
    assert_near(block.double(), expected, 1e-6, "block in float32")
    assert float((block.double() - expected).norm()) > 0
