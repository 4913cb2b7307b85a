"""What u is where a network is only a part of it, and what the terms leave free of each field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.case import Case
from pinn_ntk.verdict.fields import fields
from tests.cases_of_residuals import case_of, d, grid, network, rms

Predict = Callable[[nn.Module, Tensor], Tensor]


class Nets(nn.Module):
    """Two networks, wider ones, and weights of a basis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = network(), network(), mlp(8, 1)
        self.branch, self.trunk = mlp(1, 8), mlp(1, 8)
        self.c = nn.Parameter(0.3 * torch.randn(8, 1, dtype=torch.float64))
        self.scale = nn.Parameter(torch.ones(2, 1, dtype=torch.float64))


def mlp(into: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(into, 16), nn.Tanh(), nn.Linear(16, out)).double()


def windows(nets: nn.Module, x: Tensor) -> Tensor:
    left = torch.sigmoid(8 * x)
    return left * nets.a(x) + (1 - left) * nets.b(x)


PARTS: dict[str, Predict] = {
    "one network": lambda nets, x: nets.a(x),
    "a sum": lambda nets, x: nets.a(x) + nets.b(x),
    "a product": lambda nets, x: nets.a(x) * (1 + nets.b(x) ** 2),
    "windows": windows,
    "branch and trunk": lambda nets, x: (nets.branch(0 * x + 1) * nets.trunk(x)).sum(1, True),
    "encoder and head": lambda nets, x: nets.head(nets.trunk(x)),
    "a basis": lambda nets, x: nets.trunk(x) @ nets.c,
}


def oscillator(predict: Predict, *, conditions: bool) -> Case:
    """u'' = -u, with both values that fix it or one of them."""

    def residuals(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = predict(nets, x)
        ends = torch.tensor([[-1.0], [1.0]] if conditions else [[-1.0]], dtype=x.dtype)
        return {"ode": d(d(u, x), x) + u, "ends": predict(nets, ends) - 1}

    return case_of(residuals, Nets(), grid())


@pytest.mark.parametrize("name", PARTS)
def test_u_is_what_the_parts_make_up(name: str):
    case = oscillator(PARTS[name], conditions=True)
    u = fields(case.wide, ["ode"])
    assert list(u) == ["u"]
    torch.testing.assert_close(u["u"], PARTS[name](Nets(), grid()))


@pytest.mark.parametrize("name", PARTS)
def test_u_is_free_where_a_condition_is_missing_and_not_where_none_is(name: str):
    fixed = oscillator(PARTS[name], conditions=True)
    loose = oscillator(PARTS[name], conditions=False)
    assert set(fixed.free) == {"u", "size", "mode", "a constant"}
    assert 8 * fixed.free["size"] < loose.free["size"]
    assert loose.free["mode"] > 0.5


@pytest.mark.parametrize("name", PARTS)
def test_order_and_points_are_those_of_the_equation(name: str):
    case = oscillator(PARTS[name], conditions=True)
    assert case.order == {"ode": 2, "ends": 0}
    if name != "encoder and head":  # whose head is called with what no point is
        assert case.repeated["ode"] == (len(grid()), len(grid()))


@pytest.mark.parametrize("flux", [True, False])
def test_a_field_beside_u_is_free_where_nothing_tells_its_size(flux: bool):
    def residuals(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u, conductivity = nets.a(x), nets.b(x)
        flow = conductivity * d(u, x)
        found = {"balance": d(flow, x) - 1, "readings": u - (x + x * x / 4).detach()}
        return found | ({"flux": flow[0] - 1} if flux else {})

    case = case_of(residuals, Nets(), grid())
    assert list(fields(case.wide, ["balance"])) == ["u", "b"]
    assert case.free["size"] < 1e-3
    assert (case.free_beside["b"]["size"] > 0.02) is not flux
    assert set(case.off) == {"b"}


def test_a_law_of_u_is_no_field_of_the_points():
    def residuals(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
        t = points.clone().requires_grad_()
        u = nets.a(t)
        return {"ode": d(u, t) - nets.b(u), "readings": u - torch.exp(-t.detach())}

    assert list(fields(case_of(residuals, Nets(), grid()).wide, ["ode"])) == ["u"]


def test_nothing_is_asked_of_several_networks_that_functions_derive():
    def residuals(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
        def u(x: Tensor) -> Tensor:
            return (nets.a(x[None]) + nets.b(x[None]))[0, 0]

        slope = torch.func.vmap(torch.func.grad(u))(points)
        return {"ode": slope - 1, "ends": nets.a(points[:1]) + nets.b(points[:1])}

    case = case_of(residuals, Nets(), grid())
    assert case.order["ode"] == 1
    assert (case.free, case.error) == ({}, None)


def weighted(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
    x = points.clone().requires_grad_()
    u = nets.a(x)
    ends = torch.tensor([[-1.0], [1.0]], dtype=x.dtype)
    return {"ode": d(d(u, x), x) + u, "ends": nets.scale * (nets.a(ends) - 1)}


def rate(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
    x = points.clone().requires_grad_()
    u = nets.a(x)
    return {"ode": d(u, x) + nets.scale[0] * u + nets.scale[1], "ends": nets.a(x[:1]) - 1}


def insulated(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
    """A conductivity that makes one term vanish, and not the equation."""
    x = points.clone().requires_grad_()
    flow = nets.scale[0] * d(nets.a(x), x)
    return {"ode": d(flow, x) + 1, "wall": nets.scale[1] * flow[:1]}


@pytest.mark.parametrize(
    ("residuals", "scales"), [(weighted, True), (rate, False), (insulated, False)]
)
def test_a_trained_weight_is_no_coefficient(residuals: Any, scales: bool):
    case = case_of(residuals, Nets(), grid())
    assert case.scaling["scale"] is scales
    assert ("scale" in case.free) is not scales


def test_points_of_a_subdomain_are_held_against_those_of_its_own_network():
    def halves(nets: nn.Module, points: Any) -> dict[str, Tensor]:
        left, right = (p.clone().requires_grad_() for p in points)
        middle = torch.zeros(1, 1, dtype=left.dtype)
        return {
            "left": d(d(nets.a(left), left), left) + 1,
            "right": d(d(nets.b(right), right), right) + 1,
            "middle": nets.a(middle) - nets.b(middle),
            "ends": torch.cat([nets.a(middle - 0.5), nets.b(middle + 0.5)]),
        }

    case = case_of(halves, Nets(), [grid() / 2 - 0.5, grid() / 2])
    assert case.networks["left"] == {"a"}
    assert case.networks["middle"] == {"a", "b"}
    assert case.networks["ends"] == {"a", "b"}
    assert set(case.holders) == {"left", "right"}
    assert case.outside == {}


def test_a_network_that_is_not_trained_is_no_field():
    case = oscillator(PARTS["a sum"], conditions=True)
    trained = {n: p for n, p in case.look.params.items() if not n.startswith("b.")}
    alone = Case(replace(case.look, trained=trained))
    assert alone.error is not None
    assert alone.free_beside == {}


def test_derivatives_are_noted_where_that_is_asked_for():
    case = oscillator(PARTS["a sum"], conditions=True)
    noted = case.rerun(Change(fields=True)).derived
    assert [rms(u) for u in noted] == [pytest.approx(rms(PARTS["a sum"](Nets(), grid())))]
    assert case.rerun(Change()).derived == []


@pytest.mark.parametrize(("held", "level"), [("slope", True), ("value", False)])
def test_what_is_free_is_a_constant_where_slopes_alone_are_given(held: str, level: bool):
    """u'' = 1 with u' at both ends, or with u at one of them."""

    def residuals(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u_x = d(nets.a(x), x)
        ends = u_x[[0, -1]] - x[[0, -1]] if held == "slope" else nets.a(x)[:1]
        return {"ode": d(u_x, x) - 1, "ends": ends}

    case = case_of(residuals, Nets(), grid())
    assert case.free["mode"] > 0.9
    assert (case.free["a constant"] > 0.95) is level


def test_outputs_may_each_be_free_up_to_a_constant():
    """A stream function and a pressure, of which derivatives alone are asked for."""

    def residuals(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        psi, p = nets.branch(x)[:, :2].split(1, dim=1)
        return {"slope": d(psi, x) - x, "balance": d(d(psi, x), x) + d(p, x)}

    nets = Nets()
    nets.branch[2] = nn.Linear(16, 2).double()
    case = case_of(residuals, nets, grid())
    assert case.free["mode"] < 0.95
    assert case.free["a constant"] > 0.95


def test_outputs_without_a_column_are_no_constants():
    """u (N,), free by a slope."""

    def residuals(nets: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = nets.flat(x)
        return {"ode": d(d(u, x), x) - 1, "start": u[:1]}

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[:, 0]

    nets = Nets()
    nets.flat = Flat()
    free = case_of(residuals, nets, grid()).free
    assert free["mode"] > 0.9
    assert free["a constant"] < 0.9
