"""Properties that every kernel has, checked on a computed one.

Blocks are compared by the Frobenius norm of their difference relative to that of the expected
block, so that a check means the same at every scale; a block that should be zero has to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import pytest
import torch
from torch import Tensor

from pinn_ntk import NTK, empirical_ntk, reference_ntk
from pinn_ntk.graph.params import ParamsLike
from pinn_ntk.graph.reference import reference_jacobian


def assert_near(
    value: Tensor, expected: Tensor, tol: float, what: str, scale: Tensor | float | None = None
) -> None:
    """|value - expected| <= tol * scale; the scale is |expected| when left out."""
    assert value.shape == expected.shape, (
        f"{what}: shape {tuple(value.shape)}, not {tuple(expected.shape)}"
    )
    assert value.dtype == torch.float64, f"{what}: {value.dtype}, not torch.float64"
    error = float((value - expected).norm())
    bound = tol * float(expected.norm() if scale is None else scale)
    assert error <= bound, f"{what}: off by {error:.2e}, allowed {bound:.2e} at tolerance {tol:.0e}"


def assert_all_near(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tol: float = 1e-10
) -> None:
    """The terms of both, each as `assert_near` has it."""
    assert set(found) == set(expected)
    for term, value in expected.items():
        assert_near(found[term], value.detach(), tol, term)


def checked_ntk(
    residual: Tensor, params: ParamsLike, tol: float = 1e-13, what: str = "K", **options: bool
) -> NTK:
    """The kernel of one residual, after it was found to be the row-by-row one."""
    kernel = empirical_ntk(residual, params, **options)
    expected = reference_ntk(residual, params)["residual", "residual"]
    assert_near(kernel["residual"], expected, tol, what)
    return kernel


def assert_is_ntk_of(
    k: NTK, residuals: Mapping[str, Tensor], params: ParamsLike, tol: float = 1e-12
) -> None:
    """Everything below that holds of any kernel, for one of ``residuals`` and ``params``."""
    assert_matches_reference(k, reference_ntk(residuals, params), tol)
    assert_jacobians_match_reference(k, residuals, params, tol)
    assert_trace_is_sum_of_squared_gradients(k, residuals, params, tol)
    assert_symmetric(k, tol)
    assert_psd(k)
    assert_cross_blocks_transpose(k, tol)
    assert_linear_operator_consistent(k, tol)


def assert_matches_reference(
    k: NTK, reference: Mapping[tuple[str, str], Tensor], tol: float = 1e-12
) -> None:
    """Every block equals the row-by-row one; `matrix` holds them in the order of terms."""
    assert set(product(k.terms, k.terms)) == set(reference)
    for (a, b), block in reference.items():
        assert_near(k[a, b], block, tol, f"K[{a}, {b}]")
    for a in k.terms:
        assert_near(k[a], reference[a, a], tol, f"K[{a}]")
    blocks = [torch.cat([reference[a, b] for b in k.terms], dim=1) for a in k.terms]
    assert_near(k.matrix(), torch.cat(blocks), tol, "matrix()")


def assert_jacobians_match_reference(
    k: NTK, residuals: Mapping[str, Tensor], params: ParamsLike, tol: float = 1e-12
) -> None:
    """J written out has its columns in the order of the parameters."""
    for term, residual in residuals.items():
        expected = reference_jacobian(residual, params)
        assert_near(k.jacobian(term).dense(), expected, tol, f"J[{term}]")


def assert_trace_is_sum_of_squared_gradients(
    k: NTK, residuals: Mapping[str, Tensor], params: ParamsLike, tol: float = 1e-12
) -> None:
    """K_ii = |d r_i / d theta|^2: a sum of squares over rows, not the square of a sum."""
    for term, residual in residuals.items():
        squares = reference_jacobian(residual, params).square().sum(dim=1)
        assert_near(k.diagonal(term), squares, tol, f"diagonal({term})")
        assert_near(k[term].diagonal(), squares, tol, f"diagonal of K[{term}]")
        trace = torch.as_tensor(k.trace(term), dtype=torch.float64)
        assert_near(trace, squares.sum(), tol, f"trace({term})")


def assert_symmetric(k: NTK, tol: float = 1e-13) -> None:
    for term in k.terms:
        assert_near(k[term], k[term].mT, tol, f"K[{term}] against its transpose")
    assert_near(k.matrix(), k.matrix().mT, tol, "matrix() against its transpose")


def assert_psd(k: NTK) -> None:
    """No eigenvalue lies further below 0 than ten times the noise floor R eps lambda_max."""
    for name, matrix in [*((term, k[term]) for term in k.terms), ("matrix()", k.matrix())]:
        eigenvalues = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
        floor = len(matrix) * torch.finfo(torch.float64).eps * float(eigenvalues.abs().max())
        lowest = float(eigenvalues[0])
        assert lowest >= -10 * floor, f"{name}: eigenvalue {lowest:.2e}, floor {floor:.2e}"


def assert_cross_blocks_transpose(k: NTK, tol: float = 1e-13) -> None:
    """K_ab = K_ba^T, as indexed and as contracted anew in either order."""
    for a, b in product(k.terms, k.terms):
        one, other = k.jacobian(a), k.jacobian(b)
        assert_near(k[a, b], k[b, a].mT, tol, f"K[{a}, {b}] against K[{b}, {a}]^T")
        assert_near(one.gram(other), other.gram(one).mT, tol, f"gram of {a} and {b}, both orders")


def assert_linear_operator_consistent(k: NTK, tol: float = 1e-12) -> None:
    """Products with J, J^T and J'^T, and the SciPy operator, agree with J written out."""
    for term in k.terms:
        jacobian, dense = k.jacobian(term), k.jacobian(term).dense()
        w, v = (
            torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
            for size in dense.shape
        )
        operator = jacobian.as_linear_operator()
        assert tuple(jacobian.shape) == operator.shape == tuple(dense.shape)
        products = {
            "J v": (jacobian.matvec(v), dense @ v, v),
            "J^T w": (jacobian.rmatvec(w), dense.mT @ w, w),
            "SciPy J v": (torch.from_numpy(operator.matvec(v.numpy())), dense @ v, v),
            "SciPy J^T w": (torch.from_numpy(operator.rmatvec(w.numpy())), dense.mT @ w, w),
        }
        for what, (value, expected, probe) in products.items():
            assert_near(value, expected, tol, f"{what} of {term}", dense.norm() * probe.norm())
        for other in k.terms:
            expected = dense @ k.jacobian(other).dense().mT
            scale = dense.norm() * k.jacobian(other).dense().norm()
            gram = jacobian.gram(k.jacobian(other))
            assert_near(gram, expected, tol, f"gram of {term} and {other}", scale)


def assert_certified(k: NTK, tol: float = 1e-10) -> None:
    """Every pair of terms carries a probe error, and none exceeds ``tol``."""
    assert set(k.certificate) == set(product(k.terms, k.terms))
    worst = max(k.certificate, key=lambda pair: k.certificate[pair])
    assert k.certificate[worst] <= tol, f"certificate {k.certificate[worst]:.2e} of {worst}"


def assert_permutation_equivariant(
    build: Callable[[Tensor], NTK], term: str, rows: int, tol: float = 1e-12
) -> None:
    """Points in another order give the same kernel in that order, and no other change.

    ``build``: order (rows,) -> kernel with the points of ``term`` in that order, one row a point;
    those of the other terms stay as they are.
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(3))
    plain, permuted = build(torch.arange(rows)), build(order)
    assert_near(permuted[term], plain[term][order][:, order], tol, f"permuted K[{term}]")
    for other in set(plain.terms) - {term}:
        assert_near(permuted[other], plain[other], tol, f"K[{other}] beside a permuted term")
        assert_near(permuted[term, other], plain[term, other][order], tol, f"K[{term}, {other}]")


def backward_passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows by one at each backward pass from now on: whether that was batched."""
    made: list[bool] = []
    grad = torch.autograd.grad

    def counted(*args: object, **kwargs: object) -> object:
        made.append(bool(kwargs.get("is_grads_batched")))
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return made
