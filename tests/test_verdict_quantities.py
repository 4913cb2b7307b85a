"""What rules are given: each quantity against values that are known without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import empirical_ntk, look
from pinn_ntk.looks.rerun import Change, Rerun
from pinn_ntk.verdict.case import WHOLE, Case
from pinn_ntk.verdict.wholeness import LENGTHS, _direction, _left
from tests.cases_of_residuals import Residuals, case_of, d, grid, network, rms


def heat(model: nn.Module, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """u_t = 0.1 u_xx, u(0, x) = sin(pi x), walls at 0."""
    p = points["pde"].clone().requires_grad_()
    u = model(p)
    first = d(u, p)
    u_xx = d(first[:, 1:], p)[:, 1:]
    start = points["ic"]
    return {
        "pde": first[:, :1] - 0.1 * u_xx,
        "ic": model(start) - torch.sin(math.pi * start[:, 1:]),
        "bc": model(points["bc"]),
    }


def heat_points(corner: float = 0.0) -> dict[str, Tensor]:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None]
    walls = torch.cat([torch.cat([t, 0 * t], 1), torch.cat([t, 0 * t + 1], 1)])
    return {"pde": grid(60, 2), "ic": torch.cat([0 * t, t], 1), "bc": walls}


def slope(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    """u' = cos 3x, u(0) = 0."""
    x = points.clone().requires_grad_()
    return {"ode": d(model(x), x) - torch.cos(3 * x.detach()), "start": model(0 * points[:1])}


def test_residuals_at_u_0_are_the_sources():
    points = heat_points()
    zero = case_of(heat, network(2), points).zero
    start = torch.sin(math.pi * points["ic"][:, 1:])
    assert zero == {"pde": 0.0, "ic": pytest.approx(float(start.square().mean().sqrt())), "bc": 0.0}


@pytest.mark.parametrize("k", [3, 12])
@pytest.mark.parametrize("size", [0.01, 500.0])
def test_what_a_source_asks_for_is_the_size_of_its_solution(k: int, size: float):
    """u_xx + u_yy = f, u = size sin(k x) sin(k y); by its source alone, by its value elsewhere."""

    def source(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        p = points.clone().requires_grad_()
        first, u = d(model(p), p), size * torch.sin(k * points).prod(1, keepdim=True)
        second = d(first[:, :1], p)[:, :1] + d(first[:, 1:], p)[:, 1:]
        return {"pde": second + 2 * k**2 * u, "data": model(points) - u}

    points = math.pi * grid(400, 2)
    demand = case_of(source, network(2), points).demand
    assert demand["data"] == pytest.approx(size / 2, rel=0.1)
    assert demand["pde"] == pytest.approx(size / 2, rel=0.6)


def test_the_error_is_that_of_u_at_the_points_of_the_equation():
    """More points on a wall, where u is to be 0 and any error is all of it, than inside."""

    def equation(model: nn.Module, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = points["ode"].clone().requires_grad_()
        u = model(x)
        return {"ode": d(u, x) - 1 + 1e-3, "wall": model(points["wall"])}

    model, x = Cubic(), grid(10)
    with torch.no_grad():
        model.t.weight.copy_(torch.tensor([[1e-3, 1.0, 0.0, 0.0]]))
    case = case_of(equation, model, {"ode": x, "wall": torch.zeros(50, 1).double()})
    assert case.error is not None
    assert case.error < 0.01


@pytest.mark.parametrize("k", [0.5, 2.0, 8.0])
def test_the_error_of_a_coefficient_is_its_way_to_where_the_residuals_end(k: float):
    """u' = k and data of u = 2 t, which u meets: k is off by 2 - k."""

    class Inverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Cubic()
            self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def slope_and_data(model: Any, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        return {"ode": d(model.net(x), x) - model.k, "data": model.net(points) - 2 * points}

    model = Inverse()
    with torch.no_grad():
        model.net.t.weight.copy_(torch.tensor([[0.0, 2.0, 0.0, 0.0]]))
    case = case_of(slope_and_data, model, grid(20))
    assert case.off == {"k": pytest.approx(abs(2 - k) / max(2, k), abs=1e-3)}
    assert case.error == pytest.approx(0, abs=1e-3)
    assert case.amiss[0] == ("k" if k != 2 else case.amiss[0])


@pytest.mark.parametrize(("penalty", "free"), [(0.0, 0.5), (1.0, 0.0)])
def test_a_coefficient_is_determined_where_a_penalty_holds_the_other(penalty: float, free: float):
    """u' = -(k + c) u with data: only k + c is told, half of the variance of each is left."""

    class TwoRates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()
            self.k, self.c = (nn.Parameter(torch.tensor(0.5).double()) for _ in range(2))

    def residuals(model: Any, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model.net(x)
        return {"ode": d(u, x) + (model.k + model.c) * u, "data": u - torch.exp(-x.detach())}

    model, points = TwoRates(), grid()
    found = residuals(model, points)
    loss = torch.stack([r.square().mean() for r in found.values()]).sum()
    loss = loss + penalty * model.c.square() if penalty else loss
    seen = look(loss, model, residuals=found)
    case = Case(replace(seen, rerun=Rerun(model, points, residuals)))
    assert case.free["k"] == pytest.approx(free, abs=0.02)


class Pair(nn.Module):
    """Two networks side by side, of which the step calls the pair."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = network(1), network(1, nn.SiLU)
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x + x * self.a(x), self.scale * self.b(x)], 1)


def test_all_branches_of_a_network_are_zero_at_u_0():
    """What stands around them stays: here u = (x, 0)."""
    model, x = Pair(), grid()
    zero = case_of(lambda m, x: {"a": m(x)[:, :1], "b": m(x)[:, 1:] - 3}, model, x).zero
    assert zero == {"a": pytest.approx(float(x.square().mean().sqrt())), "b": 3.0}


def test_rows_that_a_mask_leaves_out_do_not_count():
    model, x = network(), grid()
    mask = (x < 0.5).double()
    r = model(x) - 1e3 * (1 - mask)
    seen = look((mask * r.square()).mean(), model, names=["data"])
    kept = (r * mask).detach()
    expected = float((kept.square().sum() / mask.sum()).sqrt())
    assert Case(seen).rms == {"data": pytest.approx(expected)}


@pytest.mark.parametrize(("second", "share"), [(1.0, 0.0), (2.0, 1.0)])
def test_values_asked_for_twice_at_a_point_are_torn(second: float, share: float):
    """u = 1 and u = 1 or 2 at the same places: with u = 1.5 all of r differs at equal points."""
    x = grid(12)
    asked = torch.cat([torch.full_like(x, 1.0), torch.full_like(x, second)])
    both = torch.cat([x, x])
    model = network()
    torch.nn.init.zeros_(model[-1].weight)
    torch.nn.init.constant_(model[-1].bias, (1 + second) / 2)
    case = case_of(lambda m, p: {"data": m(p) - asked}, model, both)
    assert case.torn == {"data": pytest.approx(share)}
    assert case.exact["data"] == pytest.approx((second - 1) / 2)


class Cubic(nn.Module):
    """u = t_0 + t_1 x + t_2 x^2 + t_3 x^3, linear in its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Linear(4, 1, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.t(torch.cat([x**k for k in range(4)], 1))


def test_the_error_of_u_is_the_true_one_where_u_is_linear_in_its_parameters():
    """u' + 2 u = f, u(0) = 1 with u = 1 - x + 2 x^3."""

    def equation(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u, f = model(x), -1 + 6 * points**2 + 2 * (1 - points + 2 * points**3)
        return {"ode": d(u, x) + 2 * u - f, "start": model(points[:1] * 0) - 1}

    torch.manual_seed(0)
    model, x = Cubic(), grid()
    u = model(x).detach()
    true = float((u - (1 - x + 2 * x**3)).norm() / u.norm())
    assert case_of(equation, model, x).error == pytest.approx(true, rel=1e-3)
    assert case_of(lambda m, p: {"data": m(p) - 1}, model, x).error is None  # no equation


def test_what_an_equation_without_conditions_asks_of_data():
    x = grid(8)

    def data(k: float) -> Residuals:
        return lambda model, points: {"data": model(points) - torch.sin(k * points)}

    assert case_of(data(3.0), network(), x).told["data"] > 0.9
    assert case_of(data(30.0), network(), x).told["data"] < 0.1
    assert case_of(slope, network(), x).told == {}  # an equation tells what lies between


def wave(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    p = points.clone().requires_grad_()
    first = d(model(p), p)
    return {"wave": d(first[:, :1], p)[:, :1] - d(first[:, 1:], p)[:, 1:]}


def third(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    x = points.clone().requires_grad_()
    u = model(x)
    return {"dispersion": d(d(d(u, x), x), x) + u * d(u, x), "value": model(points) - 1}


def differences(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    return {"slope": (model(points + 0.01) - model(points)) / 0.01}


@pytest.mark.parametrize(
    ("residuals", "dim", "order"),
    [
        (wave, 2, {"wave": 2}),  # with equal coefficients, which must not cancel
        (third, 1, {"dispersion": 3, "value": 0}),
        (slope, 1, {"ode": 1, "start": 0}),
        (differences, 1, {}),
    ],
)
def test_the_order_of_a_term_is_that_of_its_highest_derivative(
    residuals: Residuals, dim: int, order: dict[str, int]
):
    assert case_of(residuals, network(dim), grid(dim=dim)).order == order


def test_parts_of_a_homogeneous_equation_are_those_of_its_derivatives():
    model, points = network(2), heat_points()
    p = points["pde"].clone().requires_grad_()
    first = d(model(p), p)
    parts = first[:, :1], first[:, 1:] * 0, 0.1 * d(first[:, 1:], p)[:, 1:]
    found = case_of(heat, model, points).parts
    asked = float(torch.sin(math.pi * points["ic"][:, 1:]).square().mean().sqrt())
    assert found["pde"] == pytest.approx(max(*map(rms, parts), asked))  # over a time of 1
    assert found["bc"] == pytest.approx(asked)  # not the size of u, which is still small
    assert case_of(heat, model, points).size < asked / 2


def test_parts_are_those_of_every_output():
    """u + v = 1, as of susceptible and recovered people: their derivatives cancel, and count."""
    model, x = network(), grid()

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u = model

        def forward(self, x: Tensor) -> Tensor:
            u = 20 * self.u(x)
            return torch.cat([u, 1 - u], 1)

    def rates(both: nn.Module, points: Tensor) -> dict[str, Tensor]:
        p = points.clone().requires_grad_()
        return {"u": d(both(p)[:, :1], p) + both(p)[:, :1]}

    p = x.clone().requires_grad_()
    slope = 20 * d(model(p), p)
    found = case_of(rates, Both().double(), x).parts["u"]
    assert found == pytest.approx(max(math.sqrt(2) * rms(slope), found))
    assert found > rms(slope)


def test_points_of_a_grid_are_its_nodes():
    """u_t = -u on nodes of t and x, (5, 4) each, worst at the first two times."""
    t, x = torch.meshgrid(torch.linspace(0, 1, 5), torch.linspace(0, 2, 4), indexing="ij")

    class Grid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(2)

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return 1 + t * self.net(torch.stack([t, x], -1))[..., 0]

    def decay(model: nn.Module, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        t = points["t"].clone().requires_grad_()
        u = model(t, points["x"])
        return {"ode": d(u, t) + u + 1e3 * (t.detach() < 0.3)}

    case = case_of(decay, Grid(), {"t": t.double(), "x": x.double()})
    assert case.points["ode"].shape == (20, 2)
    assert case.concentration["ode"]["early"] == 1.0


def test_time_is_where_u_holds_by_construction():
    """u = 1 + t net: the low end of t, and of no other coordinate; between walls there is none."""
    points = grid(60, 2)

    def slope_in_t(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        p = points.clone().requires_grad_()
        return {"ode": d(model(p), p)[:, :1]}

    class Held(nn.Module):
        def __init__(self, factor: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.net, self.factor = network(2), factor

        def forward(self, x: Tensor) -> Tensor:
            return 1 + self.factor(x) * self.net(x)

    started = case_of(slope_in_t, Held(lambda x: x[:, :1]), points)
    walled = case_of(slope_in_t, Held(lambda x: (x * (1 - x))[:, :1]), points)
    assert started.time("ode") == 0
    assert walled.time("ode") is None


@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [(nn.Tanh, 0, 1e-8), (nn.SiLU, 0, 1e-8), (nn.ReLU, 0.99, 1.01), (nn.LeakyReLU, 0.9, 1.1)],
)
def test_kinks_are_what_derivatives_miss(activation: type[nn.Module], low: float, high: float):
    share = case_of(heat, network(2, activation), heat_points()).kinks["pde"]
    assert low <= share <= high


def test_a_steep_network_has_no_kinks():
    model = network(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    assert case_of(heat, model, heat_points()).kinks["pde"] < 0.3


def test_a_detached_factor_is_seen_along_a_direction():
    def partly(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model(x)
        return {"ode": u.detach() * d(u, x) - 1, "start": model(0 * points[:1])}

    cut = case_of(partly, network(), grid()).cut
    assert cut["ode"] > 0.1
    assert cut["start"] < 1e-6


def test_fresh_points_move_the_points_of_the_equation_alone():
    case = case_of(heat, network(2), heat_points())
    assert set(case.holders) == {"pde"}
    (name,) = case.holders["pde"]
    ran = case.rerun(Change(tensors=lambda n, old: old / 2 if n == name else old))
    moved = heat(network(2), {**heat_points(), "pde": heat_points()["pde"] / 2})["pde"]
    assert torch.equal(ran.residuals["pde"], moved)


def test_targets_of_the_points_keep_them_where_they_are():
    def data(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x = batch[0].clone().requires_grad_()
        return {"ode": d(model(x), x) - batch[1]}

    points = grid()
    assert case_of(data, network(), (points, torch.cos(points))).holders == {}
    assert case_of(data, network(), (points, torch.zeros(20, 1))).holders != {}


def test_points_that_a_step_makes_are_moved_and_global_ones_put_back():
    kept = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]

    def made(model: nn.Module, _: Any) -> dict[str, Tensor]:
        x = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None].requires_grad_()
        y = kept.requires_grad_()
        return {"ode": d(model(x), x) - torch.cos(x), "other": d(model(y), y)}

    case = case_of(made, network(), 0)
    assert case.holders == {"ode": ["made.0"]}  # what is read of global ones is as it was
    assert torch.equal(kept, torch.linspace(0, 1, 5, dtype=torch.float64)[:, None])


def test_a_value_that_nothing_fixes_is_free():
    def no_start(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        return {"ode": slope(model, points)["ode"]}

    fixed, free = (case_of(r, network(), grid()).free for r in (slope, no_start))
    assert fixed["u"] < 1e-5
    assert free["u"] > 1e-3
    assert free["size"] > 100 * fixed["size"]


def test_conditions_clash_by_what_they_ask_for():
    def clashing(model: nn.Module, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**heat(model, points), "ic": model(points["ic"]) - 2}

    assert case_of(heat, network(2), heat_points()).clash == (
        "ic",
        "bc",
        pytest.approx(0, abs=1e-12),
    )
    assert case_of(clashing, network(2), heat_points()).clash == ("ic", "bc", pytest.approx(1.0))


def test_modes_are_those_of_the_block():
    model, points = network(), grid()
    residuals = slope(model, points)
    case = case_of(slope, model, points)
    K = empirical_ntk(residuals, model)["ode"]
    r = residuals["ode"].detach().flatten()
    values, vectors = torch.linalg.eigh(K)
    energy = (vectors.mT @ r).square() / r.square().sum()
    align, slow = case.modes["ode"]
    assert align == pytest.approx(float(r @ K @ r / (values[-1] * (r @ r))))
    assert slow == pytest.approx(float(energy[values < 1e-3 * values[-1]].sum()))


def test_repeated_points_are_counted():
    points = heat_points()
    points["pde"] = points["pde"][:3].repeat(20, 1)
    assert case_of(heat, network(2), points).repeated["pde"] == (3, 60)


def test_a_long_time_adds_up():
    def decay(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model(x)
        return {"ode": d(u, x) + 2 * u, "start": model(points[:1]) - 1}

    points = 6 * grid()
    model = network()
    case = case_of(decay, model, points)
    x = points.clone().requires_grad_()
    u, u_x = model(x), d(model(x), x)
    size = float(u.detach().square().mean().sqrt())
    added = case.rms["ode"] * 6 / size
    times = 6 * float(u_x.detach().square().mean().sqrt()) / size
    assert case.duration == {
        "ode": {"times": pytest.approx(times), "sum": pytest.approx(added), "order": 1}
    }
    assert case_of(heat, network(2), heat_points()).duration["pde"]["times"] > 0


@pytest.mark.parametrize(("total", "time"), [(0.0, 0), (1.0, None)])
def test_a_sum_that_is_conserved_is_no_condition_in_time(total: float, time: int | None):
    """u' = -u, v' = u, u(0) = 1, and u + v at all times: u = 0 solves it, or it is like data."""

    def pair(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u, v = model(x).split(1, 1)
        start = model(points[:1])[:, :1] - 1
        return {"u": d(u, x) + u, "v": d(v, x) - u, "total": u + v - total, "start": start}

    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    case = case_of(pair, model, grid())
    assert case.time("u") == time
    assert case.beginnings is (time == 0)


def test_two_point_problems_have_no_time():
    def poisson(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        return {"pde": d(d(model(x), x), x), "bc": model(points[[0, -1]])}

    case = case_of(poisson, network(), grid())
    added = case.rms["pde"] / 8 / case.size
    assert case.duration == {"pde": {"sum": pytest.approx(added)}}


def test_parameters_that_no_optimizer_holds_by_name_and_share():
    model = network()
    optimizer = torch.optim.Adam(model[4].parameters())
    case = case_of(slope, model, grid(), optimizer=optimizer)
    assert case.unheld == ["0.weight", "0.bias", "2.weight", "2.bias"]
    J = torch.cat(
        [
            empirical_ntk(slope(model, grid()), model).jacobian(t).dense() / n**0.5
            for t, n in (("ode", 20), ("start", 1))
        ]
    )
    inside = J[:, -17:].square().sum() / J.square().sum()
    assert case.unheld_share == pytest.approx(1 - float(inside), rel=0.5)  # by four random probes


@pytest.mark.parametrize(
    ("rates", "idle"), [((1e-3, 1e-3), []), ((1e-3, 0.0), ["4.weight", "4.bias"]), ((0.0, 0.0), [])]
)
def test_parameters_whose_group_stands_still(rates: tuple[float, float], idle: list[str]):
    """A warm-up from 0 has the rate of all groups at 0."""
    model = network()
    groups = (model[:4].parameters(), model[4].parameters())
    optimizer = torch.optim.Adam(
        [{"params": p, "lr": lr} for p, lr in zip(groups, rates, strict=True)]
    )
    assert case_of(slope, model, grid(), optimizer=optimizer).idle == idle


def test_the_derivative_of_a_steep_network_is_whole():
    """Central differences of the longer step are off by more than a branch that is cut off."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(),
        nn.Linear(40, 1),
    ).double()  # fmt: skip
    for layer in model[::2]:
        nn.init.normal_(layer.weight, std=2.0)
    case = case_of(slope, model, grid())
    direction = {n: _direction(n, p) for n, p in case.wide.params.items()}
    assert case._cut(direction, LENGTHS[0])["ode"] > 3 * WHOLE
    assert case.cut["ode"] < WHOLE


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [(0.02, 0.02, 0.02), (0.5, 0.005, 0.0), (0.52, 0.025, 0.02), (0.001, 0.002, 0.002)],
)
def test_what_two_lengths_of_differences_leave(first: float, second: float, left: float):
    assert _left(first, second, 100.0) == pytest.approx(left, abs=1e-4)


def test_what_cannot_be_looked_at_has_a_reason():
    found = slope(network(), grid())
    case = Case(look(None, network(), residuals=found))
    assert case.zero == {}
    assert case.fresh == {}
    assert set(case.missing.values()) == {"there is no residual function"}


def test_a_number_that_the_module_holds_and_nobody_trains():
    class Inverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()
            self.k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
            self.start = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
            self.error = nn.MSELoss()

    def residuals(model: Any, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u_0 = model.net(model.start)
        _ = model.error(u_0, torch.zeros_like(u_0))  # which is no network
        return {"ode": d(model.net(x), x) + model.k * model.net(x), "start": d(u_0, model.start)}

    model = Inverse()
    optimizer = torch.optim.Adam(model.net.parameters())
    case = case_of(residuals, model, grid(), optimizer=optimizer)
    assert case.unheld == ["k"]
    assert case.order == {"ode": 1, "start": 1}


def test_a_number_wrapped_anew_is_no_point_and_no_weight():
    model, weight = network(), torch.ones((), requires_grad=True)
    x = torch.zeros(
        1, 1, dtype=torch.float64, requires_grad=True
    )  # of one point, differentiated by
    at_0 = (d(model(x), x) - 1).square().mean()
    data = (model(grid()) - 1).square().mean()
    anew = torch.tensor(float(data.detach()), requires_grad=True)
    elsewhere = {"data": model(grid()) - 1}  # residuals that are not those of the loss

    def wrapped(loss: Tensor) -> int:
        return Case(look(loss, model, residuals=elsewhere)).wrapped

    assert wrapped(data + 3 * at_0) == 0
    assert wrapped(weight * data + at_0) == 0
    assert wrapped(at_0 + anew) == 1
    assert wrapped(at_0 + 2 * anew) == 1
    assert wrapped(torch.zeros(1, requires_grad=True) + data + at_0) == 0  # a sum begins so


def scaled(layer: Tensor) -> dict[str, float]:
    """What is said of the inputs of a network whose first layer sees these."""
    net = network(layer.shape[1])

    def value(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        return {"data": model(points) - 1}

    return case_of(value, net, layer).inputs


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.GELU, nn.Softplus, nn.ELU, nn.Mish])
def test_units_that_give_the_same_at_all_points(activation: type[nn.Module]):
    model = network(activation=activation)
    assert (case_of(slope, model, grid()).dead or 0.0) < 0.7  # half of those of a ReLU may be
    nn.init.constant_(model[0].bias, -40.0)
    assert case_of(slope, model, grid()).dead == 1.0


def test_a_softplus_that_bends_slowly_is_not_dead():
    model = network(activation=lambda: nn.Softplus(beta=0.1))
    nn.init.constant_(model[0].bias, -10.0)
    assert case_of(slope, model, grid()).dead == 0.0


def test_one_input_in_years_counts():
    """t in [1990, 2020] beside x in [0, 1]; the spread of a uniform grid is 30 / sqrt(12)."""
    at = torch.stack([torch.linspace(1990, 2020, 400), torch.rand(400)], 1).double()
    seen = scaled(at)
    assert seen["largest"] == 2020
    assert seen["offset"] == pytest.approx(2005 / (30 / math.sqrt(12)), rel=0.01)


def test_one_flat_feature_among_many_does_not():
    """cos(b x) with a small b is nearly 1 everywhere."""
    x = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    features = torch.cos(x * torch.tensor([0.1, *range(3, 18)], dtype=torch.float64))
    assert features.mean(0)[0] / features.std(0)[0] > 100
    seen = scaled(features)
    assert seen["offset"] < 1
    assert seen["spread"] > 0.5
