"""Causes of lost rank: equal rows, among all or those kept, rows that stand still, broadcasting."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import Definiteness, Look, definiteness, look
from pinn_ntk.analysis.definiteness import EQUAL
from pinn_ntk.diagnostics.rank import _facts
from tests.looks import ask, look_at, rows, said, says
from tests.networks import stack

SAID = f"- R{EQUAL[1:]} from an earlier one, to rounding, of those looked at: "


def definite(look: Look, term: str = "pde") -> Definiteness:
    """As `Rank` asks for it."""
    residual, spectrum = look.residuals.get(term), look.spectra[term]
    return definiteness(look.sampled, term, residual, spectrum=spectrum, whole=look.kernel)


def test_lost_rank_is_recognised():
    A = rows(3)
    step = look_at({"pde": A, "bc": torch.cat([A[:2], A[:2]])})
    facts = ask(step).readings["rank"].facts
    assert facts["pde"] == {"broadcast": "", "still": 0, "rows": 3, "searched": 3, "equal": 0}
    assert definite(step, "bc").duplicates == ((0, 2), (1, 3))
    assert facts["bc"] == {"broadcast": "", "still": 0, "rows": 4, "searched": 4, "equal": 2}


def shaped(matrix: Tensor, shape: tuple[int, ...], max_points: int = 512) -> Look:
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    residuals = {"pde": (matrix @ theta).reshape(shape)}
    return look(None, [theta], residuals=residuals, max_points=max_points)


@pytest.mark.parametrize(("shape", "found"), [((12,), {}), ((3, 4), {"pde": (3, 4)})])
def test_a_residual_broadcast_by_accident_is_recognised_by_its_shape(
    shape: tuple[int, ...], found: dict[str, Any]
):
    matrix = (rows(3)[:, None] - rows(4, seed=1)).flatten(0, 1)
    step = shaped(matrix, shape)
    assert definite(step).broadcast == found
    assert ("broadcast" in ask(step, "rank").summary()) == bool(found)


@pytest.mark.parametrize("max_points", [512, 20])
@pytest.mark.parametrize("order", ["repeated", "tiled"])
@pytest.mark.parametrize("shape", [(100,), (100, 1)])
def test_repeats_on_purpose_are_no_accidental_broadcast(
    shape: tuple[int, ...], order: str, max_points: int
):
    """100 rows of a vector are ten points with ten targets each, not a (10, 10) matrix."""
    points = rows(10)
    matrix = points.repeat_interleave(10, 0) if order == "repeated" else points.repeat(10, 1)
    step = shaped(matrix, shape, max_points)
    assert definite(step).broadcast == {}
    assert f"{SAID}90 of 100 of pde." in ask(step).summary()
    unknown = definiteness(step.sampled, "pde", spectrum=step.spectra["pde"], whole=step.kernel)
    square = definite(shaped(matrix, (10, 10), max_points))
    assert unknown.broadcast == square.broadcast == {"pde": (10, 10)}


def network(points: Tensor, max_points: int = 512) -> Look:
    """u - u_x of a network with two hidden layers."""
    torch.manual_seed(3)
    net, x = stack([1, 20, 20, 1]).to(points.dtype), points[:, None].requires_grad_()
    u = net(x)
    (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return look(None, net, residuals={"pde": u - u_x}, max_points=max_points)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_are_found_among_those_left_out(dtype: torch.dtype):
    """Every third row is kept; the repeats are none of these."""
    points = torch.linspace(-1, 1, 1100, dtype=dtype)
    points[1:301:3] = points[2:302:3]
    points[4:904:30] = points[7]  # 30 of one kind, some of them in pairs already
    equal = 1100 - len(points.unique())
    step = network(points)
    assert definite(step).duplicates == ()
    assert f"{SAID}{equal} of 1100 of pde." in ask(step).summary()
    whole = network(points, max_points=1100)
    assert f"{SAID}{equal} of 1100 of pde." in ask(whole).summary()


@pytest.mark.parametrize("max_points", [9, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_different_points_have_no_equal_rows(dtype: torch.dtype, max_points: int):
    panel = ask(network(torch.linspace(-1, 1, 5000, dtype=dtype), max_points), "rank")
    assert SAID not in panel.summary()


def rank(term: str = "bc", **changes: Any) -> dict[str, Any]:
    """What is read of a term of four rows."""
    d = Definiteness(
        **{
            "name": term,
            "rows": 4,
            "parameters": 9,
            "rank": 4,
            "smallest": 0.5,
            "floor": 1e-12,
            "duplicates": (),
            "still": 0,
            "broadcast": {},
            **changes,
        }
    )
    return {"rank": {term: _facts(d)}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (rank(), "NOT Rows"),
        (rank(), "NOT definite"),
        (rank(rank=3), "NOT Rows"),
        (rank(rank=2, parameters=2), "NOT Rows"),
        (rank(duplicates=((0, 1), (2, 3))), f"{SAID}2 of 4 of bc.\n"),
        (rank(searched=(9, 4)), f"{SAID}5 of 9 of bc."),
        (
            {"rank": {**rank(searched=(9, 4))["rank"], **rank("ic", searched=(7, 6))["rank"]}},
            "5 of 9 of bc, 1 of 7 of ic.",
        ),
        (
            rank(rank=3, broadcast={"bc": (2, 2)}),
            "- The 4 rows of bc look like those of a difference that was broadcast",
        ),
        (rank(broadcast={"bc": (2, 2)}, duplicates=((0, 1),)), f"NOT {SAID}"),
        (
            rank(rank=0, still=4),
            "Rows that no parameter of the kernel moves, of those looked at: 4 of 4 of bc. Right",
        ),
        (rank(still=1), "looked at: 1 of 4 of bc."),
        (rank(duplicates=((0, 1),)), "NOT moves"),
        ({"rank": None}, "NOT Rows"),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)


def relu(x: Tensor) -> tuple[dict[str, Tensor], nn.Module]:
    """u_x of a ReLU network, and u at a point."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    (u_x,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    return {"pde": u_x - 1, "bc": net(x.detach()[:1])}, net


def test_different_points_that_relu_maps_alike_are_not_called_repeated():
    """As many different rows as pieces."""
    residuals, net = relu(torch.linspace(0, 1, 60)[:, None].requires_grad_())
    step = look(None, net, residuals=residuals)
    text = ask(step).summary()
    different = definite(step).distinct
    assert different < 10
    assert f"{SAID}{60 - different} of 60 of pde." in text
    assert re.search("duplicat|repeat|twice|float64", text) is None


def test_both_ends_of_a_period_are_not_called_repeated():
    torch.manual_seed(0)
    net, x = stack([2, 6, 1]), torch.tensor([-1.0, -0.5, 0.2, 1.0]).double() * torch.pi
    u = net.double()(torch.stack([torch.sin(x), torch.cos(x)], 1))
    text = ask(look(None, net, residuals={"bc": u})).summary()
    assert f"{SAID}1 of 4 of bc." in text
    assert re.search("duplicat|repeat|twice|float64", text) is None
