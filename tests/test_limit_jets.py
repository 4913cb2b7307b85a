"""Truncated Taylor series: products, powers and compositions against polynomials and autograd."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from pinn_ntk.limit.activations import activation
from pinn_ntk.limit.duals import HermiteDual
from pinn_ntk.limit.jets import IndexSet, compose, compose_own, derivatives, multiply
from pinn_ntk.limit.operators import biharmonic, checked, coefficients, identity, laplacian

SETS = {
    "line": [(3,)],
    "plane": [(2, 0), (1, 1), (0, 2)],
    "biharmonic": [(4, 0), (2, 2), (0, 4)],
    "value": [(0, 0)],
}


def test_sets_hold_all_smaller_indices_by_degree():
    kept = IndexSet([(2, 1), (0, 2)])
    assert kept.indices == [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0), (2, 1)]
    assert (kept.degree, len(kept), kept.place((1, 1))) == (3, 7, 4)
    assert (2, 1) in kept
    assert (1, 2) not in kept
    assert len(IndexSet(biharmonic(2))) == 13


def evaluate(series: Tensor, kept: IndexSet, at: Tensor) -> Tensor:
    """sum_alpha f_alpha s^alpha, (N,)."""
    powers = [at.pow(torch.tensor(index)).prod() for index in kept.indices]
    return (series * torch.stack(powers).reshape(-1, *[1] * (series.ndim - 1))).sum(0)


@pytest.mark.parametrize("name", SETS)
def test_product_is_that_of_polynomials(name: str):
    """By hand: all pairs of indices, those whose sum is not kept left out."""
    kept = IndexSet(SETS[name])
    one, other = torch.randn(2, len(kept), 5, dtype=torch.float64)
    expected = torch.zeros_like(one)
    for (i, a), (j, b) in product(enumerate(kept.indices), repeat=2):
        total = tuple(m + n for m, n in zip(a, b, strict=True))
        if total in kept.indices:
            expected[kept.indices.index(total)] += one[i] * other[j]
    torch.testing.assert_close(kept.multiply(one, other), expected)


def test_product_over_two_points_is_that_over_each():
    first, second = IndexSet(SETS["plane"]), IndexSet(SETS["line"])
    a, b = torch.randn(2, len(first), 3, dtype=torch.float64)
    c, d = torch.randn(2, len(second), 4, dtype=torch.float64)
    one, other = (torch.einsum("an,bm->abnm", x, y) for x, y in ((a, c), (b, d)))
    expected = torch.einsum("an,bm->abnm", first.multiply(a, b), second.multiply(c, d))
    torch.testing.assert_close(multiply(one, other, first, second), expected)


def test_powers_are_repeated_products():
    kept = IndexSet(SETS["biharmonic"])
    change = torch.randn(len(kept), 3, dtype=torch.float64)
    change[0] = 0
    powers = kept.powers(change)
    assert powers.shape == (5, 13, 3)
    assert powers[0, :, 0].tolist() == [1.0] + [0.0] * 12
    torch.testing.assert_close(powers[3], kept.multiply(change, kept.multiply(change, change)))
    assert float(kept.multiply(powers[4], change).abs().max()) == 0.0  # above all degrees kept


def test_composition_of_a_function_of_one_variable():
    """exp(q + s + 2 t - s^2) to degree 4, by its own Taylor series."""
    kept = IndexSet([(4, 0), (0, 4), (2, 2), (3, 1), (1, 3)])
    change = torch.zeros(len(kept), 1, dtype=torch.float64)
    for index, value in {(1, 0): 1.0, (0, 1): 2.0, (2, 0): -1.0}.items():
        change[kept.place(index)] = value
    got = compose_own(torch.full((5, 1), math.exp(0.3), dtype=torch.float64), change, kept)
    s, t = torch.zeros(2, dtype=torch.float64).requires_grad_()
    for m, n in kept.indices:
        value = torch.exp(0.3 + s + 2 * t - s**2)
        for variable in [s] * m + [t] * n:
            (value,) = torch.autograd.grad(value, variable, create_graph=True)
        expected = float(value.detach()) / (math.factorial(m) * math.factorial(n))
        assert float(got[kept.place((m, n)), 0]) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0, 1])
def test_composition_of_an_expectation(shift: int):
    """E_00 and E_11 of tanh where q, c and q' are polynomials, evaluated near by, directly."""
    sets = IndexSet([(3, 0), (2, 2), (0, 3)]), IndexSet(SETS["plane"])
    q, other = torch.randn(len(sets[0]), 2).double() / 9, torch.randn(len(sets[1]), 3).double() / 9
    c = torch.randn(len(sets[0]), len(sets[1]), 2, 3).double() / 9
    q[0], other[0], c[0, 0] = torch.rand(2) + 1, torch.rand(3) + 1, torch.rand(2, 3) - 0.5
    dual = HermiteDual(activation("tanh"))
    a, b = sets[0].degree, sets[1].degree
    orders = 2 * a + b + 1 + shift, a + 2 * b + 1 + shift
    table = dual.pairs(q[0], c[0, 0], other[0], orders)
    series = compose(table, shift, (q, other), c, sets)

    def error(size: float) -> float:
        s, t = torch.tensor([0.6, -0.8]).double() * size, torch.tensor([0.5, 0.7]).double() * size
        at_t = torch.stack([evaluate(row, sets[1], t) for row in c])  # (A, 2, 3)
        here = evaluate(q, sets[0], s), evaluate(at_t, sets[0], s), evaluate(other, sets[1], t)
        direct = dual.pairs(*here, (1 + shift, 1 + shift))[shift, shift]
        by_series = evaluate(torch.stack([evaluate(row, sets[1], t) for row in series]), sets[0], s)
        return float((direct - by_series).abs().max())

    # All is kept to second order, not to third.
    assert error(1e-2) < 1e-4
    assert error(1e-3) < 3e-3 * error(1e-2)


def test_factorials_turn_coefficients_into_derivatives():
    like = torch.zeros((), dtype=torch.float64)
    assert derivatives([(0, 0), (3, 0), (2, 2)], like).tolist() == [1.0, 6.0, 4.0]
    points = torch.rand(2, 2, dtype=torch.float64)
    speed = torch.tensor([2.0, 3.0])
    operator = checked({(2, 0): speed, (0, 1): -1.0}, points, "pde")
    rows = coefficients(operator, IndexSet(operator))
    assert rows.T.tolist() == [[0.0, -1.0, 0.0, 4.0], [0.0, -1.0, 0.0, 6.0]]


def test_common_operators():
    assert identity(3) == {(0, 0, 0): 1.0}
    assert laplacian(1) == {(2,): 1.0}
    assert biharmonic(1) == {(4,): 1.0}
    assert biharmonic(3)[2, 0, 2] == 2.0
    assert sum(biharmonic(3).values()) == 9.0
