"""(N, 1) against (N,): N^2 rows made of N, said at once and measured at the cost of N."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measure import peak_extra_memory
from pinn_ntk import NTK, NTKWarning, empirical_ntk, reference_ntk
from pinn_ntk.graph.broadcast import spread_by_accident
from pinn_ntk.graph.params import named_leaves
from pinn_ntk.kernel.parts import Parts
from tests.asserts import assert_is_ntk_of, backward_passes
from tests.networks import NETWORKS
from tests.operators import grad, points

pytestmark = pytest.mark.usefixtures("float64")

N = 5

Pair = Callable[[Tensor, Tensor], Tensor]

ACCIDENTS: dict[str, Pair] = {
    # u and v (n, 1) of the network -> (n, n)
    "minus_target": lambda u, _v: u - torch.linspace(0, 1, len(u)),
    "target_minus": lambda u, _v: torch.linspace(0, 1, len(u)) - u,
    "flat_minus_column": lambda u, _v: u[:, 0] - torch.linspace(0, 1, len(u))[:, None],
    "minus_row": lambda u, _v: u - torch.linspace(0, 1, len(u))[None],
    "minus": lambda u, v: u - v[:, 0],
    "minus_row_of_two": lambda u, v: u - v.T,
    "times": lambda u, v: u * v[:, 0],
    "over": lambda u, v: v[:, 0] / (2 + u),
    "plus_and_scaled": lambda u, v: 3 * (u + v[:, 0]).tanh(),
    "where": lambda u, v: torch.where(u > u.mean(), u, v[:, 0]),
    "where_of_a_mask": lambda u, v: torch.where((u > u.mean())[:, 0], u, v * u),
    "maximum": lambda u, v: torch.maximum(u, v[:, 0]),
    "addcmul": lambda u, v: torch.addcmul(u, u, v[:, 0], value=2.0),
    "addcdiv": lambda u, v: torch.addcdiv(v[:, 0], u, 2 + v),
    "pow": lambda u, v: (2 + u).pow(v[:, 0]),
    "atan2": lambda u, v: torch.atan2(u, v[:, 0]),
    "hypot": lambda u, v: torch.hypot(u, v[:, 0]),
    "lerp": lambda u, v: torch.lerp(u, v[:, 0], 0.3),
    "fmod": lambda u, v: torch.fmod(u, 0.1 + v[:, 0].detach().abs()),
    "logaddexp": lambda u, v: torch.logaddexp(u, v[:, 0]),
    "weighted_afterwards": lambda u, v: (u - v[:, 0]) * torch.linspace(1, 2, len(u)) + 1,
    "twice": lambda u, v: (u - v[:, 0]) * u.T,
    "of_its_own_square": lambda u, _v: u - (u**2)[:, 0],
    "one_more_axis": lambda u, v: u[None] - v[:, 0],
    "expanded": lambda u, v: u.expand(-1, len(u)) - v[:, 0].expand(len(u), -1),
    "by_mse": lambda u, v: torch.sub(*torch.broadcast_tensors(u, v[:, 0])),
}


def built(pair: Pair, count: int = N) -> tuple[Tensor, nn.Module]:
    net, x = NETWORKS["mlp"](1, 2), points(count, 1)
    u, v = net(x).split(1, 1)
    return pair(grad(u, x) + u, v), net


def heard(residual: Tensor, net: nn.Module, **options: bool) -> tuple[NTK, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        kernel = empirical_ntk({"pde": residual}, net, **options)
    assert all(w.category is NTKWarning and w.filename == __file__ for w in said)
    return kernel, [str(w.message) for w in said]


@pytest.mark.parametrize("pair", ACCIDENTS.values(), ids=ACCIDENTS)
def test_one_sentence_and_the_rows_of_all_pairs(pair: Pair):
    residual, net = built(pair)
    kernel, said = heard(residual, net)
    assert len(said) == 1
    assert said[0].startswith("term 'pde' of 25 rows is made of tensors of shapes (")
    assert "broadcast to (5, 5) by accident, likely (N,) - (N, 1)" in said[0]
    assert "Write f[:, None]" in said[0]
    assert kernel.jacobian("pde").fallbacks == {}
    assert_is_ntk_of(kernel, {"pde": residual}, net)


def test_points_that_need_no_gradient():
    net = NETWORKS["mlp"](1, 1)
    residual = net(points(N, 1).detach()) - torch.linspace(0, 1, N)
    kernel, said = heard(residual, net)
    assert "of shapes (5, 1) and (5,), broadcast to (5, 5) by accident" in said[0]
    assert len(said) == 1
    assert all(isinstance(f, Parts) for f in kernel.jacobian("pde").factors.values())
    assert_is_ntk_of(kernel, {"pde": residual}, net)


@pytest.mark.parametrize("pair", ACCIDENTS.values(), ids=ACCIDENTS)
def test_no_factor_has_more_rows_than_there_are_points(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    residual, net = built(pair, 12)
    made = backward_passes(monkeypatch)
    kernel, _ = heard(residual, net, certify=False)
    assert len(made) < 40  # most of them over the last operations alone
    for factor in kernel.jacobian("pde").factors.values():
        assert isinstance(factor, Parts)
        assert all(part.factor.count <= 12 for part in factor.parts)


def test_shapes_are_named():
    said = {}
    for name in ("minus_target", "flat_minus_column", "minus_row_of_two", "minus"):
        said[name] = heard(*built(ACCIDENTS[name]))[1][0]
    assert "of shapes (5, 1) and (5,), " in said["minus_target"]
    assert "of shapes (5, 1) and (5,), " in said["flat_minus_column"]
    assert "of shapes (5, 1) and (1, 5), " in said["minus_row_of_two"]
    assert "of shapes (5, 1) and (5,), " in said["minus"]


MEANT: dict[str, Pair] = {
    "column": lambda u, v: u - v,
    "flat": lambda u, v: (u - v)[:, 0],
    "components": lambda u, v: torch.cat([u, v, u * v, u - v, u + v], 1),  # (5, 5)
    "normals": lambda u, _v: u * torch.ones(1, 3),
    "pairs_of_two_sets": lambda u, v: u[:4] * v[:, 0],
    "coefficient": lambda u, _v: torch.ones(len(u)) * u.sum(),
    "two_points": lambda u, v: u[:2] - v[:2, 0],
    "its_mean_removed": lambda u, _v: u - u.mean(),
}


@pytest.mark.parametrize("pair", MEANT.values(), ids=MEANT)
def test_what_may_be_meant_is_not_called_an_accident(pair: Pair):
    residual, net = built(pair)
    kernel, said = heard(residual, net)
    assert said == []
    assert_is_ntk_of(kernel, {"pde": residual}, net)


def test_a_layer_as_wide_as_there_are_points_is_none():
    w, b, x = torch.randn(N, requires_grad=True), torch.randn(N, requires_grad=True), points(N, 1)
    assert spread_by_accident("pde", x * w + b, named_leaves([w, b])) is None


def test_rows_of_nine_points_against_row_by_row():
    net, x = NETWORKS["mlp"](1, 1), points(9, 1)
    residual = grad(net(x), x) - torch.linspace(0, 1, 9)
    kernel, _ = heard(residual, net)
    truth = reference_ntk({"pde": residual}, net)["pde", "pde"]
    assert float((kernel["pde"] - truth).norm()) <= 1e-13 * float(truth.norm())


def test_factors_and_trace_take_the_memory_of_the_residual():
    """10,000 rows at the size of 100 rows of a network 64 wide; row by row they take 0.8 GB."""
    net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    x = points(100, 1)
    residual = grad(net(x), x) - torch.linspace(0, 1, 100)

    def trace() -> float:
        kernel, _ = heard(residual, net)
        return kernel.trace("pde") + float(kernel.jacobian("pde").take(slice(0, 500)).gram().sum())

    assert peak_extra_memory(trace, residual.device)[1] < 20 * 2**20
