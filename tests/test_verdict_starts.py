"""What holds at the start of an equation in time: by construction, as values, as a rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from tests.cases_of_residuals import case_of, d, grid, network

Points = Mapping[str, Tensor]


def plane() -> dict[str, Tensor]:
    """Points of the equation, of the start, of both walls and of the end in time."""
    x = grid(12)
    at = {name: torch.full_like(x, value) for name, value in (("low", 0.0), ("high", 1.0))}
    return {
        "pde": grid(60, 2),
        "start": torch.cat([x, at["low"]], 1),
        "walls": torch.cat([torch.cat([at["low"], x], 1), torch.cat([at["high"], x], 1)]),
        "end": torch.cat([x, at["high"]], 1),
        "inside": 0.3 + 0.4 * grid(12, 2),
    }


def wave(rate: bool, further: str = "", order: int = 2) -> Callable[[nn.Module, Points], Points]:
    """u_tt = u_xx, or u_t = u_xx, with walls, u at the start, u_t there, and values further on."""

    def residuals(model: nn.Module, points: Points) -> dict[str, Tensor]:
        p = points["pde"].clone().requires_grad_()
        u = d(model(p), p)
        u_xx = d(u[:, :1], p)[:, :1]
        by_t = u[:, 1:] if order == 1 else d(u[:, 1:], p)[:, 1:]
        start = points["start"].clone().requires_grad_()
        at_start = model(start)
        found = {"pde": by_t - u_xx, "value": at_start - 1, "walls": model(points["walls"])}
        found |= {"rate": d(at_start, start)[:, 1:]} if rate else {}
        return found | ({further: model(points[further]) - 1} if further else {})

    return residuals


CASES = [
    (wave(rate=False), ["pde"]),
    (wave(rate=True), []),
    (wave(rate=False, order=1), []),
    (wave(rate=False, further="end"), []),
    (wave(rate=False, further="inside"), []),
]


@pytest.mark.parametrize(("residuals", "missing"), CASES)
def test_a_rate_is_missing_where_an_equation_of_second_order_has_values_alone(
    residuals: Callable[[nn.Module, Points], Points], missing: list[str]
):
    case = case_of(residuals, network(2), plane())
    assert case.time("pde") == 1
    assert case.without_rate == missing


@pytest.mark.parametrize(("power", "time"), [(1, 0), (2, 0), (0, None)])
def test_what_a_step_puts_around_its_network_holds_u_at_the_start(power: int, time: int | None):
    """u = 2 + tanh(t)^n net, of second order and along a line, with no other term."""

    def pendulum(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        t = points.clone().requires_grad_()
        u = 2 + torch.tanh(t) ** power * model(t)
        return {"ode": d(d(u, t), t) + torch.sin(u)}

    case = case_of(pendulum, network(), 6 * grid(60))
    assert case.time("ode") == time


def layer(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    """u'' = 1 with u given at both ends, by a call for each."""
    x = points.clone().requires_grad_()
    ends = [model(torch.full((1, 1), value, dtype=x.dtype)) for value in (0.0, 1.0)]
    return {"ode": d(d(model(x), x), x) - 1, "ends": torch.cat(ends)}


@pytest.mark.parametrize("half", [1.0, 0.5])
def test_both_ends_in_one_term_are_no_start(half: float):
    case = case_of(layer, network(), half * grid())
    assert case.spots["ends"].flatten().tolist() == [0.0, 1.0]
    assert len(case.points["ends"]) == 1
    assert case.time("ode") is None
    assert case.without_rate == []
    assert not case.beginnings
