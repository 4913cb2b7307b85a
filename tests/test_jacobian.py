"""The Jacobian as a linear operator against the same one written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.jacobian import FactoredJacobian
from tests.asserts import assert_near

SIZES = {"w": 6, "unused": 4, "b": 2, "a": 3}  # w is a (2, 3) matrix; P = 15

pytestmark = pytest.mark.usefixtures("float64")


def made(rows: int, dtype: torch.dtype = torch.float64, budget: int = 2**20) -> FactoredJacobian:
    """Factors in an order of their own, one as outer products, and a parameter without any."""
    factors: dict[str, Factor] = {
        "a": Dense(torch.randn(rows, 3)),
        "w": Outer(tuple(torch.randn(3, rows, 2)), tuple(torch.randn(3, rows, 3))),
        "b": Dense(torch.randn(rows, 2)),
    }
    return FactoredJacobian(factors, SIZES, rows, dtype=dtype, memory_budget=budget)


def written_out(jacobian: FactoredJacobian) -> Tensor:
    w, a, b = (jacobian.factors[name] for name in ("w", "a", "b"))
    weight = torch.einsum("sri,srj->rij", torch.stack(w.left), torch.stack(w.right)).flatten(1)
    return torch.cat([weight, torch.zeros(jacobian.rows, 4), b.gradients, a.gradients], dim=1)


def test_products_and_columns_in_the_order_of_the_parameters():
    jacobian, v, w = made(5), torch.randn(15), torch.randn(5)
    dense = written_out(jacobian)
    assert jacobian.shape == (5, 15)
    assert_near(jacobian.dense(), dense, 1e-14, "dense")
    assert float(w @ jacobian.matvec(v)) == pytest.approx(float(jacobian.rmatvec(w) @ v))
    assert_near(jacobian.matvec(v), dense @ v, 1e-14, "J v")
    assert_near(jacobian.rmatvec(w), dense.mT @ w, 1e-14, "J^T w")
    assert_near(jacobian.diagonal(), dense.square().sum(1), 1e-14, "diagonal")
    assert jacobian.trace() == pytest.approx(float(dense.square().sum()), rel=1e-14)
    by_name = jacobian.rmatvec_by_parameter(w)
    assert set(by_name) == {"w", "a", "b"}
    assert_near(by_name["b"], dense[:, 10:12].mT @ w, 1e-14, "J^T w at b")
    norms = jacobian.squared_norms()
    assert list(norms) == list(SIZES)
    columns = dense.split(list(SIZES.values()), dim=1)
    assert list(norms.values()) == pytest.approx([float(c.square().sum()) for c in columns])
    assert norms["unused"] == 0.0
    assert sum(norms.values()) == pytest.approx(jacobian.trace(), rel=1e-14)


SOME = [slice(None), slice(0, 5, 2), slice(3, 3), torch.tensor([4, 0, 4]), torch.tensor([2])]


@pytest.mark.parametrize("rows", SOME, ids=["all", "strided", "none", "repeated", "one"])
def test_some_rows(rows: slice | Tensor):
    jacobian = made(5, budget=777)
    jacobian.fallbacks["a"] = "said"
    some = jacobian.take(rows)
    assert torch.equal(some.dense(), jacobian.dense()[rows])
    assert some.shape == tuple(jacobian.dense()[rows].shape)
    assert_near(some.gram(jacobian), jacobian.gram()[rows], 1e-14, "K")
    assert (some.memory_budget, some.dtype, some.fallbacks) == (777, jacobian.dtype, {"a": "said"})


def test_strided_rows_copy_nothing():
    jacobian = made(6)
    some = jacobian.take(slice(0, 6, 3))
    left, dense = ((j.factors["w"].left[0], j.factors["a"].gradients) for j in (jacobian, some))
    for whole, part in zip(left, dense, strict=True):
        assert part.data_ptr() == whole.data_ptr()
        assert len(part) == 2


def test_vectors_of_any_shape_and_dtype_with_a_graph():
    jacobian = made(5)
    v = torch.randn(5, 3, dtype=torch.float32, requires_grad=True)
    product = jacobian.matvec(v)
    assert not product.requires_grad
    assert_near(product, written_out(jacobian) @ v.detach().double().flatten(), 1e-14, "J v")


def test_blocks():
    one, other = made(5), made(3)
    assert_near(one.gram(), written_out(one) @ written_out(one).mT, 1e-14, "J J^T")
    assert_near(one.gram(one), one.gram(), 1e-15, "J J^T of itself")
    assert_near(one.gram(other), written_out(one) @ written_out(other).mT, 1e-14, "J J'^T")
    assert_near(other.gram(one), one.gram(other).mT, 1e-15, "J' J^T")
    del other.factors["w"]  # a parameter missing on one side gives nothing
    expected = written_out(one)[:, 10:] @ other.dense()[:, 10:].mT
    assert_near(one.gram(other), expected, 1e-14, "J J'^T")


@pytest.mark.parametrize("budget", [1, 100, 1000])
def test_budget_changes_nothing(budget: int, seed: int):
    torch.manual_seed(seed)
    whole = made(9)
    tiled = FactoredJacobian(whole.factors, SIZES, 9, memory_budget=budget)
    assert_near(tiled.gram(), whole.gram(), 1e-15, "J J^T")
    assert_near(tiled.gram(whole), whole.gram(), 1e-15, "J J'^T")


def test_nothing_depends_on_any_parameter():
    jacobian = FactoredJacobian({}, SIZES, 3)
    assert torch.equal(jacobian.gram(), torch.zeros(3, 3))
    assert torch.equal(jacobian.dense(), torch.zeros(3, 15))
    assert torch.equal(jacobian.rmatvec(torch.ones(3)), torch.zeros(15))
    assert jacobian.trace() == 0.0


def test_contraction_in_float32():
    low = made(5, torch.float32)
    dense = written_out(low)
    results = {
        "J": (low.dense(), dense),
        "J v": (low.matvec(torch.ones(15)), dense.sum(1)),
        "J^T w": (low.rmatvec(torch.ones(5)), dense.sum(0)),
        "J J^T": (low.gram(), dense @ dense.mT),
        "diagonal": (low.diagonal(), dense.square().sum(1)),
    }
    for what, (value, expected) in results.items():
        assert value.dtype == torch.float32
        assert_near(value.double(), expected, 1e-6, what)


COUNTED = np.arange(15.0)
READ_ONLY = COUNTED.copy()
READ_ONLY.setflags(write=False)
ARRAYS: dict[str, np.ndarray] = {
    "plain": COUNTED,
    "column": COUNTED[:, None],
    "reversed": COUNTED[::-1],
    "strided": np.arange(30.0)[::2],
    "read_only": READ_ONLY,
    "float32": COUNTED.astype(np.float32),
    "integers": np.arange(15),
}


@pytest.mark.parametrize("v", ARRAYS.values(), ids=ARRAYS)
def test_scipy_operator_takes_any_array(v: np.ndarray):
    jacobian = made(5)
    product = jacobian.as_linear_operator().matvec(v)
    assert product.dtype == np.float64
    assert product.shape == (5, *v.shape[1:])
    np.testing.assert_allclose(product, written_out(jacobian).numpy() @ v, rtol=1e-13)


def test_scipy_operator_takes_matrices_and_has_an_adjoint_and_singular_values():
    jacobian, matrix = made(8), np.random.default_rng(0).normal(size=(15, 2))
    operator, dense = jacobian.as_linear_operator(), written_out(jacobian).numpy()
    np.testing.assert_allclose(operator @ matrix, dense @ matrix, rtol=1e-12)
    np.testing.assert_allclose(operator.H @ np.ones(8), dense.T @ np.ones(8), rtol=1e-12)
    found = svds(operator, k=3, return_singular_vectors=False)
    exact = torch.linalg.svdvals(written_out(jacobian))[:3]
    np.testing.assert_allclose(np.sort(found)[::-1], exact.numpy(), rtol=1e-10)


def test_vectors_of_the_wrong_length_and_other_parameters_are_refused():
    jacobian = made(5)
    with pytest.raises(ValueError, match=r"15 entries for a Jacobian of shape \(5, 15\), got 5"):
        jacobian.matvec(torch.ones(5))
    with pytest.raises(ValueError, match=r"expected a vector of 5 entries.*got 15"):
        jacobian.rmatvec(torch.ones(15))
    with pytest.raises(ValueError, match=r"\['w', 'unused', 'b', 'a'\] and \['v'\]"):
        jacobian.gram(FactoredJacobian({}, {"v": 15}, 5))
