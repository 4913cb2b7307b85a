"""Eigenvalues, noise floor and what is made of them, on matrices with a known spectrum."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import spectrum as bench
from pinn_ntk import NTK, FactoredJacobian, Spectrum, definiteness, empirical_ntk
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.kernel import spectrum
from pinn_ntk.kernel.factors import Dense
from tests.kernels import explicit, mlp
from tests.operators import grad, laplacian

EPS = torch.finfo(torch.float64).eps
NETWORK = (16, 2, 0)  # of which the eigenvalues are known


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
    "square_underflows": ([3e-200, 1e-200], 16 / 10, 3.0),
    "square_overflows": ([3e200, 1e200], 16 / 10, 3.0),
}


@pytest.mark.parametrize(("values", "effective_rank", "condition"), KNOWN.values(), ids=KNOWN)
def test_known_matrices(values: list[float], effective_rank: float, condition: float):
    found = Spectrum.of(with_eigenvalues(values))
    tol = EPS * max(values) * 10
    assert found.eigenvalues.tolist() == pytest.approx(values, abs=tol, rel=0)
    assert found.rank == len(values)
    assert found.lambda_max == pytest.approx(max(values), rel=1e-14)
    assert found.trace == pytest.approx(sum(values), rel=1e-14)
    assert found.effective_rank == pytest.approx(effective_rank, rel=1e-12)
    assert found.condition == pytest.approx(condition, rel=1e-2)
    assert found.floor == pytest.approx(len(values) * EPS * max(values), rel=1e-14)


def test_what_lies_below_the_floor_enters_no_statistic():
    values = [1e-17, 4.0, 2.0, -1e-16, 0.0]
    found = Spectrum.of(torch.diag(torch.tensor(values).double()))
    assert found.eigenvalues.tolist() == pytest.approx(sorted(values, reverse=True), rel=1e-6)
    assert found.above_floor.tolist() == [4.0, 2.0]
    assert (found.rank, found.condition) == (2, 2.0)
    assert found.effective_rank == pytest.approx(36 / 20, rel=1e-15)


def test_ranks_of_a_deficient_kernel_are_those_of_its_jacobian():
    jacobian = torch.randn(12, 4, dtype=torch.float64)
    found = Spectrum.of(jacobian @ jacobian.mT)
    norms = jacobian.norm() ** 2 / torch.linalg.matrix_norm(jacobian, 2) ** 2
    assert (found.rank, found.stable_rank) == (4, pytest.approx(float(norms)))
    assert torch.allclose(found.above_floor, torch.linalg.svdvals(jacobian) ** 2, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_zero_kernel(size: int):
    found = Spectrum.of(torch.zeros(size, size, dtype=torch.float64))
    assert found.eigenvalues.tolist() == [0.0] * size
    assert (found.rank, found.floor) == (0, 0.0)
    assert found.lambda_max == found.trace == found.effective_rank == 0.0
    assert math.isnan(found.condition)
    noise = Spectrum.of(-1e-20 * torch.eye(size, dtype=torch.float64))
    assert (noise.lambda_max, noise.floor, noise.rank) == (0.0, 0.0, 0)


def test_floor_follows_the_dtype_of_the_contraction():
    values = [1.0, 1e-3, 1e-9]
    wide = Spectrum.of(with_eigenvalues(values))
    narrow = Spectrum.of(with_eigenvalues(values, torch.float32))
    assert narrow.eigenvalues.dtype == torch.float32
    assert (wide.rank, narrow.rank) == (3, 2)
    assert narrow.floor / wide.floor == pytest.approx(2**29, rel=1e-6)


def test_asymmetric_rounding_is_averaged():
    kernel = with_eigenvalues([3.0, 2.0, 1.0])
    lopsided = kernel + 0.5 * (kernel.triu(1) - kernel.tril(-1))
    assert torch.allclose(Spectrum.of(lopsided).eigenvalues, Spectrum.of(kernel).eigenvalues)


@pytest.mark.parametrize("shape", [(3, 2), (4,), (2, 2, 2)])
def test_only_square_blocks_have_a_spectrum(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"expected a square block \(R, R\), got \("):
        Spectrum.of(torch.ones(shape))


@pytest.mark.parametrize(("solver", "eigenvectors"), [("eigvalsh", False), ("eigh", True)])
def test_a_failure_on_the_cpu_is_passed_on(solver: str, eigenvectors: bool, monkeypatch):
    fail = Mock(side_effect=torch.linalg.LinAlgError("did not converge"))
    monkeypatch.setattr(spectrum.torch.linalg, solver, fail)
    with pytest.raises(torch.linalg.LinAlgError):
        Spectrum.of(torch.eye(2), eigenvectors=eigenvectors)


RANKS: dict[str, tuple[list[float], float, float]] = {
    "one": ([5.0], 1.0, 1.0),
    "equal": ([2.0] * 6, 6.0, 6.0),
    "halves": ([4.0, 2.0, 2.0], 2.0, 2 * math.sqrt(2)),  # p = 1/2, 1/4, 1/4: entropy 1.5 log 2
    "steep": ([1.0, 1e-9], 1.0, 1.0),
    "small": ([4e-30, 2e-30, 2e-30], 2.0, 2 * math.sqrt(2)),
    "noise": ([4.0, 2.0, 2.0, 1e-17, -1e-17], 2.0, 2 * math.sqrt(2)),
}


@pytest.mark.parametrize(("values", "stable", "entropy"), RANKS.values(), ids=RANKS)
def test_stable_and_entropy_rank(values: list[float], stable: float, entropy: float):
    found = Spectrum.of(torch.diag(torch.tensor(values).double()))
    assert found.stable_rank == pytest.approx(stable, rel=1e-7)
    assert found.entropy_rank == pytest.approx(entropy, rel=1e-7)
    assert 1 - 1e-12 <= found.stable_rank <= found.effective_rank * (1 + 1e-12)
    assert found.effective_rank <= found.entropy_rank * (1 + 1e-12) <= found.rank * (1 + 1e-9)


METHODS = ("fast", "accurate")


@pytest.fixture
def kernel() -> NTK:
    """u_xx + v, v_x - u at 7 points, (7, 2), and u on the boundary, (2, 1), of one network."""
    net = mlp(1, 9, 9, 2)
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None].requires_grad_()
    u, v = net(x).split(1, 1)
    ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    residuals = {"pde": torch.cat([laplacian(u, x) + v, grad(v, x) - u], 1), "bc": net(ends)[:, :1]}
    return empirical_ntk(residuals, net)


def assert_same(found: Spectrum, matrix: Tensor) -> None:
    """Eigenvalues and eigenvectors are those of the matrix."""
    top, size = found.lambda_max, len(matrix)
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    assert found.eigenvalues.shape == expected.shape
    assert torch.allclose(found.eigenvalues, expected, rtol=0, atol=size * 4 * EPS * top)
    vectors = found.eigenvectors
    assert torch.allclose(vectors.mT @ vectors, torch.eye(size).double(), atol=100 * EPS)
    error = matrix @ vectors - vectors * found.eigenvalues
    assert float(error.norm(dim=0).max()) <= size * 16 * EPS * top


@pytest.mark.parametrize("term", ["pde", "bc", None])
def test_blocks_of_several_outputs(kernel: NTK, method: str, term: str | None):
    matrix = kernel.matrix() if term is None else kernel[term]
    assert len(matrix) == {"pde": 14, "bc": 2, None: 16}[term]
    assert_same(kernel.spectrum(term, method=method, eigenvectors=True), matrix)
    assert kernel.spectrum(term, method=method).eigenvectors is None


def test_weighted(kernel: NTK, method: str):
    weights = {"pde": torch.rand(14, dtype=torch.float64), "bc": 1e3}
    found = kernel.weighted_spectrum(weights, method=method, eigenvectors=True)
    assert_same(found, kernel.weighted_matrix(weights))


def test_operator_of_the_paper(kernel: NTK, method: str):
    """Eq 6.3: rows of K_u scaled by lambda_b / N_b, of K_r by lambda_r / N_r; not symmetric."""
    scales = {"pde": 3.0 / 14, "bc": 700.0 / 2}
    d = torch.tensor([scales["pde"]] * 14 + [scales["bc"]] * 2, dtype=torch.float64)
    operator = d[:, None] * kernel.matrix()
    assert float((operator - operator.mT).norm()) > 0.1 * float(operator.norm())
    of_paper = torch.linalg.eigvals(operator)
    found = kernel.weighted_spectrum(scales, method=method, eigenvectors=True)
    top = found.lambda_max
    assert float(of_paper.imag.abs().max()) <= 1e-10 * top
    expected = of_paper.real.sort(descending=True).values
    assert torch.allclose(found.eigenvalues, expected, rtol=0, atol=1e-10 * top)
    # And D^(-1/2) v is an eigenvector of the transposed operator K D, of dr/dt = -K D r.
    modes = found.eigenvectors[:, :5] / d.sqrt()[:, None]
    decayed, tol = modes * found.eigenvalues[:5], 1e-9 * top * float(modes.max())
    assert torch.allclose(operator.mT @ modes, decayed, atol=tol)


def test_zero_weight_takes_a_term_out(kernel: NTK):
    found = kernel.weighted_spectrum({"pde": 1.0, "bc": 0.0}, method="accurate")
    alone = kernel.spectrum("pde", method="accurate")
    assert torch.allclose(found.above_floor, alone.eigenvalues[: found.rank], rtol=1e-6)


@pytest.mark.parametrize("bad", [{}, *({"bc": w} for w in (-1.0, math.nan, math.inf))], ids=str)
def test_bad_weights_are_refused_by_both(kernel: NTK, method: str, bad: dict[str, float]):
    message = "all finite and none negative" if bad else "weight"
    with pytest.raises(ValueError, match=message):
        kernel.weighted_spectrum({"pde": 1.0, **bad}, method=method)


def test_unknown_methods_and_terms_are_refused(kernel: NTK):
    for call in (kernel.spectrum, lambda **o: kernel.weighted_spectrum({"pde": 1, "bc": 1}, **o)):
        with pytest.raises(ValueError, match="method is 'exact'; expected 'fast'"):
            call(method="exact")
    for method in METHODS:
        with pytest.raises(KeyError, match="no term 'wall'"):
            kernel.spectrum("wall", method=method)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (1, 3), (3, 1), (1, 1)])
def test_accurate_eigenvalues_are_squared_singular_values(shape: tuple[int, int]):
    rows = torch.randn(*shape, dtype=torch.float64)
    found = explicit(residual=rows).spectrum(method="accurate", eigenvectors=True)
    kept = min(shape)
    assert torch.allclose(found.eigenvalues[:kept], torch.linalg.svdvals(rows).square())
    assert found.eigenvalues[kept:].tolist() == [0.0] * (shape[0] - kept)
    assert found.rank == kept
    assert_same(found, rows @ rows.mT)


def test_accurate_floor_is_on_the_singular_values():
    """1e-13 sigma_max stands above it, though its square is far below eps lambda_max."""
    kernel = explicit(residual=torch.diag(torch.tensor([2.0, 2e-13, 2e-16]).double()))
    found = kernel.spectrum(method="accurate")
    assert found.floor == pytest.approx((3 * EPS * 2.0) ** 2, rel=1e-12)
    assert (found.rank, kernel.spectrum().rank) == (2, 1)
    assert found.condition == pytest.approx(1e26, rel=1e-6)


def test_floor_of_a_float32_model(method: str):
    """J is off by eps_J sqrt(R) sigma_max, whatever the dtype of the products."""
    single = torch.finfo(torch.float32).eps
    rows = torch.diag(torch.tensor([1.0, 1e-5, 1e-9]))
    kernel = explicit(residual=rows)
    weighted = kernel.weighted_spectrum({"residual": 4.0}, method=method)
    for found, top in ((kernel.spectrum(method=method), 1.0), (weighted, 4.0)):
        assert found.eigenvalues.dtype == torch.float64
        assert found.floor == pytest.approx(3 * single**2 * top, rel=1e-12)
        assert found.rank == 2
    jacobian = FactoredJacobian({"w": Dense(rows)}, {"w": 3}, 3, dtype=torch.float32)
    throughout = NTK({"r": jacobian})
    floor = 3 * single if method == "fast" else (3 * single) ** 2
    assert throughout.spectrum(method=method).floor == pytest.approx(floor, rel=1e-6)


@pytest.mark.parametrize("products", [torch.float32, torch.float64])
@pytest.mark.parametrize("network", [(16, 2, 1), (64, 3, 0)])
def test_nothing_above_the_floor_of_a_float32_model_is_wrong(method: str, network, products):
    kernel_of = partial(bench.kernel_of, bench.make_network(*network))
    truth = kernel_of(torch.float64, torch.float64).spectrum(method="accurate")
    found = kernel_of(torch.float32, products).spectrum(method=method)
    assert 10 < found.rank < truth.rank
    errors = found.above_floor.double() / truth.eigenvalues[: found.rank] - 1
    assert float(errors.abs().max()) < 0.05


def test_zero_jacobian(method: str):
    found = explicit(residual=torch.zeros(3, 4).double()).spectrum(method=method, eigenvectors=True)
    assert found.eigenvalues.tolist() == [0.0] * 3
    assert (found.rank, found.floor, found.stable_rank, found.entropy_rank) == (0, 0.0, 0.0, 0.0)
    assert math.isnan(found.condition)
    assert found.decay is None
    assert_same(found, torch.zeros(3, 3, dtype=torch.float64))


def test_a_term_that_depends_on_nothing(method: str):
    nothing = FactoredJacobian({}, {"w": 4}, 2)
    found = NTK({"residual": nothing}).spectrum(method=method, eigenvectors=True)
    assert found.eigenvalues.tolist() == [0.0, 0.0]
    assert found.eigenvectors.shape == (2, 2)


@pytest.mark.parametrize("copies", [2, 50])
def test_duplicated_rows_are_rank_loss(method: str, copies: int):
    """Wang's boundary: N / 2 copies of each end have rank 2, and N / 2 times the eigenvalues."""
    ends = torch.randn(2, 30, dtype=torch.float64)
    once = explicit(residual=ends).spectrum(method=method)
    often = explicit(residual=ends.repeat_interleave(copies, 0)).spectrum(method=method)
    assert (len(often.eigenvalues), often.rank) == (2 * copies, 2)
    assert torch.allclose(often.above_floor, copies * once.eigenvalues, rtol=1e-10)


def test_eigenvectors_of_the_cpu_where_the_device_fails(monkeypatch: pytest.MonkeyPatch):
    class OnDevice(Tensor):  # or so it says
        device = torch.device("meta")

    calls, real = [], torch.linalg.eigh

    def fail_first(matrix: Tensor) -> object:
        calls.append(matrix)
        if len(calls) == 1:
            raise torch.linalg.LinAlgError("did not converge")
        return [x.as_subclass(Tensor) for x in real(matrix.as_subclass(Tensor))]

    monkeypatch.setattr(spectrum.torch.linalg, "eigh", fail_first)
    monkeypatch.setattr(Tensor, "to", lambda self, *_: self)
    matrix = with_eigenvalues([3.0, 1.0])
    values, vectors = spectrum._eigensystem(matrix.as_subclass(OnDevice), vectors=True)
    assert len(calls) == 2
    assert values.tolist() == pytest.approx([1.0, 3.0])
    assert torch.allclose(matrix @ vectors, vectors * values)


@pytest.mark.gpu
def test_on_cuda(method: str):
    rows = torch.randn(70, 40, dtype=torch.float64)
    here = explicit(residual=rows).spectrum(method=method, eigenvectors=True)
    there = explicit(residual=rows.cuda()).spectrum(method=method, eigenvectors=True)
    assert there.eigenvalues.device.type == there.eigenvectors.device.type == "cuda"
    assert torch.allclose(there.above_floor.cpu(), here.above_floor, rtol=1e-9)
    assert there.rank == here.rank == 40


@pytest.fixture(scope="module")
def truth() -> list[Any]:
    return bench.true_eigenvalues(bench.make_network(*NETWORK))


def test_the_reference_is_the_kernel_of_the_network(truth: list[Any]):
    kernel = bench.kernel_of(bench.make_network(*NETWORK), torch.float64, torch.float64)
    assert len(truth) == 40
    largest = [float(value) for value in truth[:5]]
    assert kernel.spectrum().eigenvalues[:5].tolist() == pytest.approx(largest, rel=1e-12)
    assert float(sum(truth)) == pytest.approx(float(kernel.matrix().trace()), rel=1e-13)


def test_a_gradient_of_60_digits_is_that_of_autograd():
    net = bench.make_network(5, 3, 1).double()
    x = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    for order, value in ((0, net(x)), (2, laplacian(net(x), x))):
        expected = reference_jacobian(value, net).flatten()
        exact = [bench._exact(p) for p in net.parameters()]
        weights, biases = exact[::2], exact[1::2]
        found = bench._gradient(weights, biases, bench._exact(x)[0, 0], order)
        assert np.allclose(found.astype(float), expected.numpy(), rtol=1e-12, atol=1e-14)


RIGHT = {  # contestant -> eigenvalues right, at least and at most, of 40
    ("fast", "float32"): (10, 20),
    ("accurate", "float32"): (18, 30),
    ("fast", "float64"): (18, 30),
    ("accurate", "float64"): (30, 40),
}


@pytest.mark.parametrize(("method", "precision"), RIGHT)
def test_eigenvalues_right_of_forty(truth: list[Any], method: str, precision: str):
    assert float(truth[0] / truth[-1]) > 1e36
    kernel = bench.kernel_of(bench.make_network(*NETWORK), *bench.PRECISIONS[precision])
    found = bench.accuracy(kernel.spectrum(method=method), truth)
    least, most = RIGHT[method, precision]
    assert least <= found.right <= most
    # The floor keeps what is right, and nothing else.
    assert found.right - 8 <= found.above_floor <= found.right
    assert found.worst < bench.WITHIN


def test_accuracy_counts_up_to_the_first_wrong_one():
    truth = [mpmath.mpf(value) for value in ("4", "2", "1", "1e-40", "1e-45")]
    values = torch.tensor([4.0, 2.1, 1.2, 1e-40, 0.0], dtype=torch.float64)
    found = bench.accuracy(Spectrum(values, 1.1), truth)
    assert (found.right, found.above_floor) == (2, 3)
    assert found.last_right == 0.5
    assert found.worst == pytest.approx(0.2)
    nothing_right = bench.accuracy(Spectrum(2 * values, 1e3), truth)
    assert (nothing_right.right, nothing_right.last_right, nothing_right.worst) == (0, 1.0, 0.0)


def test_benchmark_as_a_user_runs_it(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "NETWORKS", ((4, 1, 0),))
    monkeypatch.setattr(bench, "INSIDE", 5)
    options = ["--points", "9", "--width", "5", "--depth", "2", "--repeats", "2"]
    bench.main([*options, "--json", str(tmp_path / "found.json")])
    report = json.loads((tmp_path / "found.json").read_text())
    cost, (found,) = report["cost"], report["accuracy"]
    assert (cost["points"], cost["parameters"]) == (9, 5 + 5 + 25 + 5 + 5 + 1)
    assert cost["whole_jacobian_bytes"] == 8 * 9 * 46
    assert all(len(cost["wall_s"][method]) == 2 for method in METHODS)
    assert cost["peak_bytes"]["fast"] >= 8 * 81
    assert (found["rows"], found["parameters"]) == (7, 13)
    assert found["contestants"]["accurate, float64"]["right"] == 7
    printed = capsys.readouterr().out
    assert "1-[4]*1-1, seed 0, 13 parameters, 7 rows, condition" in printed
    assert printed.count("\n| fast") == printed.count("\n| accurate") == 3


def test_stored_results_hold_the_claims():
    """The numbers that the documents quote."""
    report = json.loads(bench.RESULTS.read_text())
    for found in report["accuracy"]:
        for name, figures in found["contestants"].items():
            assert figures["worst"] < bench.WITHIN, name
        fast, accurate = (found["contestants"][f"{m}, float64"]["right"] for m in METHODS)
        assert fast >= 18
        assert accurate >= 30
    assert report["cost"]["peak_bytes"]["accurate"] < report["cost"]["whole_jacobian_bytes"]


def test_a_derivative_that_is_not_finite_has_no_spectrum():
    w = torch.zeros(1, requires_grad=True)
    kernel = empirical_ntk({"root": (w * torch.ones(2)).sqrt()}, [w], certify=False)
    for made in (partial(kernel.spectrum, method="accurate"), partial(definiteness, kernel)):
        with pytest.raises(ValueError, match=r"square root or a norm at 0"):
            made("root")
