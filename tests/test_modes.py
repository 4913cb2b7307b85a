"""Modes of linearised training: shares, times, loss curves and steps to a target."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pinn_ntk import empirical_ntk
from pinn_ntk.analysis.dynamics import LinearizedTraining
from pinn_ntk.analysis.modes import Modes
from tests.asserts import assert_near


def training_of(
    phi: dict[str, Tensor], start: dict[str, Tensor], d: dict[str, float]
) -> LinearizedTraining:
    w = torch.zeros(next(iter(phi.values())).shape[1], dtype=torch.float64, requires_grad=True)
    return LinearizedTraining(empirical_ntk({t: p @ w for t, p in phi.items()}, [w]), start, d)


def diagonal(rates: list[float], start: list[float]) -> Modes:
    """Modes that are the rows themselves, of given rates."""
    phi = torch.diag(torch.tensor(rates, dtype=torch.float64).sqrt())
    r = torch.tensor(start, dtype=torch.float64)
    return Modes(training_of({"data": phi}, {"data": r}, {"data": 1.0}))


def two_terms() -> Modes:
    rows, d = {"pde": 6, "bc": 3, "unseen": 2}, {"pde": 0.5, "bc": 20.0}
    phi = {t: torch.randn(n, 15, dtype=torch.float64) for t, n in rows.items()}
    start = {t: torch.randn(n, dtype=torch.float64) for t, n in rows.items()}
    return Modes(training_of(phi, start, d))


RATES, START = [8.0, 2.0, 0.5, 0.0], [1.0, 3.0, -2.0, 0.1]


def test_rates_shares_and_losses_of_known_modes():
    modes = diagonal(RATES, START)
    energies = [0.5, 4.5, 2.0, 0.005]
    assert len(modes) == 4
    assert modes.rates.tolist() == pytest.approx(RATES, rel=1e-14)
    assert modes.loss == pytest.approx(7.005, rel=1e-14)
    assert modes.shares.tolist() == pytest.approx([e / 7.005 for e in energies], rel=1e-13)
    assert modes.unlearnable == pytest.approx(0.005, rel=1e-13)
    assert modes.slowest == modes[2] == modes[-2]
    assert modes[2].index == 2
    assert modes[2].share == pytest.approx(2 / 7.005, rel=1e-13)
    assert modes[1].terms == pytest.approx({"data": 1.0}, rel=1e-14)


def test_times_of_known_modes():
    modes, size = diagonal(RATES, START), math.sqrt(14.01)
    bounds = [math.log(abs(c) / (0.1 * size)) for c in START]
    expected = [bounds[0] / 8, bounds[1] / 2, bounds[2] / 0.5, 0.0]
    assert modes.times(0.1).tolist() == pytest.approx(expected, rel=1e-12)
    assert modes.times(1e-3)[3] == math.inf  # 0.1 is above, and never falls
    assert modes.times(1.0).tolist() == [0.0] * 4


@pytest.mark.parametrize("lr", [0.01, 0.1, 0.125, 0.2])
def test_steps_of_known_modes_against_iteration(lr: float):
    modes, bound = diagonal(RATES, START), 0.1 * math.sqrt(14.01)
    counted = []
    for rate, value in zip(RATES, START, strict=True):
        steps = 0
        while abs(value) > bound:
            value, steps = value * (1 - lr * rate), steps + 1  # noqa: PLW2901
        counted.append(steps)
    assert modes.steps(lr, 0.1).tolist() == counted


def test_modes_that_grow_or_oscillate_never_settle():
    steps = diagonal(RATES, [1.0, 3.0, -2.0, 1e-9]).steps(lr=0.3, tolerance=1e-3)
    assert steps[0] == math.inf  # 1 - 0.3 * 8 = -1.4
    assert bool(torch.isfinite(steps[1:]).all())
    assert diagonal([4.0, 1.0], [1.0, 1.0]).steps(lr=0.5)[0] == math.inf  # 1 - 0.5 * 4 = -1
    assert diagonal([8.0, 1.0], [1e-9, 1.0]).steps(lr=0.5)[0] == math.inf  # small, but it grows


def test_modes_lie_in_the_terms_they_are_made_of():
    modes = two_terms()
    v = modes.training.modes
    assert_near(modes.location["pde"], v[:6].square().sum(0), 1e-14, "pde")
    assert_near(modes.location["bc"], v[6:].square().sum(0), 1e-14, "bc")
    assert sum(modes[3].terms.values()) == pytest.approx(1.0, rel=1e-13)
    phi = {"a": torch.eye(2, 3).double() * 10, "b": torch.eye(3)[2:].double()}
    apart = Modes(training_of(phi, {"a": torch.ones(2), "b": torch.ones(1)}, {"a": 1.0, "b": 1.0}))
    assert [apart[k].terms["a"] for k in range(3)] == pytest.approx([1, 1, 0], abs=1e-14)


def test_loss_curves_are_those_of_the_residuals():
    modes = two_terms()
    training, d = modes.training, {"pde": 0.5, "bc": 20.0}
    times, steps = torch.tensor([0.0, 0.01, 0.3, 5.0]), torch.tensor([0, 1, 2, 70])
    lr = 0.3 * training.max_stable_lr()
    flows = training.flow(times), modes.losses(times)
    plain = training.descent(steps, lr), modes.losses_at(steps, lr)
    heavy = training.descent(steps, lr, 0.9), modes.losses_at(steps, lr, 0.9)
    for residuals, losses in (flows, plain, heavy):
        assert set(losses) == {"pde", "bc"}
        for term, loss in losses.items():
            expected = d[term] / 2 * residuals[term].square().sum(-1)
            assert_near(loss, expected, 1e-12, term)
    assert float(sum(modes.losses(0.0).values())) == pytest.approx(modes.loss, rel=1e-13)


@pytest.mark.parametrize("share", [0.99, 0.5, 1e-2, 1e-9])
def test_time_to_a_loss_is_when_the_curve_gets_there(share: float):
    modes = two_terms()
    time = modes.time_to(share * modes.loss)
    reached = float(sum(modes.losses(time).values()))
    assert reached == pytest.approx(share * modes.loss, rel=1e-9)


@pytest.mark.parametrize("share", [0.99, 0.5, 1e-2, 1e-6])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.99])
def test_steps_to_a_loss_are_the_first_that_get_there(share: float, fraction: float):
    modes = two_terms()
    lr = fraction * modes.training.max_stable_lr()
    steps = int(modes.steps_to(share * modes.loss, lr))
    assert steps >= 1
    before, after = sum(modes.losses_at(torch.tensor([steps - 1, steps]), lr).values()).tolist()
    assert before > share * modes.loss >= after


def test_losses_out_of_reach():
    modes = diagonal(RATES, START)
    for reach in (modes.time_to, lambda loss: modes.steps_to(loss, 0.1)):
        assert reach(0.004) == math.inf  # 0.005 stays
        assert 0 < reach(0.006) < math.inf
        assert reach(7.01) == 0.0
    assert modes.steps_to(1.0, lr=0.3) == math.inf  # the first mode diverges
    assert modes.steps_to(7.01, lr=0.3) == math.inf  # even from below
    calm = diagonal(RATES, [0.0, 3.0, -2.0, 0.1])  # nothing of it in the residual
    assert math.isfinite(calm.steps_to(1.0, lr=0.3))
    assert diagonal([4.0, 1.0], [1.0, 1.0]).steps_to(0.4, lr=0.5) == math.inf  # swings at 0.5


def test_very_slow_modes_are_counted():
    modes = diagonal([1.0, 1e-13], [0.0, 1.0])
    steps = modes.steps_to(0.125, lr=1.0)  # exp(-2e-13 n) = 1/4
    assert steps == pytest.approx(math.log(4) / 2e-13, rel=1e-9)
    assert modes.steps(1.0, 0.5)[1] == pytest.approx(math.log(2) / 1e-13, rel=1e-9)


def test_no_residual_and_no_kernel():
    done = diagonal(RATES, [0.0] * 4)
    assert (done.loss, done.time_to(0.0), done.steps_to(0.0, 0.1)) == (0.0, 0.0, 0.0)
    assert bool(done.shares.isnan().all())
    assert done.times(0.1).tolist() == done.steps(0.1).tolist() == [0.0] * 4
    still = diagonal([0.0, 0.0], [1.0, 1.0])
    assert still.slowest is None
    assert (still.unlearnable, still.time_to(0.5), still.steps_to(0.5, 0.1)) == (
        1.0,
        *[math.inf] * 2,
    )
    assert still.times(0.1).tolist() == [math.inf] * 2


def test_device_of_the_kernel(device: torch.device):
    w = torch.zeros(3, dtype=torch.float64, device=device, requires_grad=True)
    phi = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64, device=device))
    start = {"residual": torch.ones(3, device=device)}
    modes = Modes(LinearizedTraining(empirical_ntk(phi @ w, [w]), start, {"residual": 1.0}))
    assert modes.times(0.1).device.type == modes.steps(0.1).device.type == device.type
    assert modes.unlearnable == pytest.approx(0.5, rel=1e-13)
    assert modes.losses(torch.ones(2))["residual"].device.type == device.type


@pytest.mark.parametrize(
    "call",
    [
        lambda modes: modes.times(0.0),
        lambda modes: modes.steps(0.1, -1.0),
        lambda modes: modes.steps(0.0),
        lambda modes: modes.steps_to(1.0, math.nan),
    ],
)
def test_values_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call(diagonal(RATES, START))


def test_there_is_no_mode_beyond_the_last():
    with pytest.raises(IndexError):
        diagonal(RATES, START)[4]


def test_repr_says_how_many():
    assert repr(two_terms()) == "Modes(9 of the terms ['pde', 'bc'])"


def test_modes_of_a_kernel_are_refused():
    kernel = two_terms().training.kernel
    with pytest.raises(TypeError, match=r"got NTK\. .*Modes\(LinearizedTraining\(kernel, resid"):
        Modes(kernel)
