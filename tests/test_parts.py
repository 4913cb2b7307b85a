"""Row gradients in parts against the same rows written out: every product, every arrangement."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pinn_ntk import FactoredJacobian
from pinn_ntk.analysis.distinct_rows import distinct_rows
from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.parts import Part, Parts, add_block, places
from pinn_ntk.kernel.tsqr import triangular_factor
from tests.asserts import assert_near

R, M, N = 12, 3, 4
F = torch.float64

pytestmark = pytest.mark.usefixtures("float64")

ALL = torch.arange(R)
REPEATED = torch.arange(R) // 4


def outer(count: int, sites: int = 2) -> Outer:
    return Outer(
        tuple(torch.randn(sites, count, M, dtype=F)), tuple(torch.randn(sites, count, N, dtype=F))
    )


def dense(count: int) -> Dense:
    return Dense(torch.randn(count, M * N, dtype=F))


def made(*parts: Part) -> Parts:
    return Parts(parts, R)


def cases() -> dict[str, Parts]:
    torch.manual_seed(0)
    scale = torch.randn(R, dtype=F)
    order = torch.tensor([3, 0, 11, 2, 5, 1, 4, 10, 6, 8, 7, 9])
    return {
        "components_last": made(*(Part(outer(4, 1 + c), ALL[c::3]) for c in range(3))),
        "components_first": made(*(Part(outer(6), ALL[6 * c : 6 * c + 6]) for c in range(2))),
        "shuffled": made(Part(outer(7), order[:7]), Part(dense(5), order[7:])),
        "rows_of_nothing": made(Part(outer(3), torch.tensor([1, 4, 5]))),
        "repeated": made(Part(outer(3), ALL, REPEATED, scale), Part(outer(4), ALL, ALL % 4)),
        "mean_removed": made(Part(outer(R), ALL), Part(dense(1), ALL, 0 * ALL, -scale)),
        "overlapping": made(Part(outer(8), order[:8]), Part(outer(9), ALL[3:], None, scale[3:])),
        "many_of_few": made(Part(dense(20), ALL[::2], ALL[::2] + 3)),
        "one_row": made(Part(outer(1), ALL[5:6]), Part(outer(11), ALL[ALL != 5])),
    }


CASES = cases()


def by_hand(parts: Parts) -> Tensor:
    rows = torch.zeros(R, M * N)
    for part in parts.parts:
        source = range(len(part.rows)) if part.source is None else part.source.tolist()
        scale = torch.ones(len(part.rows)) if part.scale is None else part.scale
        for row, k, times in zip(part.rows.tolist(), source, scale.tolist(), strict=True):
            rows[row] += times * part.factor.rows()[k]
    return rows


def jacobian(factor: Parts | Factor, budget: int = 2**20) -> FactoredJacobian:
    return FactoredJacobian({"w": factor}, {"w": M * N}, factor.count, memory_budget=budget)


@pytest.mark.parametrize("parts", CASES.values(), ids=CASES)
def test_products_are_those_of_the_rows_written_out(parts: Parts):
    J, K = by_hand(parts), jacobian(parts)
    v, w = torch.randn(M * N), torch.randn(R)
    assert_near(K.dense(), J, 1e-14, "J")
    assert_near(K.diagonal(), J.square().sum(1), 1e-13, "diagonal")
    assert_near(K.matvec(v), J @ v, 1e-13, "J v")
    assert_near(K.rmatvec(w), w @ J, 1e-13, "J^T w")
    upper = triangular_factor([K])
    assert_near(upper.mT @ upper, J @ J.mT, 1e-12, "R^T R")
    assert distinct_rows(K) == len(J.unique(dim=0)) + max(int((J == 0).all(1).sum()) - 1, 0)


@pytest.mark.parametrize("budget", [2**20, 300, 1])
@pytest.mark.parametrize("parts", CASES.values(), ids=CASES)
def test_blocks_in_tiles_of_any_size(parts: Parts, budget: int):
    J, others = by_hand(parts), [*CASES.values(), outer(R), dense(R)]
    assert_near(jacobian(parts, budget).gram(), J @ J.mT, 1e-13, "K")
    for other in others:
        expected = (by_hand(other) if isinstance(other, Parts) else other.rows()) @ J.mT
        block = torch.zeros(R, R)
        add_block(block, other, parts, block.dtype, budget, same=False)
        assert_near(block, expected, 1e-13, "K_ab")


TAKEN: dict[str, slice | Tensor] = {
    "first": slice(0, 5),
    "every_second": slice(1, None, 2),
    "none": slice(0, 0),
    "some_twice": torch.tensor([7, 0, 0, 11, 5]),
    "one": torch.tensor([5]),
    "mask": ALL % 5 == 0,
}


@pytest.mark.parametrize("rows", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("parts", CASES.values(), ids=CASES)
def test_some_rows(parts: Parts, rows: slice | Tensor):
    J, some = by_hand(parts)[rows], jacobian(parts).take(rows)
    assert_near(some.dense(), J, 1e-14, "J")
    assert_near(some.gram(), J @ J.mT, 1e-13, "K")
    assert_near(some.diagonal(), J.square().sum(1), 1e-13, "diagonal")


def test_evenly_spaced_rows_are_a_slice_that_copies_nothing():
    assert [places(torch.tensor(rows)) for rows in ([], [4], [1, 2, 3], [0, 3, 6])] == [
        *(slice(0, 0), slice(4, 5), slice(1, 4, 1), slice(0, 7, 3))
    ]
    assert isinstance(places(torch.tensor([0, 1, 3])), Tensor)
    assert isinstance(places(torch.tensor([2, 1, 0])), Tensor)
    taken = CASES["components_first"].slice(slice(0, 6))
    first = CASES["components_first"].parts[0].factor
    assert isinstance(first, Outer)
    assert taken.tensors[0].data_ptr() == first.left[0].data_ptr()
    assert len(taken.parts) == 1
