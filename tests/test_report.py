"""What is taken off a kernel, and how it is told: numbers, words, a picture. No Trainer."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from pinn_ntk import NTK, Spectrum, Term, empirical_ntk, find_terms
from pinn_ntk.measurement import (
    KernelDrift,
    Measurement,
    curvature,
    max_stable_lr,
    measure,
    thinned,
)
from pinn_ntk.report import MAX_LINES, history_figure, pixels, scalars, summary


def linear(**matrices: Tensor) -> tuple[NTK, Tensor]:
    """Kernel of residuals A theta, whose Jacobian is A."""
    theta = torch.ones(
        next(iter(matrices.values())).shape[1], dtype=torch.float64, requires_grad=True
    )
    return empirical_ntk({name: A @ theta for name, A in matrices.items()}, {"theta": theta}), theta


def rows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator, dtype=torch.float64)


def spectrum(*eigenvalues: float, floor: float = 1e-12) -> Spectrum:
    return Spectrum(torch.tensor(eigenvalues, dtype=torch.float64), floor)


def measured(**changes: Any) -> Measurement:
    start: dict[str, Any] = {
        "step": 20,
        "rows": {"pde": 3, "bc": 2},
        "n_params": 7,
        "traces": {"pde": 111.0, "bc": 3.0},
        "spectra": {"pde": spectrum(100.0, 10.0, 1e-14), "bc": spectrum(2.0, 1.0)},
        "drift": {"pde": 0.2, "bc": 0.01, "kernel": 0.19, "parameters": 0.05},
        "max_stable_lr": 0.004,
        "certificate": 3e-8,
    }
    return Measurement(**(start | changes))


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
    assert set(drift.update(first, {"theta": theta}).values()) == {0.0}
    now = drift.update(second, {"theta": torch.tensor([3.0, 5.0])})
    assert now["pde"] == pytest.approx(3.0)  # 4 K - K
    assert now["bc"] == 0.0
    whole = float((second.matrix() - first.matrix()).norm() / first.matrix().norm())
    assert now["kernel"] == pytest.approx(whole)
    assert now["parameters"] == pytest.approx(0.2)


def test_drift_leaves_out_other_terms_and_other_shapes():
    drift, theta = KernelDrift(), {"theta": torch.ones(4)}
    drift.update(linear(pde=rows(3), bc=rows(2))[0], theta)
    assert set(drift.update(linear(pde=rows(3))[0], theta)) == {"pde", "parameters"}
    assert set(drift.update(linear(pde=rows(4), bc=rows(2))[0], theta)) == {"bc", "parameters"}
    renamed = drift.update(linear(pde=rows(3), ic=rows(2))[0], theta)
    assert set(renamed) == {"pde", "ic", "parameters"}  # of the same shape, yet another whole
    third = drift.update(linear(pde=rows(3), bc=rows(2))[0], theta)
    assert third == {"pde": 0.0, "bc": 0.0, "kernel": 0.0, "parameters": 0.0}


def test_terms_called_like_the_whole_do_not_hide_it():
    kernel, theta = linear(kernel=rows(3), parameters=rows(2))
    drift = KernelDrift().update(kernel, {"theta": theta})
    assert set(drift) == {"kernel_", "parameters_", "kernel", "parameters"}


def test_drift_goes_on_from_a_saved_state():
    first, second, theta = linear(pde=rows(3))[0], linear(pde=2 * rows(3))[0], {"t": torch.ones(2)}
    drift, other = KernelDrift(), KernelDrift()
    drift.update(first, theta)
    other.load_state_dict(drift.state_dict())
    assert other.update(second, theta) == drift.update(second, theta)


# --- Scalars


def test_scalars_by_tag():
    assert scalars(measured()) == {
        "ntk/trace/pde": 111.0,
        "ntk/trace/bc": 3.0,
        "ntk/lambda_max/pde": 100.0,
        "ntk/lambda_max/bc": 2.0,
        "ntk/effective_rank/pde": pytest.approx(110**2 / 10_100),
        "ntk/effective_rank/bc": pytest.approx(9 / 5),
        "ntk/log10_condition/pde": pytest.approx(1.0),  # 1e-14 is below the floor
        "ntk/log10_condition/bc": pytest.approx(math.log10(2)),
        "ntk/drift/pde": 0.2,
        "ntk/drift/bc": 0.01,
        "ntk/drift/kernel": 0.19,
        "ntk/drift/parameters": 0.05,
        "ntk/max_stable_lr": 0.004,
        "ntk/certificate": 3e-8,
    }


def test_what_is_not_finite_or_not_measured_is_left_out():
    m = measured(
        spectra={"pde": spectrum(0.0, 0.0, floor=0.0)},
        drift={"pde": math.nan, "parameters": 0.0},
        max_stable_lr=math.inf,
        certificate=None,
    )
    tags = set(scalars(m))
    assert tags == {
        *("ntk/trace/pde", "ntk/trace/bc", "ntk/lambda_max/pde", "ntk/effective_rank/pde"),
        "ntk/drift/parameters",
    }


# --- Words


def test_summary_has_a_row_a_term():
    lines = summary(measured()).splitlines()
    assert lines[0] == "**Kernel at step 20**"
    assert "| pde | 3 | 111 | 100 | 1.2 | 1.0e+01 | 0.2 |" in lines
    assert "| bc | 2 | 3 | 2 | 1.8 | 2.0e+00 | 0.01 |" in lines


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "that of pde is 37 times that of bc, so with equal weights bc lags behind"),
        ({}, "Weights that even the traces out: pde 1.03, bc 38."),
        ({"traces": {"pde": 2.0, "bc": 3.0}}, "within a factor of 1.5"),
        ({}, "pde: 1.2 directions carry the kernel, 2 of 3 stand above the rounding noise; along"),
        ({}, "bc: 1.8 directions carry the kernel, 2 of 2 stand above the rounding noise."),
        ({}, "the kernel has moved by 0.19 of its norm since the first measurement"),
        ({"drift": {"kernel": 0.09, "parameters": 0.1}}, "nearly constant"),
        ({"drift": {"kernel": 0.3, "parameters": 0.1}}, "in between"),
        ({"drift": {"kernel": 0.7, "parameters": 0.1}}, "no longer holds"),
        ({}, "plain gradient descent on this loss is unstable above 0.004"),
        ({}, "agrees with ordinary backward passes to 3e-08"),
        ({"certificate": None}, "was not checked against ordinary backward passes"),
        (
            {"rows": {"pde": 9, "bc": 2}},
            "are those of 3 of its 9 rows, evenly strided (max_points=4)",
        ),
    ],
)
def test_summary_says_what_the_numbers_mean(changes: dict[str, Any], said: str):
    assert said in summary(measured(**changes), max_points=4)


@pytest.mark.parametrize(
    ("changes", "unsaid"),
    [
        ({"drift": {"kernel": 0.0, "parameters": 0.0}}, "Drift"),  # the first measurement
        ({"drift": {"pde": 0.1, "parameters": 0.1}}, "Drift"),
        ({"max_stable_lr": None}, "Step size"),
        ({"traces": {"pde": 1.0}, "spectra": {"pde": spectrum(1.0)}}, "Traces"),
        ({"traces": {"pde": 1.0, "bc": 0.0}}, "Traces"),
        ({}, "evenly strided"),
    ],
)
def test_summary_is_silent_on_what_is_not_known(changes: dict[str, Any], unsaid: str):
    assert unsaid not in summary(measured(**changes))


# --- Picture


def history(count: int) -> list[tuple[int, Spectrum]]:
    return [(10 * i, spectrum(2.0 + i, 1.0, 1e-13)) for i in range(count)]


def test_figure_draws_what_is_above_the_floor_from_dark_to_bright():
    figure = history_figure({"pde": history(3), "bc": [(0, spectrum(5.0))]})
    pde, bc, bar = figure.axes
    assert [pde.get_title(), bc.get_title(), bar.get_ylabel()] == ["pde", "bc", "training step"]
    *lines, floor = pde.lines
    for line, (_, drawn) in zip(lines, history(3), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2])
        np.testing.assert_array_equal(line.get_ydata(), drawn.eigenvalues[:2].numpy())
    brightness = [sum(cast("tuple[float, ...]", line.get_color())[:3]) for line in lines]
    assert brightness == sorted(brightness)
    assert brightness[0] < brightness[-1] / 1.5
    assert list(cast("Any", floor.get_ydata())) == [1e-12, 1e-12]
    assert pde.get_yscale() == "log"
    assert pde.get_ylim()[0] > 0.1  # the axis does not reach down into the noise
    assert bc.lines[0].get_marker() == "."  # a single eigenvalue makes no line


def test_long_history_is_thinned_to_its_ends_and_what_lies_between():
    lines = history_figure({"pde": history(500)}).axes[0].lines[:-1]
    assert len(lines) == MAX_LINES
    tops = [float(cast("Any", line.get_ydata())[0]) for line in lines]
    assert (tops[0], tops[-1]) == (2.0, 501.0)
    assert tops == sorted(tops)


@pytest.mark.parametrize("name", ["loss/pde_1", "a $ b", "{}"])
def test_any_name_and_a_zero_kernel_can_be_drawn(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    image = pixels(history_figure({name: [(0, spectrum(0.0, floor=0.0))]}))
    assert image.dtype == np.uint8
    assert image.shape == (360, 540, 3)
    assert image.std() > 0
