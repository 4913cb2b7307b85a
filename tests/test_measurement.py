"""What is taken off a kernel: rows, traces, step sizes and drift. No Trainer."""

from __future__ import annotations

import importlib
import inspect
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

from pinn_ntk import NTK, Term, empirical_ntk, find_terms
from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.diagnostics.kernel_drift import KernelDrift
from pinn_ntk.diagnostics.measurement import BATCH, PROBE, Measurement, measure
from pinn_ntk.diagnostics.words import summary
from pinn_ntk.graph.terms.curvature import (
    curvature,
    curvature_of_rows,
    effective_weights,
    uniform_weight,
)
from pinn_ntk.kernel.rows import kernel_of_rows, stratified_rows, thinned
from pinn_ntk.kernel.spectrum import DIRECT, largest_eigenvalue


def linear(**matrices: Tensor) -> tuple[NTK, Tensor]:
    """Kernel of residuals A theta, whose Jacobian is A."""
    theta = torch.ones(
        next(iter(matrices.values())).shape[1], dtype=torch.float64, requires_grad=True
    )
    return empirical_ntk({name: A @ theta for name, A in matrices.items()}, {"theta": theta}), theta


def rows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator, dtype=torch.float64)


# --- Rows kept


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(5, 5, [0, 1, 2, 3, 4]), (6, 5, [0, 2, 4]), (10, 3, [0, 4, 8]), (9, 1, [0])],
)
def test_thinning_keeps_every_kth_row(count: int, most: int, kept: list[int]):
    A, B = rows(count), rows(1, seed=1)
    kernel, _ = linear(pde=A, bc=B)
    thin = thinned(kernel, most)
    torch.testing.assert_close(thin["pde"], A[kept] @ A[kept].mT)
    torch.testing.assert_close(thin["pde", "bc"], A[kept] @ B.mT)
    assert (thin is kernel) == (count <= most)
    assert thin.rows("pde") == len(kept) <= most


def test_traces_are_of_all_rows_and_spectra_of_those_kept():
    A = rows(10)
    kernel, theta = linear(pde=A)
    m = measure(kernel, 3, drift=KernelDrift(), params={"theta": theta}, max_points=5)
    assert (m.step, m.rows, m.n_params) == (3, {"pde": 10}, 4)
    assert m.traces["pde"] == pytest.approx(float(A.square().sum()))
    assert m.spectra["pde"].trace == pytest.approx(float(A[::2].square().sum()))
    assert m.max_stable_lr is None


@pytest.mark.parametrize(("count", "most"), [(10, 10), (11, 10), (100, 7), (5, 1), (3, 8), (0, 2)])
def test_strata_part_the_rows_evenly(count: int, most: int):
    drawn = stratified_rows(count, most, seed=5)
    if count <= most:
        assert drawn.tolist() == list(range(count))
        return
    bounds = [i * count // most for i in range(most + 1)]
    for index, low, high in zip(drawn.tolist(), bounds[:-1], bounds[1:], strict=True):
        assert low <= index < high
    assert drawn.dtype == torch.int64


def test_strata_keep_every_part_of_a_joined_batch():
    kept = stratified_rows(1300, 13, seed=0)
    assert [int(((kept >= a) & (kept < a + 100)).sum()) for a in range(0, 1300, 100)] == [1] * 13


def test_every_row_of_a_stratum_is_drawn_as_often():
    drawn = torch.stack([stratified_rows(12, 3, seed=s) for s in range(2000)])
    shares = torch.stack([(drawn == row).double().sum(1).mean() for row in range(12)])
    torch.testing.assert_close(
        shares, torch.full((12,), 0.25, dtype=torch.float64), atol=0.04, rtol=0
    )


def test_strata_are_drawn_from_a_generator_of_their_own():
    state = torch.get_rng_state()
    first = stratified_rows(1000, 30, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(stratified_rows(1000, 30, seed=1), first)
    assert not torch.equal(stratified_rows(1000, 30, seed=2), first)


def test_no_rows_cannot_be_kept():
    with pytest.raises(ValueError, match="max_points is 0; expected 1 or more"):
        stratified_rows(10, 0, seed=0)


def test_kernel_of_some_rows_in_the_order_given():
    A, B = rows(6), rows(2, seed=1)
    kernel, _ = linear(pde=A, bc=B)
    kept = [4, 0, 5]
    some = kernel_of_rows(kernel, {"pde": torch.tensor(kept)})
    torch.testing.assert_close(some["pde"], A[kept] @ A[kept].mT)
    torch.testing.assert_close(some["pde", "bc"], A[kept] @ B.mT)
    assert (some.rows("pde"), some.rows("bc")) == (3, 2)


def test_factors_of_weights_are_taken_row_by_row():
    net = torch.nn.Linear(30, 30).double()
    kernel = empirical_ntk(net(rows(8).repeat(1, 8)[:, :30]).tanh()[:, :2], net)
    kept = torch.tensor([3, 0, 9])
    expected = kernel["residual"][kept][:, kept]
    torch.testing.assert_close(kernel_of_rows(kernel, {"residual": kept})["residual"], expected)


def test_a_trace_is_the_same_before_and_after_its_block_is_formed():
    kernel, _ = linear(pde=rows(10))
    before, diagonal = kernel.trace("pde"), kernel.diagonal("pde")
    block = kernel["pde"]
    assert kernel.trace("pde") == pytest.approx(before, rel=1e-14)
    kernel.diagonal("pde").zero_()
    torch.testing.assert_close(block.diagonal(), diagonal)


# --- Measurement


def test_rows_kept_by_index_take_the_place_of_a_stride():
    A, kept = rows(10), [0, 3, 9]
    kernel, theta = linear(pde=A)
    D = {"pde": torch.linspace(1, 2, 10, dtype=torch.float64)}
    m = measure(
        kernel,
        0,
        drift=KernelDrift(),
        params={"theta": theta},
        curvature=D,
        max_points=2,
        rows_kept={"pde": torch.tensor(kept)},
    )
    root = D["pde"][kept].sqrt()[:, None] * A[kept]
    top = torch.linalg.eigvalsh(root @ root.mT)[-1] * 10 / 3
    assert m.max_stable_lr == pytest.approx(2 / float(top), rel=1e-12)
    assert m.spectra["pde"].trace == pytest.approx(float(A[kept].square().sum()))
    assert (m.rows, m.traces["pde"]) == ({"pde": 10}, pytest.approx(float(A.square().sum())))


def grouped(groups: Mapping[str, str]) -> Measurement:
    """r_pde = A theta + c x, r_bc = B theta; d r_pde / d c is x."""
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    c = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    params = {"theta": theta, "c": c, "lam": torch.ones(3, requires_grad=True)}
    residuals = {"pde": rows(3) @ theta + c * x, "bc": rows(2, seed=1) @ theta}
    kernel = empirical_ntk(residuals, params)
    return measure(kernel, 0, drift=KernelDrift(), params=params, groups=groups)


def test_traces_of_groups_of_parameters():
    m = grouped({"theta": "network", "c": "inverse", "lam": "loss_weights"})
    network = {"pde": rows(3).square().sum().item(), "bc": rows(2, seed=1).square().sum().item()}
    assert list(m.group_traces) == ["network", "inverse"]  # no residual has loss weights
    assert m.group_traces["network"] == pytest.approx(network)
    assert m.group_traces["inverse"] == pytest.approx({"pde": 14.0, "bc": 0.0})
    assert m.traces == pytest.approx(network | {"pde": network["pde"] + 14.0})
    assert {"parameters_network", "parameters_inverse", "parameters_loss_weights"} < set(m.drift)


@pytest.mark.parametrize(
    "groups",
    [{}, {"theta": "network", "c": "network"}, {"theta": "network", "lam": "loss_weights"}],
)
def test_a_single_group_has_no_traces_of_its_own(groups: dict[str, str]):
    m = grouped(groups)
    assert m.group_traces == {}
    assert m.traces["pde"] == pytest.approx(rows(3).square().sum().item() + 14.0)


def test_without_a_kernel_there_are_still_parameters_and_weights():
    m = measure(
        None,
        7,
        drift=KernelDrift(),
        params={"theta": torch.ones(4)},
        curvature={"pde": torch.ones(2)},
        effective_weights={"pde": 3.0},
        undefined=("pde",),
    )
    assert (m.step, m.n_params, m.rows, m.traces, m.spectra) == (7, 4, {}, {}, {})
    assert (m.max_stable_lr, m.certificate, m.drift) == (None, None, {"parameters": 0.0})
    assert (m.undefined, m.effective_weights) == (("pde",), {"pde": 3.0})


@pytest.mark.parametrize(("points", "at_once"), [(BATCH, False), (PROBE, True)])
def test_only_on_a_probe_drift_is_known_at_once(points: str, at_once: bool):
    kernel, theta = linear(pde=rows(3))
    drift = KernelDrift()
    options: dict[str, Any] = {"drift": drift, "params": {"theta": theta}, "points": points}
    first, second = (measure(kernel, n, **options) for n in (0, 1))
    assert ("pde" in first.drift) == ("kernel" in first.drift) == at_once
    assert second.drift == {"pde": 0.0, "kernel": 0.0, "parameters": 0.0}
    assert first.points == points


def test_no_step_size_where_a_term_has_no_curvature():
    kernel, theta = linear(pde=rows(3), bc=rows(2))
    options: dict[str, Any] = {"drift": KernelDrift(), "params": {"theta": theta}}
    half = {"pde": torch.ones(3)}
    assert measure(kernel, 0, curvature=half, **options).max_stable_lr is None
    both = measure(kernel, 0, curvature=half | {"bc": torch.ones(2)}, **options)
    top = torch.linalg.eigvalsh(kernel.matrix())[-1]
    assert both.max_stable_lr == pytest.approx(2 / float(top), rel=1e-12)


def test_points_that_moved_are_named():
    kernel, theta = linear(pde=rows(3), bc=rows(2))
    options: dict[str, Any] = {"drift": KernelDrift(), "params": {"theta": theta}}
    measure(kernel, 0, fingerprints={"pde": "a", "bc": "c"}, **options)
    m = measure(kernel, 1, fingerprints={"pde": "b", "bc": "c"}, **options)
    assert m.moved_points == ("pde",)
    assert m.drift == {"bc": 0.0, "parameters": 0.0}


# --- Step size


def test_gradient_descent_is_stable_just_below_the_step_size_and_not_above():
    matrices, weights = {"pde": rows(6), "bc": rows(3, seed=1)}, {"pde": 1.0, "bc": 20.0}
    kernel, theta = linear(**matrices)
    loss = sum(weights[n] * (A @ theta).square().mean() for n, A in matrices.items())
    terms = find_terms(cast("Tensor", loss), names=["pde", "bc"])
    limit = max_stable_lr(kernel, kernel, cast("dict[str, Tensor]", curvature(terms, {})))

    def after(lr: float) -> float:
        x = torch.ones(4, dtype=torch.float64)
        for _ in range(3000):
            gradient = sum(2 * weights[n] / len(A) * A.mT @ (A @ x) for n, A in matrices.items())
            x = x - lr * cast("Tensor", gradient)
        return float(x.norm())

    assert after(0.99 * limit) < 2.0
    assert after(1.01 * limit) > 1e6


def test_factors_enter_the_curvature():
    _, theta = linear(pde=rows(6))
    loss = 3 * (rows(6) @ theta).square().mean()
    (D,) = cast(
        "dict[str, Tensor]", curvature(find_terms(loss, names=["pde"]), {"pde": 5.0})
    ).values()
    torch.testing.assert_close(D, torch.full((6,), 2 * 3 / 6 * 5, dtype=torch.float64))


@pytest.mark.parametrize(
    "loss",
    [
        lambda r: r.abs().mean(),
        lambda r: -r.square().mean(),
        lambda r: torch.nn.functional.huber_loss(r, 0 * r),
        lambda r: math.inf * r.square().mean(),
        lambda r: math.nan * r.square().mean(),
    ],
    ids=["abs", "negated", "huber", "inf", "nan"],
)
def test_no_curvature_without_a_descending_square(loss: Callable[[Tensor], Tensor]):
    _, theta = linear(pde=rows(6))
    both = loss(rows(6) @ theta) + (rows(2) @ theta).square().mean()
    terms: dict[str, Term] = find_terms(both, check=False)
    assert len(terms) == 2
    assert curvature(terms, {}) is None


@pytest.mark.parametrize("uniform", [True, False])
def test_rates_are_those_of_each_term_alone(uniform: bool):
    A, B = rows(3), rows(6, seed=1)
    kernel, theta = linear(pde=A, bc=B)
    D = {"pde": torch.full((3,), 0.5).double() if uniform else torch.tensor([1.0, 2.0, 5.0])}
    m = measure(kernel, 0, drift=KernelDrift(), params={"theta": theta}, curvature=D)
    operator = A @ A.mT @ D["pde"].double().diag()  # K D, not symmetric
    eigenvalues = torch.linalg.eigvals(operator).real.sort().values
    assert m.rates == {"pde": pytest.approx((float(eigenvalues[-1]), float(eigenvalues[0])))}
    assert m.max_stable_lr is None  # bc has no D


def test_rates_are_of_modes_above_the_noise_and_of_rows_that_stand_for_others():
    A = rows(10)  # of rank 4
    kernel, theta = linear(pde=A)
    D = {"pde": torch.full((10,), 0.2, dtype=torch.float64)}
    m = measure(kernel, 0, drift=KernelDrift(), params={"theta": theta}, curvature=D, max_points=5)
    eigenvalues = torch.linalg.eigvalsh(A[::2] @ A[::2].mT)[1:]  # 4 of 5
    fast, slow = m.rates["pde"]
    assert fast == pytest.approx(0.4 * float(eigenvalues[-1]), rel=1e-10)
    assert slow == pytest.approx(0.4 * float(eigenvalues[0]), rel=1e-8)


def test_a_kernel_or_a_weight_of_zero_has_no_rates():
    kernel, theta = linear(pde=0 * rows(3), bc=rows(2))
    D = {"pde": torch.ones(3).double(), "bc": torch.zeros(2).double()}
    m = measure(kernel, 0, drift=KernelDrift(), params={"theta": theta}, curvature=D)
    assert m.rates == {}


def test_lost_rank_is_recognised():
    A = rows(3)
    kernel, theta = linear(pde=A, bc=torch.cat([A[:2], A[:2]]))
    m = measure(kernel, 0, drift=KernelDrift(), params={"theta": theta})
    assert m.definiteness["pde"].must_decrease
    assert m.definiteness["bc"].duplicates == ((0, 2), (1, 3))


@pytest.mark.parametrize("shape", [(12,), (3, 4)])
def test_a_residual_broadcast_by_accident_is_recognised_by_its_shape(shape: tuple[int, ...]):
    a, b = rows(3), rows(4, seed=1)
    matrix = (a[:, None] - b).flatten(0, 1)
    kernel, theta = linear(pde=matrix)
    residual = (matrix @ theta).reshape(shape)
    m = measure(
        kernel, 0, drift=KernelDrift(), params={"theta": theta}, residuals={"pde": residual}
    )
    assert m.definiteness["pde"].broadcast == ({"pde": (3, 4)} if len(shape) == 2 else {})


def network_rows(points: Tensor) -> tuple[NTK, nn.Module]:
    """Kernel of u - u_x of a network with two hidden layers."""
    torch.manual_seed(3)
    layers = [nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1)]
    net, x = nn.Sequential(*layers).to(points.dtype), points[:, None].requires_grad_()
    u = net(x)
    (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return empirical_ntk({"pde": u - u_x}, net), net


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicated_points_are_found_among_the_rows_left_out(dtype: torch.dtype):
    """Every third row is kept; the repeats are none of these."""
    points = torch.linspace(-1, 1, 1100, dtype=dtype)
    points[1:301:3] = points[2:302:3]
    points[4:904:30] = points[7]  # 30 of one kind, some of them in pairs already
    different = len(points.unique())
    kernel, net = network_rows(points)
    params = dict(net.named_parameters())
    m = measure(kernel, 0, drift=KernelDrift(), params=params)
    assert m.definiteness["pde"].duplicates == ()
    assert m.repeated == {"pde": 1100 - different}
    said = f"duplicated points (1100 rows, {different} different ones)"
    assert said in summary(m)
    unsearched = replace(m.definiteness["pde"], searched=None)
    said = f"pde: duplicated points, 1100 rows of which {different} are different"
    assert said in summary(replace(m, definiteness={"pde": unsearched}))
    assert said not in summary(m)
    whole = measure(kernel, 0, drift=KernelDrift(), params=params, max_points=1100)
    assert whole.repeated == {}
    assert whole.definiteness["pde"].distinct == different


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_different_points_are_not_called_duplicated(dtype: torch.dtype):
    points = torch.linspace(-1, 1, 5000, dtype=dtype)
    kernel, net = network_rows(points)
    m = measure(kernel, 0, drift=KernelDrift(), params=dict(net.named_parameters()), max_points=9)
    if dtype == torch.float64:
        assert m.repeated == {"pde": 0}
    assert "duplicated" not in summary(m)


@pytest.mark.parametrize("max_points", [512, 20])
@pytest.mark.parametrize("order", ["repeated", "tiled"])
@pytest.mark.parametrize("shape", [(100,), (100, 1)])
def test_repeats_on_purpose_are_no_accidental_broadcast(
    shape: tuple[int, ...], order: str, max_points: int
):
    """100 rows of a vector are ten points with ten targets each, not a (10, 10) matrix."""
    points = rows(10)
    matrix = points.repeat_interleave(10, 0) if order == "repeated" else points.repeat(10, 1)
    kernel, theta = linear(pde=matrix)
    options: dict[str, Any] = {"params": {"theta": theta}, "max_points": max_points}
    residual = (matrix @ theta).reshape(shape)
    m = measure(kernel, 0, drift=KernelDrift(), residuals={"pde": residual}, **options)
    assert m.definiteness["pde"].broadcast == {}
    assert "duplicated points" in m.definiteness["pde"].cause
    unknown = measure(kernel, 0, drift=KernelDrift(), **options)
    assert unknown.definiteness["pde"].broadcast == {"pde": (10, 10)}
    square = {"pde": residual.reshape(10, 10)}
    broadcast = measure(kernel, 0, drift=KernelDrift(), residuals=square, **options)
    assert broadcast.definiteness["pde"].broadcast == {"pde": (10, 10)}


def test_rows_kept_stand_for_those_left_out():
    A = rows(3).repeat_interleave(2, dim=0)  # every row twice: thinning by two loses nothing
    kernel, _ = linear(pde=A)
    D = {"pde": torch.full((6,), 0.5, dtype=torch.float64)}
    exact = max_stable_lr(kernel, kernel, D)
    assert max_stable_lr(thinned(kernel, 3), kernel, D) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("size", [DIRECT - 1, DIRECT + 1, 3 * DIRECT])
@pytest.mark.parametrize("decay", [1.0, 0.1, 1e-4], ids=["steep", "slow", "flat"])
def test_largest_eigenvalue_is_that_of_the_direct_method(size: int, decay: float):
    values = torch.exp(-decay * torch.arange(size, dtype=torch.float64))
    generator = torch.Generator().manual_seed(size)
    basis = torch.randn(size, size, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(basis).Q
    matrix = 1e6 * basis @ torch.diag(values) @ basis.mT
    top = largest_eigenvalue(matrix)
    assert top == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-10)
    assert top == pytest.approx(1e6, rel=1e-10)
    assert largest_eigenvalue(matrix) == top


@pytest.mark.parametrize("scale", [1e-290, 1e-30, 1e30, 1e290])
def test_largest_eigenvalue_at_any_scale(scale: float):
    vector = torch.linspace(1, 2, 2 * DIRECT, dtype=torch.float64)
    top = largest_eigenvalue(scale * torch.outer(vector, vector))
    assert top == pytest.approx(scale * float(vector.square().sum()), rel=1e-12)


@pytest.mark.parametrize("size", [2, 2 * DIRECT])
def test_largest_eigenvalue_of_odd_matrices(size: int):
    assert largest_eigenvalue(torch.zeros(size, size)) == 0.0
    assert largest_eigenvalue(torch.eye(size)) == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(ValueError, match="NaN or inf"):
        largest_eigenvalue(torch.full((size, size), math.nan))


def test_largest_eigenvalue_where_lanczos_does_not_converge(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise scipy.sparse.linalg.ArpackNoConvergence("no", [], [])

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", fail)
    matrix = torch.diag(torch.linspace(1, 7, 2 * DIRECT, dtype=torch.float64))
    assert largest_eigenvalue(matrix) == pytest.approx(7.0, rel=1e-14)


LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], float, float | None]] = {
    "mean": (lambda r: r.square().mean(), 1.0, 1.0),
    "sum": (lambda r: r.square().sum(), 6.0, 6.0),
    "scaled": (lambda r: 100 * torch.nn.functional.mse_loss(r, r * 0), 100.0, 100.0),
    "abs": (lambda r: 3 * r.abs().mean(), 3.0, 3.0),
    "norm": (lambda r: 5 * torch.linalg.vector_norm(r), 5.0, 5.0),
    "norms": (lambda r: torch.linalg.vector_norm(r.view(3, 2), dim=1).mean(), 1.0, 1.0),
    "pointwise": (lambda r: (torch.arange(6.0).double() * r.square()).mean(), 2.5, None),
    "negated": (lambda r: -r.square().mean(), -1.0, -1.0),
    "nan": (lambda r: math.nan * r.square().mean(), math.nan, None),
}


@pytest.mark.parametrize(("loss", "total", "uniform"), LOSSES.values(), ids=LOSSES)
def test_weights_of_a_term(loss: Callable[[Tensor], Tensor], total: float, uniform: float | None):
    r = rows(6) @ torch.ones(4, dtype=torch.float64, requires_grad=True)
    (term,) = find_terms(loss(r), check=False).values()
    weights = effective_weights({"a": term}, {"a": 0.5})
    assert weights == pytest.approx({"a": 0.5 * total}, nan_ok=True)
    assert uniform_weight(term) == (None if uniform is None else pytest.approx(uniform))


def test_uniform_weights_in_float32_are_uniform_up_to_rounding():
    r = rows(600).float() @ torch.ones(4, requires_grad=True)
    (term,) = find_terms((r / 3).square().mean() / 7).values()
    assert uniform_weight(term) == pytest.approx(1 / 7, rel=1e-6)


def test_curvature_on_other_points_gives_the_same_step_size():
    A = rows(3)
    few, many = linear(pde=A)[0], linear(pde=A.repeat(4, 1))[0]  # the same points, four times
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    terms = find_terms(5 * (A.repeat(4, 1) @ theta).square().mean(), names=["pde"])
    exact = max_stable_lr(many, many, cast("dict[str, Tensor]", curvature(terms, {})))
    D = curvature_of_rows({"pde": uniform_weight(terms["pde"])}, {"pde": 3})
    assert max_stable_lr(few, few, cast("dict[str, Tensor]", D)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("sums", [{}, {"pde": None}, {"pde": -1.0}, {"bc": 1.0}])
def test_no_curvature_on_other_points_without_a_weight(sums: dict[str, float | None]):
    assert curvature_of_rows(sums, {"pde": 3}) is None


def test_zero_kernel_bounds_no_step_size():
    kernel, _ = linear(pde=torch.zeros(2, 4, dtype=torch.float64))
    assert max_stable_lr(kernel, kernel, {"pde": torch.ones(2)}) == math.inf


# --- Drift


def test_drift_of_blocks_whole_and_parameters():
    drift, theta = KernelDrift(), torch.tensor([3.0, 4.0])
    first, _ = linear(pde=rows(3), bc=rows(2, seed=1))
    second, _ = linear(pde=2 * rows(3), bc=rows(2, seed=1))
    assert set(drift.update(first, {"theta": theta}, fixed=True).values()) == {0.0}
    now = drift.update(second, {"theta": torch.tensor([3.0, 5.0])}, fixed=True)
    assert now["pde"] == pytest.approx(3.0)  # 4 K - K
    assert now["bc"] == 0.0
    whole = float((second.matrix() - first.matrix()).norm() / first.matrix().norm())
    assert now["kernel"] == pytest.approx(whole)
    assert now["parameters"] == pytest.approx(0.2)


def test_drift_leaves_out_other_terms_and_other_shapes():
    drift, theta = KernelDrift(), {"theta": torch.ones(4)}

    def tags(**matrices: Tensor) -> set[str]:
        return set(drift.update(linear(**matrices)[0], theta, fixed=True))

    assert tags(pde=rows(3), bc=rows(2)) == {"pde", "bc", "kernel", "parameters"}
    assert tags(pde=rows(3)) == {"pde", "parameters"}
    assert tags(pde=rows(4), bc=rows(2)) == {"bc", "parameters"}
    assert tags(pde=rows(3), ic=rows(2)) == {"pde", "ic", "parameters"}  # yet another whole
    third = drift.update(linear(pde=rows(3), bc=rows(2))[0], theta, fixed=True)
    assert third == {"pde": 0.0, "bc": 0.0, "kernel": 0.0, "parameters": 0.0}


def test_terms_called_like_the_whole_do_not_hide_it():
    kernel, theta = linear(kernel=rows(3), parameters=rows(2), parameters_a=rows(2, seed=1))
    groups = {"theta": "a", "c": "b"}
    params = {"theta": theta, "c": torch.ones(1)}
    drift = KernelDrift().update(kernel, params, fixed=True, groups=groups)
    own = {"kernel", "parameters", "parameters_a"}
    assert set(drift) == own | {f"{name}_" for name in own} | {"parameters_b"}


PDE = {"pde": "p0", "bc": "b0"}


def unfixed(fingerprints: list[Mapping[str, str | None] | None]) -> tuple[list[set[str]], Any]:
    """Tags of successive measurements of two terms, and the instance that made them."""
    kernel, theta = linear(pde=rows(3), bc=rows(2, seed=1))
    drift = KernelDrift()
    tags = [set(drift.update(kernel, {"theta": theta}, prints)) for prints in fingerprints]
    return [tag - {"parameters"} for tag in tags], drift


def test_on_a_batch_kernels_have_drift_from_the_second_measurement_on():
    tags, drift = unfixed([PDE, PDE, PDE])
    assert tags == [set(), {"pde", "bc", "kernel"}, {"pde", "bc", "kernel"}]
    assert drift.moved_points == ()


def test_points_that_changed_once_have_no_drift_for_good():
    moved = PDE | {"pde": "p1"}
    tags, drift = unfixed([PDE, PDE, moved, PDE])
    assert tags == [set(), {"pde", "bc", "kernel"}, {"bc"}, {"bc"}]
    assert drift.moved_points == ("pde",)
    assert [(a, b) for a, b, _ in drift.state_dict()["blocks"]] == [("bc", "bc")]


@pytest.mark.parametrize(
    "prints",
    [[None, None], [{}, PDE], [PDE, {"pde": None}], [PDE, None, PDE]],
    ids=["no_fingerprints", "told_later", "told_no_more", "not_told_between"],
)
def test_points_that_cannot_be_told_pass_for_unchanged(prints: list[Any]):
    tags, drift = unfixed(prints)
    assert tags[1:] == [{"pde", "bc", "kernel"}] * (len(prints) - 1)
    assert drift.moved_points == ()


def test_what_was_told_first_counts_though_it_was_not_told_at_once():
    tags, drift = unfixed([None, PDE, {"pde": "p1", "bc": "b0"}])
    assert tags[2] == {"bc"}
    assert drift.moved_points == ("pde",)


def test_another_number_of_rows_is_another_set_of_points():
    theta, drift = {"theta": torch.ones(4)}, KernelDrift()
    for count in (3, 4, 3, 3):
        found = drift.update(linear(pde=rows(count), bc=rows(2))[0], theta)
    assert set(found) == {"bc", "parameters"}
    assert drift.moved_points == ("pde",)


def test_a_probe_is_not_asked_for_its_points():
    kernel, theta = linear(pde=rows(3))
    drift = KernelDrift()
    for prints in ({"pde": "a"}, {"pde": "b"}):
        found = drift.update(kernel, {"theta": theta}, prints, fixed=True)
        assert found["pde"] == found["kernel"] == 0.0
    assert drift.moved_points == ()


def test_drift_of_groups_of_parameters():
    start = {"w": [3.0, 4.0], "b": [2.0], "nu": [0.5], "lam": [0.0]}
    later = {"w": [3.0, 5.0], "b": [2.0], "nu": [0.25], "lam": [1.0]}
    groups = {"w": "network", "b": "network", "nu": "inverse", "lam": "loss_weights"}
    drift = KernelDrift()

    def update(values: dict[str, list[float]]) -> dict[str, float]:
        params = {name: torch.tensor(entries) for name, entries in values.items()}
        return drift.update(None, params, groups=groups)

    update(start)
    found = update(later)
    assert found["parameters_network"] == pytest.approx(1 / math.sqrt(29))
    assert found["parameters_inverse"] == pytest.approx(0.5)
    assert math.isnan(found["parameters_loss_weights"])
    assert found["parameters"] == pytest.approx(math.sqrt(1 + 0.0625 + 1) / math.sqrt(29.25))


def test_a_single_group_says_nothing_new():
    groups = {"a": "network", "b": "network"}
    params = {"a": torch.ones(1), "b": torch.ones(2)}
    assert KernelDrift().update(None, params, groups=groups) == {"parameters": 0.0}


def test_drift_of_parameters_needs_the_same_parameters():
    drift = KernelDrift()
    drift.update(None, {"a": torch.ones(2)})
    assert drift.update(None, {"a": torch.ones(3)}) == {}
    assert drift.update(None, {"a": torch.ones(2), "b": torch.ones(1)}) == {}


@pytest.mark.parametrize("fixed", [True, False])
def test_drift_goes_on_from_a_checkpoint(fixed: bool):
    theta, prints = {"t": torch.ones(2)}, {"pde": "p", "bc": "b", "ic": "i"}
    first = linear(pde=rows(3), bc=rows(2, seed=1), ic=rows(1))[0]
    second = linear(pde=2 * rows(3), bc=rows(2, seed=2), ic=rows(1))[0]
    drift, other, file = KernelDrift(), KernelDrift(), io.BytesIO()
    drift.update(first, theta, prints, fixed=fixed)
    drift.update(first, theta, prints | {"ic": "moved"}, fixed=fixed)
    torch.save(drift.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.moved_points == drift.moved_points == (() if fixed else ("ic",))
    found = other.update(second, theta, prints, fixed=fixed)
    assert found == drift.update(second, theta, prints, fixed=fixed)
    assert found["pde"] == pytest.approx(3.0)
    assert ("kernel" in found) == fixed


def test_no_block_is_kept_twice():
    kernel, theta = linear(pde=rows(3), bc=rows(2))
    drift = KernelDrift()
    drift.update(kernel, {"theta": theta})
    kept = sum(block.numel() for *_, block in drift.state_dict()["blocks"])
    assert kept == 3 * 3 + 2 * 2 + 3 * 2


def test_what_was_seen_first_is_a_copy():
    kernel, theta = linear(pde=rows(3))
    drift = KernelDrift()
    drift.update(kernel, {"theta": theta}, fixed=True)
    kernel["pde"].mul_(2)
    with torch.no_grad():
        theta.mul_(3)
    found = drift.update(kernel, {"theta": theta}, fixed=True)
    assert found["pde"] == pytest.approx(1.0)
    assert found["parameters"] == pytest.approx(2.0)


def test_the_module_offers_what_it_defines_and_no_argument_hides_a_name_of_it():
    module = importlib.import_module("pinn_ntk.diagnostics.measurement")
    arguments = set(inspect.signature(measure).parameters)
    assert set(module.__all__) == {"BATCH", "PROBE", "Measurement", "measure"}
    assert not arguments & vars(module).keys()
