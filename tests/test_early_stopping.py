"""Early stopping: the risk against its expectation, the smoother by autograd, known truths."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pinn_ntk import EarlyStopping, LinearizedTraining, early_stopping
from pinn_ntk.analysis.arrival import RATIO
from tests.asserts import assert_near
from tests.kernels import explicit

pytestmark = pytest.mark.usefixtures("float64")
N = 60


class Model:
    """A regression term on features whose modes decay, beside a term without noise."""

    def __init__(self, rows=N, decay=0.2, sigma=0.5, beside: int = 0, plateau: int = 0):
        basis, _ = torch.linalg.qr(torch.randn(rows, rows))
        rates = torch.exp(-decay * torch.arange(float(rows)))
        if plateau:  # that many of one rate, with all of the signal; the others 50 times slower
            rates = 0.02 + 0.98 * (torch.arange(rows) < plateau)
        self.features = {"data": math.sqrt(rows) * basis * rates.sqrt()}
        signal = plateau or 10
        self.truth = basis[:, :signal].sum(1) * math.sqrt(rows / signal)  # mean square 1
        self.start, self.curvature = {}, {"data": 2 / rows}
        if beside:
            self.features["pde"] = torch.randn(beside, rows)
            self.start["pde"], self.curvature["pde"] = torch.randn(beside), 0.1
        self.sigma, self.rows = sigma, rows
        self.kernel = explicit(**self.features)

    def training(self, noise: Tensor | None = None) -> LinearizedTraining:
        noise = self.noise() if noise is None else noise
        start = self.start | {"data": -self.truth - noise}
        return LinearizedTraining(self.kernel, start, self.curvature)

    def noise(self) -> Tensor:
        return self.sigma * torch.randn(self.rows)

    def fitted(self, y: Tensor, steps: int, lr: float, momentum: float) -> Tensor:
        """f_n of an explicit loop, differentiable in y."""
        start = self.start | {"data": -y}
        w = velocity = torch.zeros(self.rows)
        for _ in range(steps):
            velocity = momentum * velocity
            for t, phi in self.features.items():
                velocity = velocity + self.curvature[t] * phi.mT @ (phi @ w + start[t])
            w = w - lr * velocity
        return self.features["data"] @ w


def at(found: EarlyStopping, curve: Tensor, steps: int) -> float:
    return float(curve[found.steps == steps])


@pytest.mark.parametrize("beside", [0, 5])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("steps", [0, 1, 7, 23])
def test_curves_are_those_of_an_explicit_training(steps: int, momentum: float, beside: int):
    model = Model(rows=20, beside=beside)
    noise, lr = model.noise(), 0.1
    y = model.truth + noise
    options = {"noise": 0.5, "momentum": momentum, "max_steps": 23}
    found = early_stopping(model.training(noise), lr, "data", **options)
    fit = model.fitted(y, steps, lr, momentum)
    fitted = lambda targets: model.fitted(targets, steps, lr, momentum)  # noqa: E731
    smoother = torch.autograd.functional.jacobian(fitted, y)
    loss, freedom = float((fit - y).square().mean()), float(smoother.trace())
    assert at(found, found.training_loss, steps) == pytest.approx(loss, rel=1e-10)
    assert at(found, found.degrees_of_freedom, steps) == pytest.approx(freedom, abs=1e-10)
    risk = loss + 2 * 0.25 * freedom / 20 - 0.25
    assert at(found, found.risk, steps) == pytest.approx(risk, abs=1e-10)


@pytest.mark.parametrize("beside", [0, 5])
def test_risk_is_right_on_average(beside: int):
    model, lr, draws = Model(beside=beside), 0.1, 100
    gaps = []
    for _ in range(draws):
        noise = model.noise()
        training = model.training(noise)
        found = early_stopping(training, lr, "data", noise=model.sigma, max_steps=1000)
        error = training.descent(found.steps, lr)["data"] + noise  # f_n - y + y - f*
        gaps.append(found.risk - error.square().mean(-1))
    gap = torch.stack(gaps)
    spread = (gap.std(0) / math.sqrt(draws)).clamp(min=1e-12)
    assert float(((gap.mean(0).abs() - 1e-12) / spread).max()) < 4


def test_risk_of_one_term_is_the_sum_over_modes():
    model = Model()
    training = model.training()
    found = early_stopping(training, 0.3, noise=0.5, max_steps=100)
    y = training.coefficients * math.sqrt(N / 2)  # of y - f_0 in each mode
    p = (1 - 0.3 * training.rates) ** found.steps[:, None]
    expected = (p**2 * (y**2 - 0.25) + (1 - p) ** 2 * 0.25).sum(1) / N
    assert_near(found.risk, expected, 1e-12, "risk")


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_best_step_of_modes_that_are_equally_fast(sigma: float):
    """p^2 |y|^2 / N - 2 sigma^2 p is least for p = N sigma^2 / |y|^2."""
    model = Model(decay=0.0)
    noise = model.noise()
    found = early_stopping(model.training(noise), 0.005, noise=sigma, max_steps=10_000)
    left = N * sigma**2 / float((model.truth + noise).square().sum())
    if left >= 1:
        assert found.step == 0
        return
    expected = math.log(left) / math.log(1 - 0.005 * 2)
    assert found.step == pytest.approx(expected, rel=RATIO - 1, abs=1)


@pytest.mark.parametrize("estimate", ["gcv", "tail"])
@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_noise_is_estimated(sigma: float, estimate: str):
    model = Model(rows=300, sigma=sigma, decay=0.05)
    found = [early_stopping(model.training(), 0.3, noise=estimate).noise for _ in range(5)]
    assert sum(found) / 5 == pytest.approx(sigma, rel=0.04)


@pytest.mark.parametrize("estimate", ["gcv", "tail"])
@pytest.mark.parametrize("number", range(6))
def test_predicted_step_is_near_the_best_one(number: int, estimate: str):
    """The truth is known: between its modes learned and those of the noise learned."""
    torch.manual_seed(number)
    model = Model(rows=400, sigma=1.0, plateau=160)
    noise, lr = model.noise(), 0.02
    training = model.training(noise)
    found = early_stopping(training, lr, noise=estimate)
    true = (training.descent(found.steps, lr)["data"] + noise).square().mean(-1)
    best = int(found.steps[true.argmin()])
    assert float(true[-1]) > 3 * float(true.min())  # it pays to stop
    assert best / 2 <= found.step <= 2 * best
    assert at(found, true, found.step) < 1.1 * float(true.min())


def test_without_noise_training_never_stops_and_nothing_but_noise_is_not_trained_on():
    found = early_stopping(Model(sigma=0.0, decay=0.1).training(), 0.3, noise=0.0)
    assert found.step is None
    assert bool((found.risk.diff() <= 1e-12).all())
    model = Model(sigma=1.0)
    model.truth = torch.zeros(N)
    assert early_stopping(model.training(), 0.3, noise=2.0).step == 0


def curve(risk: list[float], noise: float) -> EarlyStopping:
    """A risk made by hand, after 0, 1, 2, ... steps, of 9 rows; each step fits one degree more."""
    values, steps = torch.tensor(risk), torch.arange(len(risk))
    return EarlyStopping("data", steps, values, values, steps.double(), noise, 9)


def test_valley_holds_the_best_step():
    found = early_stopping(Model().training(), 0.1, noise=0.5)
    first, last = found.valley(0.1)
    assert first < found.step < last
    least, freedom = float(found.risk.min()), at(found, found.degrees_of_freedom, found.step)
    bound = least + 0.1 * max(least, 0.25 * freedom / N)
    inside = (found.steps >= first) & (found.steps <= last)
    assert torch.equal(found.risk <= bound, inside)
    assert found.valley(0.0) == (found.step, found.step)


@pytest.mark.parametrize(
    ("risk", "noise", "expected"),
    [
        ([3.0, 1.04, 1.0, 1.06], 0.1, (1, 2)),  # 0.05 of the least risk
        ([3.0, 0.009, -0.001, 0.011], 1.0, (1, 2)),  # 0.05 * 2 / 9
        ([-0.2, -0.196, -0.19, 0.0], 1.0, (0, 1)),  # 0.05 * 1 / 9
        ([3.0, 0.0, 0.0, 0.1], 0.0, (1, 2)),
    ],
    ids=["positive", "negative", "nothing_fitted", "no_noise"],
)
def test_valley_of_a_risk_of_either_sign(risk: list[float], noise: float, expected: Any):
    assert curve(risk, noise).valley(0.05) == expected


def test_repr_has_no_curves():
    found = curve([3.0, 1.0, 2.0], 0.5)
    assert repr(found) == "EarlyStopping(term='data', step=1, longest=2, risk=1, noise=0.5)"


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_noise_does_not_depend_on_the_longest_training(momentum: float):
    training, longest = Model(rows=100, sigma=0.5, decay=0.1).training(), (None, 1, 30, 10**6)
    found = [early_stopping(training, 0.3, momentum=momentum, max_steps=n) for n in longest]
    (noise,) = {one.noise for one in found}
    assert noise == pytest.approx(0.5, rel=0.3)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_training_that_diverges_is_refused(momentum: float):
    training = Model().training()
    highest = training.max_stable_lr(momentum)
    assert bool(early_stopping(training, highest, momentum=momentum).risk.isfinite().all())
    name = r"max_stable_lr\(momentum=0.7\)" if momentum else r"max_stable_lr\(\)"
    with pytest.raises(ValueError, match=rf"lr is .*expected at most .*{name}.* diverges"):
        early_stopping(training, 1.05 * highest, momentum=momentum)


@pytest.mark.parametrize("longest", [1, 2, 1000, 10**9])
def test_steps_grow_by_the_ratio_and_end_where_asked(longest: int):
    steps = early_stopping(Model().training(), 0.1, noise=0.5, max_steps=longest).steps.tolist()
    assert steps[:2] == [0, 1]
    assert steps[-1] == longest
    assert all(b <= RATIO * a + 1 for a, b in pairwise(steps))


def test_horizon_is_when_the_slowest_mode_has_converged():
    model = Model(rows=5, decay=1.0)
    slowest = 2 * math.exp(-4)
    longest = int(early_stopping(model.training(), 0.1, noise=0.5).steps[-1])
    assert longest == pytest.approx(5 / (0.1 * slowest), abs=1)
    still = LinearizedTraining(model.kernel, {"data": torch.ones(5)}, {"data": 0.0})
    assert early_stopping(still, 0.1, noise=0.5).steps.tolist() == [0, 1]


@pytest.mark.parametrize("noise", ["gcv", "tail", 0.5])
def test_device_of_the_kernel(device: torch.device, noise: float | str):
    phi, start = torch.randn(8, 8, device=device), torch.randn(8, device=device)
    training = LinearizedTraining(explicit(data=phi), {"data": start}, {"data": 1.0})
    found = early_stopping(training, 1e-3, noise=noise, momentum=0.5, max_steps=50)
    assert found.risk.device.type == found.steps.device.type == device.type
    first, last = found.valley()
    assert first <= int(found.steps[found.risk.argmin()]) <= last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"term": None}, "term is None; expected the one with noise"),
        ({"term": "bc"}, "term is 'bc'"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"noise": math.nan}, "noise is nan"),
        ({"noise": True}, "noise is True; expected its standard deviation"),
        ({"noise": False}, "noise is False"),
        ({"noise": "median"}, "noise is 'median'"),
        ({"lr": 0.0}, "expected lr > 0"),
        ({"lr": math.inf}, "lr is inf; expected at most"),
        ({"lr": math.inf, "max_steps": 9}, "lr is inf; expected at most"),
        ({"lr": math.inf, "momentum": 1.0}, "momentum < 1, got lr = inf"),
        ({"lr": math.nan}, "expected lr > 0"),
        ({"momentum": 1.0}, "momentum < 1"),
        ({"max_steps": 0}, "max_steps of 1 or more"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, object], message: str):
    given = {"lr": 0.1, "term": "data", "noise": 0.5} | options
    with pytest.raises(ValueError, match=message):
        early_stopping(Model(rows=8, beside=2).training(), **given)
