"""What is taken off a kernel: rows, traces, step sizes and drift. No Trainer."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from pinn_ntk import NTK, Term, empirical_ntk, find_terms
from pinn_ntk.kernel_drift import KernelDrift
from pinn_ntk.measurement import measure
from pinn_ntk.rows import thinned
from pinn_ntk.step_size import (
    curvature,
    max_stable_lr,
)


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
    ],
    ids=["abs", "negated", "huber"],
)
def test_no_curvature_without_a_descending_square(loss: Callable[[Tensor], Tensor]):
    _, theta = linear(pde=rows(6))
    both = loss(rows(6) @ theta) + (rows(2) @ theta).square().mean()
    terms: dict[str, Term] = find_terms(both)
    assert len(terms) == 2
    assert curvature(terms, {}) is None


def test_rows_kept_stand_for_those_left_out():
    A = rows(3).repeat_interleave(2, dim=0)  # every row twice: thinning by two loses nothing
    kernel, _ = linear(pde=A)
    D = {"pde": torch.full((6,), 0.5, dtype=torch.float64)}
    exact = max_stable_lr(kernel, kernel, D)
    assert max_stable_lr(thinned(kernel, 3), kernel, D) == pytest.approx(exact, rel=1e-12)


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
