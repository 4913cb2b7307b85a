"""Terms that take rows of a call, outputs of a network, and u in units of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import diagnose, look
from pinn_ntk.looks.in_double import InDouble
from pinn_ntk.looks.rerun import Rerun
from pinn_ntk.verdict.cause import Cause
from tests.cases_of_residuals import case_of, d, grid, network

ROWS = [slice(0, 1), slice(-1, None), slice(3, 7), [2, 5, 11]]


def decay(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    """u' = -2 u and u(0) = 1, all of one call."""
    t = points.clone().requires_grad_()
    u = model(t)
    u_t = d(u, t)
    return {"ode": u_t + 2 * u, "start": u[0] - 1, "slope": u_t[:1] + 2}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_points_of_rows_of_a_call_are_those(rows: slice | list[int], order: int):
    def residuals(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        fields = [model(x)]
        for _ in range(2):
            fields.append(d(fields[-1], x))
        return {"pde": fields[2], "condition": fields[order][rows] - 1}

    case = case_of(residuals, network(), grid())
    assert torch.equal(case.points["condition"], grid()[rows])
    assert torch.equal(case.points["pde"], grid())


def test_rows_of_several_points_have_none():
    def residuals(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model(x)
        return {"pde": d(u, x), "periodic": u[0] - u[-1]}

    assert "periodic" not in case_of(residuals, network(), grid()).points


def test_a_condition_that_is_a_row_tells_what_is_time():
    case = case_of(decay, network(), grid())
    assert case.time("ode") == 0
    assert "early" in case.concentration["ode"]


def test_a_derivative_at_a_row_is_held_against_that_of_the_network():
    def residuals(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model(x)
        u_x = d(u, x)
        return {"pde": d(u_x, x) - 9, "insulated": u_x[-1]}

    case = case_of(residuals, network(), grid())
    size = case.size
    assert size is not None
    assert case.parts["insulated"] >= size  # of a box of length 1
    assert case.left["insulated"] < 1


class Pair(nn.Module):
    """Two outputs of one network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 2)).double()

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.net(t)
        return out


@pytest.mark.parametrize(("second", "difference"), [(1, None), (0, 3.0)])
def test_conditions_on_different_outputs_do_not_clash(second: int, difference: float | None):
    def residuals(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        t = points.clone().requires_grad_()
        u = model(t)
        start = model(torch.zeros(1, 1, dtype=torch.float64))
        return {
            "ode": d(u[:, :1], t) - u[:, 1:],
            "u_0": start[:, 0] - 1,
            "v_0": start[:, second] + 2,
        }

    clash = case_of(residuals, Pair(), grid()).clash
    assert (clash and clash[2]) == (difference and difference / 2)


class Kelvin(nn.Module):
    """u = 900 net(x), or an offset beside a network."""

    def __init__(self, unit: float, offset: float) -> None:
        super().__init__()
        self.net, self.unit, self.offset = network(), unit, offset

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.unit * self.net(x) + self.offset
        return out


@pytest.mark.parametrize(
    ("unit", "offset", "wall", "far"),
    [(1.0, 0.0, 900.0, True), (900.0, 0.0, 900.0, False), (1.0, 3e7, 3e7 + 1, False)],
)
def test_outputs_are_held_against_what_the_network_gives(
    unit: float, offset: float, wall: float, far: bool
):
    def residuals(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model(x)
        return {"fin": d(d(u, x), x) - (u - offset), "wall": model(x[:1].detach()) - wall}

    case = case_of(residuals, Kelvin(unit, offset), grid())
    assert case.unit == pytest.approx(unit, rel=1e-6)
    assert (max(case.demand.values()) / unit > 100) == far


def test_numbers_drawn_into_a_tensor_are_the_same_in_float64():
    def drawn() -> list[Tensor]:
        torch.manual_seed(0)
        x = torch.empty(40, 1).uniform_(0, 3)
        return [x, torch.rand_like(x), torch.zeros(40).normal_()]

    narrow = drawn()
    with InDouble():
        wide = drawn()
    assert all(w.dtype == torch.float64 for w in wide)
    assert all(torch.equal(n.double(), w) for n, w in zip(narrow, wide, strict=True))


def test_rounding_is_not_said_where_other_points_are_drawn():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network().float()

    def residuals(model: nn.Module, points: Tensor) -> Mapping[str, Tensor]:
        width = torch.randn(40, dtype=next(model.parameters()).dtype).std().item()
        x = (points.to(next(model.parameters())) * (1 + width)).requires_grad_()
        return {"ode": d(model.net(x), x)}  # type: ignore[operator]

    model = Own()
    case = case_of(residuals, model, grid().float())
    assert case.rounding == {}
    assert "float64" in case.missing


def test_steep_inputs_are_not_kinks():
    def residuals(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model(2e4 * x)
        return {"pde": d(d(u, x), x) / 4e8 - 1, "wall": model(torch.zeros(1, 1).to(x)) - 1}

    model, points = network(), grid(60)
    assert case_of(residuals, model, points).kinks == {"pde": 0.0}
    found = residuals(model, points)
    loss = torch.stack([r.square().mean() for r in found.values()]).sum()
    verdict = diagnose(look(loss, model, residuals=found), residuals=residuals, points=points)
    assert verdict.cause != Cause.DERIVATIVE_VANISHES


def test_the_order_is_found_beside_u_where_u_0_has_no_logarithm():
    class Positive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, t: Tensor) -> Tensor:
            return nn.functional.softplus(self.net(t))

    def growth(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        t = points.clone().requires_grad_()
        u = model(t)
        return {"ode": d(u, t) + u * u.log(), "start": model(torch.zeros(1, 1).to(t)) - 0.1}

    assert case_of(growth, Positive(), grid()).order == {"ode": 1, "start": 0}


class Seeded(nn.Module):
    """Draws points from a generator; held points, or a grid, on demand."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = network(), kind
        self.held = torch.rand(12, 1).double()
        self.generator = torch.Generator().manual_seed(7)

    def sample(self) -> Tensor:
        if self.kind == "grid":
            return torch.linspace(0, 1, 12).double()[:, None]
        if self.kind == "held":
            return self.held
        anew = torch.Generator().manual_seed(7)
        generator = anew if self.kind == "seeded" else self.generator
        return torch.rand(12, 1, generator=generator).double()


@pytest.mark.parametrize(("kind", "count"), [("seeded", 12), ("grid", 0), ("held", 0), ("own", 0)])
def test_points_from_a_generator_seeded_at_each_step_are_drawn_again(kind: str, count: int):
    def residuals(model: Seeded, points: Tensor) -> dict[str, Tensor]:
        x = model.sample().clone().requires_grad_()
        return {"ode": d(model.net(x), x)}

    before, after = Seeded(kind), Seeded(kind)
    if kind == "own":
        after.sample()
    if kind == "held":
        after.held = before.held
    case = case_of(residuals, after, grid())  # type: ignore[arg-type]
    earlier = Rerun(before, grid(), residuals)  # type: ignore[arg-type]
    case.look = replace(case.look, earlier=(earlier,))
    assert case.redrawn == ({"ode": count} if count else {})
