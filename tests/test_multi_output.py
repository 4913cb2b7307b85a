"""Kernels over components against Jacobians row by row, and the three normalisations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pinn_ntk import empirical_ntk, reference_ntk
from pinn_ntk.analysis.multi_output import component_block, flattened, matrix_valued, normalised
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.kernel.ntk import NTK
from tests.asserts import assert_near
from tests.networks import NETWORKS
from tests.operators import navier_stokes, points

N, C = 5, 3  # points, components
SIZES = st.integers(1, 4)


@pytest.fixture
def net() -> nn.Module:
    return NETWORKS["mlp"](2, 3)


def flow(net: nn.Module) -> dict[str, Tensor]:
    """Three equations at 5 points, and two of the three outputs at 4 others."""
    return {"pde": navier_stokes(net, points(N, 2)), "wall": net(points(4, 2, seed=1))[:, :2]}


@pytest.fixture
def kernel(net: nn.Module) -> NTK:
    return empirical_ntk(flow(net), net)


# --- Against Jacobians


def test_matrices_of_pairs_of_points(net: nn.Module, kernel: NTK) -> None:
    residuals = flow(net)
    of_point = {
        name: [reference_jacobian(row, net) for row in r]  # (C, P) a point
        for name, r in residuals.items()
    }
    for a, b in [("pde", "pde"), ("pde", "wall"), ("wall", "pde"), ("wall", "wall")]:
        components, other = residuals[a].shape[1], residuals[b].shape[1]
        values = matrix_valued(kernel[a, b], components, other)
        assert values.shape == (len(residuals[a]), len(residuals[b]), components, other)
        for n, J in enumerate(of_point[a]):
            for m, J_other in enumerate(of_point[b]):
                scale = float(J.norm() * J_other.norm())
                expected = J @ J_other.mT
                assert_near(values[n, m], expected, 1e-12, f"K_{a}{b}(x_{n}, x_{m})", scale)


def test_components_alone(net: nn.Module, kernel: NTK) -> None:
    residuals = flow(net)
    parts = {f"{name}{c}": r[:, c] for name, r in residuals.items() for c in range(r.shape[1])}
    reference = reference_ntk(parts, net)

    def check(block: Tensor, one: str, other: str) -> None:
        scale = float((reference[one, one].norm() * reference[other, other].norm()).sqrt())
        assert_near(block, reference[one, other], 1e-12, f"K of {one} and {other}", scale)

    for i in range(C):
        for j in range(C):
            block = component_block(kernel["pde"], i, j, C)
            check(block, f"pde{i}", f"pde{j}")
            assert torch.equal(block, matrix_valued(kernel["pde"], C)[:, :, i, j])
        for j in range(2):
            block = component_block(kernel["pde", "wall"], i, j, C, 2)
            check(block, f"pde{i}", f"wall{j}")


def test_one_component_is_the_block_itself(kernel: NTK) -> None:
    block = kernel["pde"]
    assert torch.equal(matrix_valued(block, 1)[:, :, 0, 0], block)
    assert torch.equal(component_block(block, 0, 0, 1), block)


# --- Properties


def test_transpose_swaps_the_points(kernel: NTK) -> None:
    values = matrix_valued(kernel["pde"], C)
    assert_near(values.permute(1, 0, 3, 2), values, 1e-13, "K(x', x)^T")


def test_positive_semidefinite_over_points_and_components(kernel: NTK) -> None:
    """sum_nm v_n^T K(x_n, x_m) v_m >= 0, and so is each K(x, x) and each component's own block."""
    values = matrix_valued(kernel["pde"], C)
    size = float(values.norm())
    v = torch.randn(200, N, C, dtype=torch.float64)
    assert float(torch.einsum("knc,nmcd,kmd->k", v, values, v).min()) >= -1e-12 * size
    of_points = torch.linalg.eigvalsh(values[range(N), range(N)])  # (N, C)
    assert float(of_points.min()) >= -1e-13 * size
    for c in range(C):
        eigenvalues = torch.linalg.eigvalsh(component_block(kernel["pde"], c, c, C))
        assert float(eigenvalues[0]) >= -1e-13 * size
    traces = sum(component_block(kernel["pde"], c, c, C).trace() for c in range(C))
    assert float(traces) == pytest.approx(kernel.trace("pde"), rel=1e-12)


@given(n=SIZES, m=SIZES, c=SIZES, d=SIZES)
def test_flattened_is_the_inverse(n: int, m: int, c: int, d: int) -> None:
    block = torch.arange(n * c * m * d).reshape(n * c, m * d)
    values = matrix_valued(block, c, d)
    assert values.shape == (n, m, c, d)
    assert torch.equal(flattened(values), block)
    assert int(values[n - 1, 0, 0, d - 1]) == int(block[(n - 1) * c, d - 1])
    assert torch.equal(component_block(block, c - 1, 0, c, d), values[:, :, c - 1, 0])


# --- Normalisations


def line(count: int) -> NTK:
    """u = a x + b on [0, 1], kernel x x' + 1, at midpoints of ``count`` cells."""
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, -0.7))
    x = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return empirical_ntk({"data": a * x + b}, [a, b])


def test_eigenvalues_of_the_operator_do_not_grow_with_the_points() -> None:
    """Of int_0^1 (x x' + 1) f(x') dx': those of [[1/3, 1/2], [1/2, 1]]."""
    moments = torch.tensor([[1 / 3, 1 / 2], [1 / 2, 1]], dtype=torch.float64)
    expected = torch.linalg.eigvalsh(moments)
    for count in (50, 200):
        block = line(count)["data"]
        found = torch.linalg.eigvalsh(normalised(block, count))[-2:]
        assert_near(found, expected, 1 / count**2, f"eigenvalues at {count} points")
        assert_near(torch.linalg.eigvalsh(block)[-2:] / count, found, 1e-12, "of K over N")


def test_rates_of_a_mean_of_squares_are_those_of_twice_the_operator() -> None:
    kernel = line(40)
    weighted = kernel.weighted_matrix({"data": 2 / 40})
    assert_near(weighted, 2 * normalised(kernel["data"], 40), 1e-14, "D^(1/2) K D^(1/2)")


# --- Errors

BLOCK = torch.zeros(6, 4)

WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "cross": (lambda: matrix_valued(BLOCK, 2), ValueError, r"\(6, 4\) is not square.*`other`"),
    "cross_part": (lambda: component_block(BLOCK, 0, 0, 2), ValueError, "not square.*`other`"),
    "rows": (lambda: matrix_valued(BLOCK, 4, 1), ValueError, "6 rows do not make up points of 4"),
    "columns": (lambda: matrix_valued(BLOCK, 3, 3), ValueError, "4 columns .* points of 3 .*both"),
    "none": (lambda: matrix_valued(BLOCK, 0, 1), ValueError, "points of 0 components"),
    "axes": (lambda: matrix_valued(BLOCK[0], 1), ValueError, r"block .* got shape \(4,\)"),
    "flat": (lambda: flattened(BLOCK), ValueError, r"\(N, N', C, C'\), got shape \(6, 4\)"),
    "i": (lambda: component_block(BLOCK, 3, 0, 3, 2), IndexError, "no component 3; there are 3"),
    "j": (lambda: component_block(BLOCK, 0, -1, 3, 2), IndexError, "no component -1; there are 2"),
    "points": (lambda: normalised(BLOCK, 0), ValueError, "points is 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_cause(case: str) -> None:
    ask, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        ask()
