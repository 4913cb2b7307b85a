"""Kernel regression: against regression in the parameters, Gaussian processes and training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pinn_ntk import LinearizedTraining, empirical_ntk, kernel_regression
from tests.asserts import assert_all_near, assert_near
from tests.kernels import explicit
from tests.networks import stack
from tests.operators import grad

pytestmark = pytest.mark.usefixtures("float64")
ROWS = {"data": 8, "slope": 4, "unseen": 5}
RIDGES = [0.0, 1e-6, 0.3, 100.0]


def features(rows: dict[str, int] = ROWS, parameters: int = 20) -> dict[str, Tensor]:
    return {t: torch.randn(n, parameters) for t, n in rows.items()}


def random_like(phi: dict[str, Tensor]) -> dict[str, Tensor]:
    return {t: torch.randn(len(part)) for t, part in phi.items()}


@pytest.mark.parametrize("parameters", [3, 20])
@pytest.mark.parametrize("ridge", RIDGES)
def test_dual_is_primal(ridge: float, parameters: int):
    """The w nearest to 0 of |Phi w - (y - f(0))|^2 + ridge |w|^2, with and without freedom left."""
    phi = features(parameters=parameters)
    targets, starts = random_like(phi), random_like(phi)
    del targets["unseen"]
    a = [phi[t] for t in targets] + [math.sqrt(ridge) * torch.eye(parameters)]
    b = [targets[t] - starts[t] for t in targets] + [torch.zeros(parameters)]
    w = torch.linalg.pinv(torch.cat(a)) @ torch.cat(b)
    found = kernel_regression(explicit(**phi), targets, starts, ridge)
    assert list(found) == list(phi)
    expected = {t: starts[t] + part @ w for t, part in phi.items()}
    assert_all_near(found, expected, 1e-7)  # condition 1e8


@pytest.mark.parametrize("noise", [1e-3, 1.0])
def test_mean_of_a_gaussian_process(noise: float):
    kernel, y = explicit(**features()), torch.randn(8)
    inverse = torch.linalg.inv(kernel["data"] + noise * torch.eye(8))
    found = kernel_regression(kernel, {"data": y}, ridge=noise)
    assert_all_near(found, {t: kernel[t, "data"] @ inverse @ y for t in ROWS})


def test_a_network_fits_derivatives_beside_values():
    """u and u_x at some points of a network; the prediction is that of the linearised network."""
    net = stack([1, 30, 1])
    x = torch.linspace(-1, 1, 5)[:, None].requires_grad_()
    u = net(x)
    outputs = {"u": u[:2], "u_x": grad(u, x)[2:], "unseen": net(torch.rand(4, 1))}
    kernel = empirical_ntk(outputs, net)
    targets = {"u": torch.tensor([[1.0], [2.0]]), "u_x": torch.zeros(3, 1)}
    found = kernel_regression(kernel, targets, outputs, ridge=1e-3)
    jacobian = torch.cat([kernel.jacobian(t).dense() for t in targets])
    gap = torch.cat([(targets[t] - outputs[t]).flatten() for t in targets]).detach()
    system = jacobian.mT @ jacobian + 1e-3 * torch.eye(jacobian.shape[1])
    move = torch.linalg.solve(system, jacobian.mT @ gap)
    changes = {t: kernel.jacobian(t).matvec(move) for t in outputs}
    assert_all_near(found, {t: u.flatten() + changes[t] for t, u in outputs.items()})


@pytest.mark.parametrize("ridge", RIDGES)
def test_training_ends_there(ridge: float):
    phi = features()
    kernel, targets, starts = explicit(**phi), random_like(phi), random_like(phi)
    fitted = {t: targets[t] for t in ("data", "slope")}
    residuals = {t: starts[t] - y for t, y in fitted.items()} | {"unseen": starts["unseen"]}
    training = LinearizedTraining(kernel, residuals, dict.fromkeys(fitted, 0.25))
    end = training.limit(0.25 * ridge)  # D = 1/4 throughout
    found = kernel_regression(kernel, fitted, starts, ridge)
    assert_all_near(found, end | {t: y + end[t] for t, y in fitted.items()}, 1e-9)
    if not ridge:
        assert_near(found["unseen"], training.flow(math.inf)["unseen"], 1e-9, "unseen")


def test_values_that_can_be_fitted_are():
    y = torch.arange(8.0)
    found = kernel_regression(explicit(**features()), {"data": y})
    assert_near(found["data"], y, 1e-11, "data")


def test_two_values_at_one_point_give_their_mean():
    phi = features({"data": 3, "unseen": 2})
    phi["data"][2] = phi["data"][0]
    y = torch.tensor([1.0, 5.0, 2.0])
    found = kernel_regression(explicit(**phi), {"data": y})
    expected = torch.tensor([1.5, 5.0, 1.5])
    assert_near(found["data"], expected, 1e-12, "data")
    apart = explicit(**phi | {"data": phi["data"][:2]})
    once = kernel_regression(apart, {"data": expected[:2]})
    assert_near(found["unseen"], once["unseen"], 1e-11, "unseen")


def test_a_ridge_below_the_floor_changes_nothing_that_is_known():
    phi = features({"data": 6, "unseen": 3}, parameters=4)
    kernel, targets = explicit(**phi), {"data": torch.randn(6)}
    plain = kernel_regression(kernel, targets)["unseen"]
    for ridge in (1e-300, 1e-30, 1e-16):
        assert_near(kernel_regression(kernel, targets, ridge=ridge)["unseen"], plain, 1e-12, "f")


def test_nothing_moves_for_a_large_ridge_or_a_zero_kernel():
    phi = features({"data": 3, "unseen": 2})
    targets, starts = {"data": torch.ones(3)}, random_like(phi)
    found = kernel_regression(explicit(**phi), targets, starts, ridge=1e30)
    assert_all_near(found, starts, 1e-15)
    zero = explicit(**{t: 0 * part for t, part in phi.items()})
    assert_all_near(kernel_regression(zero, targets, starts), starts, 0.0)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_device_of_the_kernel(device: torch.device, ridge: float):
    phi = torch.tensor([[1.0, 0.0], [0.0, 2.0]], device=device)
    kernel = explicit(data=phi, unseen=3 * phi)
    found = kernel_regression(kernel, {"data": torch.tensor([1.0, 4.0])}, ridge=ridge)["unseen"]
    assert found.device.type == device.type
    expected = [3 / (1 + ridge), 3 * 4 * 4 / (4 + ridge)]
    assert found.tolist() == pytest.approx(expected, rel=1e-13)


DATA = {"data": torch.ones(8)}
UNFIT: list[tuple[dict[str, Tensor], dict[str, object], type[Exception], str]] = [
    ({}, {}, ValueError, "targets of at least one term"),
    (DATA, {"ridge": -1.0}, ValueError, "a ridge of -1.0"),
    (DATA, {"ridge": math.nan}, ValueError, "a ridge of nan"),
    ({"data": torch.ones(7)}, {}, ValueError, r"the target of term 'data' has shape \(7,\)"),
    ({"data": torch.full((8,), math.nan)}, {}, ValueError, "expected 8 finite"),
    (DATA, {"starts": {"unseen": torch.ones(1)}}, ValueError, "start of term 'unseen'"),
    ({"bc": torch.ones(1)}, {}, KeyError, "no term 'bc'"),
]


@pytest.mark.parametrize(("targets", "options", "error", "message"), UNFIT)
def test_what_does_not_fit_is_refused(targets, options, error, message):
    with pytest.raises(error, match=message):
        kernel_regression(explicit(**features()), targets, **options)
