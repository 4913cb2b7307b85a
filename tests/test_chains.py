"""Layers that a step calls one by one are a network, told by the graph between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk.looks.networks import zero
from pinn_ntk.looks.rerun import Change, Rerun
from tests.cases_of_residuals import case_of, d, grid


class Layers(nn.Module):
    """Layers and no network; `way` puts them together."""

    def __init__(self, way: Callable[[Layers, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(1, 16), nn.Linear(16, 16)
        self.gate, self.last = nn.Linear(1, 16), nn.Linear(16, 1)
        self.trunk = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.way = way
        self.double()

    def u(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def plain(m: Layers, x: Tensor) -> Tensor:
    return m.last(m.second(m.first(2 * x - 1).tanh()).tanh())


def gated(m: Layers, x: Tensor) -> Tensor:
    gate, h = m.gate(x).tanh(), m.first(x).tanh()
    h = m.second(gate * h + (1 - gate) * x).tanh()
    return m.last(h + gate)


def behind_a_network(m: Layers, x: Tensor) -> Tensor:
    return m.last(m.trunk(x))


def ansatz(m: Layers, x: Tensor) -> Tensor:
    return 1 + x * plain(m, x)


def decay(model: Layers, points: Tensor) -> dict[str, Tensor]:
    t = points.clone().requires_grad_()
    u = model.u(t)
    return {"ode": d(u, t) + 2 * u, "start": model.u(torch.zeros(1, 1).to(t)) - 1}


@pytest.mark.parametrize("way", [plain, gated, behind_a_network, ansatz])
def test_the_last_layer_is_the_network_and_the_points_are_those_of_the_first(
    way: Callable[[Layers, Tensor], Tensor],
):
    case = case_of(decay, Layers(way), grid())  # type: ignore[arg-type]
    assert case.base is not None
    assert [call.name for call in case.base.calls] == ["last", "last"]
    assert case.order == {"ode": 1, "start": 0}
    assert len(case.points["ode"]) == 20
    assert case.time("ode") == (0 if way is not ansatz else case.time("ode"))
    assert case.error is not None


def test_a_field_takes_the_place_of_the_output_of_the_chain():
    run = Rerun(Layers(plain), grid(), decay)  # type: ignore[arg-type]
    at_zero = run(Change(output=zero)).residuals
    assert float(at_zero["ode"].detach().abs().max()) == 0.0
    assert at_zero["start"].tolist() == [[-1.0]]


def test_a_layer_that_comes_first_and_last_is_none():
    def both(m: Layers, x: Tensor) -> Tensor:
        return m.second(m.second(m.first(x).tanh()).tanh())[:, :1]

    run = Rerun(Layers(both), grid(), decay)  # type: ignore[arg-type]
    assert all(call.leaf for call in run().calls)


def test_layers_within_vmap_are_looked_at_one_by_one():
    def mapped(m: Layers, x: Tensor) -> Tensor:
        return torch.func.vmap(lambda one: plain(m, one))(x)

    run = Rerun(Layers(mapped), grid(), decay)  # type: ignore[arg-type]
    assert {call.name for call in run().calls} == {"first", "second", "last"}
