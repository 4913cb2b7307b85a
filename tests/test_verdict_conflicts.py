"""What the best step leaves of each term, phases of equations, and walls of an ansatz."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from tests.cases_of_residuals import case_of, d, grid, network


def decay(last: float | None, weight: float = 1.0) -> object:
    def residuals(model: nn.Module, points: Tensor) -> Mapping[str, Tensor]:
        """u' = -2 u, u(0) = 1, and perhaps a value at the end."""
        t = points.clone().requires_grad_()
        u = model(t)
        found = {"ode": d(u, t) + 2 * u, "start": weight * (u[:1] - 1)}
        return found if last is None else found | {"end": u[-1:] - last}

    return residuals


@pytest.mark.parametrize(("last", "odds"), [(None, False), (math.exp(-2), False), (2.0, True)])
def test_terms_at_odds_are_left_by_the_best_step_and_solved_alone(last: float | None, odds: bool):
    case = case_of(decay(last), network(), grid(40))  # type: ignore[arg-type]
    assert all(alone < 0.05 for _, alone in case.apart.values())
    assert (max(together for together, _ in case.apart.values()) > 0.3) == odds


def test_what_is_left_does_not_depend_on_the_scale_of_a_term():
    one, many = (
        case_of(decay(2.0, weight), network(), grid(40)).apart  # type: ignore[arg-type]
        for weight in (1.0, 1000.0)
    )
    assert one["start"] == pytest.approx(many["start"], rel=1e-6)


def helmholtz(k: float, sign: float) -> object:
    def residuals(model: nn.Module, points: Tensor) -> Mapping[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model(x)
        u_xx = d(d(u, x), x)
        return {"pde": u_xx / k**2 + sign * u, "wall": model(torch.zeros(1, 1).double()) - 1}

    return residuals


@pytest.mark.parametrize("k", [2.0, 30.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_phase_of_an_equation_is_its_wave_number_times_its_length(k: float, sign: float):
    case = case_of(helmholtz(k, sign), network(), grid())  # type: ignore[arg-type]
    assert case.phase["pde"] == pytest.approx([k], rel=1e-6)


def test_phases_of_a_heat_equation_are_by_coordinate():
    def residuals(model: nn.Module, points: Tensor) -> Mapping[str, Tensor]:
        p = points.clone().requires_grad_()
        u = model(p)
        first = d(u, p)
        u_xx = d(first[:, 1:], p)[:, 1:]
        return {"pde": first[:, :1] - 0.01 * u_xx + 4 * u}

    points = torch.cartesian_prod(grid(6)[:, 0], 2 * grid(6)[:, 0])
    case = case_of(residuals, network(2), points)
    assert case.phase["pde"] == pytest.approx([4.0, 2 * math.sqrt(4 / 0.01)], rel=1e-6)


class Ansatz(nn.Module):
    """u = x (1 - x) net(x), or y besides, or u = net(x)."""

    def __init__(self, axes: int, held: bool = True) -> None:
        super().__init__()
        self.net, self.held = network(axes), held

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return (x * (1 - x)).prod(1, keepdim=True) * out if self.held else out


@pytest.mark.parametrize(
    ("axes", "held", "part", "wall"),
    [(1, True, 1.0, None), (1, True, 0.4, 1.0), (1, False, 0.4, None), (2, True, 0.3, 1.0)],
)
def test_a_wall_beyond_the_points_is_found(axes: int, held: bool, part: float, wall: float | None):
    def residuals(model: nn.Module, points: Tensor) -> Mapping[str, Tensor]:
        x = points.clone().requires_grad_()
        u_x = d(model(x), x)
        return {"pde": torch.stack([d(u_x[:, k], x)[:, k] for k in range(axes)]).sum(0) - 1}

    points = part * grid(60, axes)
    walled = case_of(residuals, Ansatz(axes, held), points).walled
    assert bool(walled) == (wall is not None)
    if wall is not None:
        axis, end, place = walled["pde"]
        assert end == pytest.approx(float(points[:, axis].max()))
        assert place == pytest.approx(wall, abs=0.02)


def test_a_few_points_inside_are_not_far_from_the_walls():
    def residuals(model: nn.Module, points: Tensor) -> Mapping[str, Tensor]:
        x = points.clone().requires_grad_()
        return {"pde": d(d(model(x), x), x) - 1}

    assert case_of(residuals, Ansatz(1), grid(7)[1:-1]).walled == {}


@pytest.mark.parametrize(
    ("kind", "loose"), [("plain", True), ("around", False), ("singular", False), ("within", False)]
)
def test_equations_alone_hold_u_by_an_ansatz_or_where_they_are_singular(kind: str, loose: bool):
    def residuals(model: nn.Module, points: Tensor) -> Mapping[str, Tensor]:
        x = points.clone().requires_grad_()
        u = model(x) * (x * (1 - x) if kind == "around" else 1)
        u_x = d(u, x)
        factor = x if kind == "singular" else 1
        return {"ode": d(u_x, x) * factor + 4 * u - 1}

    case = case_of(residuals, Ansatz(1, kind == "within"), grid(40))
    assert case.loose == loose
