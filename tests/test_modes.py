"""Modes of linearised training: shares, times, loss curves and steps to a target."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pinn_ntk import LinearizedTraining, Modes
from tests.asserts import assert_all_near, assert_near
from tests.kernels import explicit

pytestmark = pytest.mark.usefixtures("float64")


def modes_of(phi: dict[str, Tensor], start: dict[str, Tensor], d, **options) -> Modes:
    return Modes(LinearizedTraining(explicit(**phi), start, d, **options))


def diagonal(rates: list[float], start: list[float]) -> Modes:
    """Modes that are the rows themselves, of given rates."""
    phi = torch.diag(torch.tensor(rates).sqrt())
    return modes_of({"data": phi}, {"data": torch.tensor(start)}, {"data": 1.0})


@pytest.fixture
def modes() -> Modes:
    rows, d = {"pde": 6, "bc": 3, "unseen": 2}, {"pde": 0.5, "bc": 20.0}
    phi = {t: torch.randn(n, 15) for t, n in rows.items()}
    start = {t: torch.randn(n) for t, n in rows.items()}
    return modes_of(phi, start, d)


RATES, START = [8.0, 2.0, 0.5, 0.0], [1.0, 3.0, -2.0, 0.1]


def test_rates_shares_losses_and_times_of_known_modes():
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
    bounds = [math.log(abs(c) / (0.1 * math.sqrt(14.01))) for c in START]
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


def test_modes_lie_in_the_terms_they_are_made_of(modes: Modes):
    v = modes.training.modes
    assert_near(modes.location["pde"], v[:6].square().sum(0), 1e-14, "pde")
    assert_near(modes.location["bc"], v[6:].square().sum(0), 1e-14, "bc")
    assert sum(modes[3].terms.values()) == pytest.approx(1.0, rel=1e-13)
    phi = {"a": torch.eye(2, 3) * 10, "b": torch.eye(3)[2:]}
    apart = modes_of(phi, {"a": torch.ones(2), "b": torch.ones(1)}, {"a": 1.0, "b": 1.0})
    assert [apart[k].terms["a"] for k in range(3)] == pytest.approx([1, 1, 0], abs=1e-14)


def test_loss_curves_are_those_of_the_residuals(modes: Modes):
    training, d = modes.training, {"pde": 0.5, "bc": 20.0}
    times, steps = torch.tensor([0.0, 0.01, 0.3, 5.0]), torch.tensor([0, 1, 2, 70])
    lr = 0.3 * training.max_stable_lr()
    flows = training.flow(times), modes.losses(times)
    plain = training.descent(steps, lr), modes.losses_at(steps, lr)
    heavy = training.descent(steps, lr, 0.9), modes.losses_at(steps, lr, 0.9)
    for residuals, losses in (flows, plain, heavy):
        expected = {t: d[t] / 2 * residuals[t].square().sum(-1) for t in d}
        assert_all_near(losses, expected, 1e-12)
    assert float(sum(modes.losses(0.0).values())) == pytest.approx(modes.loss, rel=1e-13)


@pytest.mark.parametrize("share", [0.99, 0.5, 1e-2, 1e-9])
def test_time_to_a_loss_is_when_the_curve_gets_there(modes: Modes, share: float):
    reached = float(sum(modes.losses(modes.time_to(share * modes.loss)).values()))
    assert reached == pytest.approx(share * modes.loss, rel=1e-9)


@pytest.mark.parametrize("share", [0.99, 0.5, 1e-2, 1e-6])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.99])
def test_steps_to_a_loss_are_the_first_that_get_there(modes: Modes, share: float, fraction: float):
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


@pytest.mark.parametrize(("rate", "lr"), [(1, 1e-30), (1e-13, 1e-200), (1e-13, 1e-9), (1, 1e-300)])
def test_more_steps_than_an_integer_holds(rate: float, lr: float):
    modes = diagonal([1.0, rate], [0.0, 1.0])
    expected = math.log(4) / (2 * rate * lr)  # exp(-2 rate lr n) = 1/4
    assert expected > 2.0**62
    assert modes.steps_to(0.125, lr) == pytest.approx(expected, rel=1e-9)
    assert modes.steps_to(0.125, lr, "data") == pytest.approx(expected, rel=1e-9)
    assert diagonal([1e-10], [1.0]).steps_to(0.125, 1e-300) == math.inf  # beyond float64


def test_slowest_modes_of_an_accurate_spectrum_are_counted():
    x = torch.linspace(-1, 1, 60)
    phi = {"data": torch.exp(-4 * (x[:, None] - x[::2]).square())}  # rates down to the noise
    start = {"data": torch.randn(60)}
    modes = modes_of(phi, start, {"data": 2 / 60}, method="accurate")
    lr, target = 1e-2, 1.0000001 * modes.unlearnable
    steps = modes.steps_to(target, lr)
    assert 1e16 < steps < math.inf
    ends = torch.tensor([steps * (1 - 1e-6), steps * (1 + 1e-6)])
    before, after = modes.losses_at(ends, lr)["data"].tolist()
    assert before > target > after


def of_rows(rates: list[float], start: list[float], angle: float) -> Modes:
    """Terms a and b of a row each, of two modes turned by an angle; start mode by mode."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin], [sin, cos]])
    return a_row_each(turn * torch.tensor(rates).sqrt(), turn @ torch.tensor(start))


def a_row_each(phi: Tensor, r: Tensor) -> Modes:
    rows, start = {"a": phi[:1], "b": phi[1:]}, {"a": r[:1], "b": r[1:]}
    return modes_of(rows, start, {"a": 1.0, "b": 1.0})


def test_a_loss_that_rises_first_has_arrived_when_it_stays():
    """r_a = (e^-t - e^-100t) / sqrt 2: its loss rises to almost 1/4 until the fast mode is gone."""
    rising = of_rows([100.0, 1.0], [-1.0, -1.0], math.pi / 4)
    assert float(rising.losses(0.0)["a"]) < 1e-30
    assert rising.time_to(0.05, "a") == pytest.approx(math.log(5) / 2, rel=1e-9)  # e^-2t / 4
    assert rising.time_to(0.26, "a") == 0.0  # it never gets there
    peak = math.log(100) / 99
    top = (math.exp(-peak) - math.exp(-100 * peak)) ** 2 / 4
    assert rising.time_to(0.999 * top, "a") == pytest.approx(peak, rel=0.1)
    assert rising.time_to(1.001 * top, "a") == 0.0
    assert rising.steps_to(0.05, 1e-3, "a") == math.ceil(-math.log(5) / 2 / math.log1p(-1e-3))


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("share", [0.9, 0.3, 1e-2, 1e-4])
@pytest.mark.parametrize("term", ["pde", "bc"])
def test_steps_of_a_term_against_iteration(modes: Modes, term: str, share: float, fraction: float):
    lr = fraction * modes.training.max_stable_lr()
    loss = share * float(modes.losses(0.0)[term])
    steps = modes.steps_to(loss, lr, term)
    assert steps == round(steps) < 1e6
    curve = modes.losses_at(torch.arange(int(2 * steps) + 100), lr)[term]
    above = torch.nonzero(curve > loss)
    assert steps == (int(above[-1]) + 1 if len(above) else 0)


@pytest.mark.parametrize("share", [0.9, 1e-2, 1e-6])
def test_time_of_a_term_is_the_last_crossing(modes: Modes, share: float):
    loss = share * float(modes.losses(0.0)["bc"])
    time = modes.time_to(loss, "bc")
    assert float(modes.losses(time)["bc"]) == pytest.approx(loss, rel=1e-9)
    assert float(modes.losses(time * torch.linspace(1 + 1e-9, 30, 5000))["bc"].max()) <= loss


def test_a_mode_that_changes_sign_counts_in_every_second_step():
    modes = of_rows([1.95, 0.01], [1.0, 1.0], math.pi / 4)  # 1 - 1.95: slow, alternating
    curve = modes.losses_at(torch.arange(4000), 1.0)["a"]
    for loss in (0.9, 0.3, 0.1, 1e-3):
        last = int(torch.nonzero(curve > loss)[-1])
        assert modes.steps_to(loss, 1.0, "a") == last + 1


@pytest.mark.parametrize(
    ("phi", "lr", "left"),
    [
        ([[3.0, 1.0], [1.0, 3.0]], 0.125, 0.5**2),  # rates 16 and 4: -1 and 1/2 in a step
        ([[1.0, 0.0], [1.0, 0.0]], 1.0, 1.5**2),  # 2 and 0: -1 and 1, 1 + 1/2 and 1 - 1/2 in turn
    ],
    ids=["beside_one_that_falls", "beside_one_that_stays"],
)
def test_a_mode_that_swings_for_ever(phi: list[list[float]], lr: float, left: float):
    r = torch.tensor([1.5, -0.5]) / math.sqrt(2)  # 1/2 (1, 1) + (1, -1)
    modes = a_row_each(torch.tensor(phi), r)
    for term in ("a", "b"):
        assert modes.steps_to(0.99 * left / 4, lr, term) == math.inf
        assert modes.steps_to(1.01 * left / 4, lr, term) < 20


def test_terms_apart_arrive_on_their_own():
    phi = {"a": torch.diag(torch.tensor([3.0, 0.0])), "b": torch.zeros(1, 2)}
    start = {"a": torch.tensor([1.0, 0.5]), "b": torch.tensor([2.0])}
    modes = modes_of(phi, start, {"a": 1.0, "b": 1.0})
    assert modes.time_to(0.2, "a") == pytest.approx(math.log(0.5 / 0.075) / 18, rel=1e-9)
    assert modes.time_to(0.12, "a") == math.inf  # 0.125 stays
    assert (modes.time_to(2.0, "b"), modes.steps_to(2.0, 0.1, "b")) == (0.0, 0.0)
    assert (modes.time_to(1.9, "b"), modes.steps_to(1.9, 0.1, "b")) == (math.inf, math.inf)
    assert modes.steps_to(9.0, 0.3, "b") == math.inf  # a mode diverges, though not of this term


def test_all_terms_together_are_the_sum(modes: Modes):
    one = diagonal(RATES, START)
    assert one.time_to(0.3, "data") == pytest.approx(one.time_to(0.3), rel=1e-12)
    assert one.steps_to(0.3, 0.1, "data") == one.steps_to(0.3, 0.1)
    loss = 0.01 * modes.loss
    of_all, of_half = (max(modes.time_to(x, t) for t in ("pde", "bc")) for x in (loss, loss / 2))
    assert of_all <= modes.time_to(loss) <= of_half


def test_slowest_mode_of_a_term(modes: Modes):
    slowest = {term: modes.slowest_of(term) for term in ("pde", "bc")}
    for term, mode in slowest.items():
        assert mode.terms[term] > 0.5
        assert all(modes[k].terms[term] <= 0.5 for k in range(mode.index + 1, len(modes)))
    assert modes.slowest in slowest.values()
    apart = of_rows([4.0, 1.0], [1.0, 1.0], 0.1)
    assert (apart.slowest_of("a").index, apart.slowest_of("b").index) == (0, 1)
    still = of_rows([4.0, 0.0], [1.0, 1.0], 0.1)
    assert still.slowest_of("a").rate == pytest.approx(4.0)
    assert still.slowest_of("b") is None  # its mode is not resolved


@pytest.mark.parametrize("term", ["unseen", "nowhere"])
@pytest.mark.parametrize("call", ["time_to", "steps_to", "slowest_of"])
def test_terms_that_are_not_trained_have_no_modes(modes: Modes, call: str, term: str):
    values = {"time_to": (0.1,), "steps_to": (0.1, 1e-3), "slowest_of": ()}[call]
    with pytest.raises(KeyError, match=f"no term '{term}' is trained"):
        getattr(modes, call)(*values, term)


def test_no_residual_and_no_kernel():
    done = diagonal(RATES, [0.0] * 4)
    assert (done.loss, done.time_to(0.0), done.steps_to(0.0, 0.1)) == (0.0, 0.0, 0.0)
    assert bool(done.shares.isnan().all())
    assert done.times(0.1).tolist() == done.steps(0.1).tolist() == [0.0] * 4
    still = diagonal([0.0, 0.0], [1.0, 1.0])
    assert still.slowest is None
    assert still.unlearnable == 1.0
    assert still.time_to(0.5) == still.steps_to(0.5, 0.1) == math.inf
    assert still.times(0.1).tolist() == [math.inf] * 2


def test_device_of_the_kernel(device: torch.device):
    phi = torch.diag(torch.tensor([2.0, 1.0, 0.0], device=device))
    start = {"residual": torch.ones(3, device=device)}
    modes = modes_of({"residual": phi}, start, {"residual": 1.0})
    assert modes.times(0.1).device.type == modes.steps(0.1).device.type == device.type
    assert modes.unlearnable == pytest.approx(0.5, rel=1e-13)
    assert modes.losses(torch.ones(2))["residual"].device.type == device.type


NAN = math.nan
STEPS = [("steps", 0.1, -1.0), ("steps", 0.0), ("steps_to", 1.0, NAN), ("steps_to", NAN, 0.1)]
TIMES = [("times", 0.0), ("time_to", NAN), ("time_to", NAN, "data")]


@pytest.mark.parametrize("call", STEPS + TIMES)
def test_values_out_of_range_are_refused(call: tuple[str, ...]):
    name, *values = call
    with pytest.raises(ValueError, match="expected"):
        getattr(diagonal(RATES, START), name)(*values)


def test_repr_says_how_many_and_there_is_none_beyond_the_last(modes: Modes):
    assert repr(modes) == "Modes(9 of the terms ['pde', 'bc'])"
    with pytest.raises(IndexError):
        diagonal(RATES, START)[4]


def test_modes_of_a_kernel_are_refused(modes: Modes):
    with pytest.raises(TypeError, match=r"got NTK\. .*Modes\(LinearizedTraining\(kernel, resid"):
        Modes(modes.training.kernel)
