"""Eigenvalues, noise floor and what is made of them, on matrices with a known spectrum."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pinn_ntk import Spectrum, spectrum

EPS = torch.finfo(torch.float64).eps


def with_eigenvalues(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    """A full symmetric matrix with these eigenvalues."""
    generator = torch.Generator().manual_seed(4)
    size = len(values)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return (basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.mT).to(dtype)


# eigenvalues -> (effective rank, condition)
KNOWN: dict[str, tuple[list[float], float, float]] = {
    "one": ([5.0], 1.0, 1.0),
    "equal": ([2.0] * 6, 6.0, 1.0),
    "decay": ([4.0, 2.0, 1.0], 49 / 21, 4.0),
    "steep": ([1e8, 1.0, 1e-4], (1e8 + 1 + 1e-4) ** 2 / (1e16 + 1), 1e12),
    "small": ([3e-30, 1e-30], 16 / 10, 3.0),
    "large": ([3e30, 1e30], 16 / 10, 3.0),
}


@pytest.mark.parametrize(("values", "effective_rank", "condition"), KNOWN.values(), ids=KNOWN)
def test_known_matrices(values: list[float], effective_rank: float, condition: float) -> None:
    found = Spectrum.of(with_eigenvalues(values))
    tol = EPS * max(values) * 10
    assert found.eigenvalues.tolist() == pytest.approx(values, abs=tol, rel=0)
    assert found.rank == len(values)
    assert found.lambda_max == pytest.approx(max(values), rel=1e-14)
    assert found.trace == pytest.approx(sum(values), rel=1e-14)
    assert found.effective_rank == pytest.approx(effective_rank, rel=1e-12)
    assert found.condition == pytest.approx(condition, rel=1e-2)
    assert found.floor == pytest.approx(len(values) * EPS * max(values), rel=1e-14)


def test_what_lies_below_the_floor_enters_no_statistic() -> None:
    values = [1e-17, 4.0, 2.0, -1e-16, 0.0]
    found = Spectrum.of(torch.diag(torch.tensor(values).double()))
    assert found.eigenvalues.tolist() == pytest.approx(sorted(values, reverse=True), rel=1e-6)
    assert found.above_floor.tolist() == [4.0, 2.0]
    assert (found.rank, found.condition) == (2, 2.0)
    assert found.effective_rank == pytest.approx(36 / 20, rel=1e-15)


def test_rank_of_a_deficient_kernel_is_that_of_its_jacobian() -> None:
    jacobian = torch.randn(12, 4, dtype=torch.float64)
    found = Spectrum.of(jacobian @ jacobian.mT)
    assert found.rank == 4
    squares = torch.linalg.svdvals(jacobian).square()
    assert torch.allclose(found.above_floor, squares, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_zero_kernel(size: int) -> None:
    found = Spectrum.of(torch.zeros(size, size, dtype=torch.float64))
    assert found.eigenvalues.tolist() == [0.0] * size
    assert (found.floor, found.rank, found.lambda_max) == (0.0, 0, 0.0)
    assert (found.trace, found.effective_rank) == (0.0, 0.0)
    assert math.isnan(found.condition)


def test_a_kernel_of_noise_below_zero_has_no_size() -> None:
    found = Spectrum.of(-1e-20 * torch.eye(3, dtype=torch.float64))
    assert (found.lambda_max, found.floor, found.rank) == (0.0, 0.0, 0)


def test_floor_follows_the_dtype_of_the_contraction() -> None:
    values = [1.0, 1e-3, 1e-9]
    wide = Spectrum.of(with_eigenvalues(values))
    narrow = Spectrum.of(with_eigenvalues(values, torch.float32))
    assert narrow.eigenvalues.dtype == torch.float32
    assert (wide.rank, narrow.rank) == (3, 2)
    assert narrow.floor / wide.floor == pytest.approx(2**29, rel=1e-6)


def test_asymmetric_rounding_is_averaged() -> None:
    kernel = with_eigenvalues([3.0, 2.0, 1.0])
    lopsided = kernel + 0.5 * (kernel.triu(1) - kernel.tril(-1))
    assert torch.allclose(Spectrum.of(lopsided).eigenvalues, Spectrum.of(kernel).eigenvalues)


@pytest.mark.parametrize("shape", [(3, 2), (4,), (2, 2, 2)])
def test_only_square_blocks_have_a_spectrum(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a square block \(R, R\), got \("):
        Spectrum.of(torch.ones(shape))


def test_a_failure_on_the_cpu_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Tensor) -> Tensor:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(spectrum.torch.linalg, "eigvalsh", fail)
    with pytest.raises(torch.linalg.LinAlgError):
        Spectrum.of(torch.eye(2))
