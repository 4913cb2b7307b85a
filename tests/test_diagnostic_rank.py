"""Lost rank and its causes: repeated points, among all rows or those kept, and broadcasting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import Definiteness, Look, definiteness, look
from pinn_ntk.analysis.definiteness import EQUAL
from tests.looks import ask, look_at, rows, said, says
from tests.networks import stack


def definite(look: Look, term: str = "pde") -> Definiteness:
    """As `Rank` asks for it."""
    residual, spectrum = look.residuals.get(term), look.spectra[term]
    return definiteness(look.sampled, term, residual, spectrum=spectrum, whole=look.kernel)


def test_lost_rank_is_recognised():
    A = rows(3)
    step = look_at({"pde": A, "bc": torch.cat([A[:2], A[:2]])})
    facts = ask(step).readings["rank"].facts
    assert facts["pde"]["must_decrease"]
    assert definite(step, "bc").duplicates == ((0, 2), (1, 3))
    assert facts["bc"]["cause"] == definite(step, "bc").cause


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
    assert ("broadcast" in ask(step).readings["rank"].facts["pde"]["cause"]) == bool(found)


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
    assert EQUAL in ask(step).readings["rank"].facts["pde"]["cause"]
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
def test_duplicated_points_are_found_among_the_rows_left_out(dtype: torch.dtype):
    """Every third row is kept; the repeats are none of these."""
    points = torch.linspace(-1, 1, 1100, dtype=dtype)
    points[1:301:3] = points[2:302:3]
    points[4:904:30] = points[7]  # 30 of one kind, some of them in pairs already
    different = len(points.unique())
    step = network(points)
    panel = ask(step)
    assert definite(step).duplicates == ()
    assert panel.readings["repeated_points"].facts["repeated"] == {"pde": 1100 - different}
    assert f"equal rows ({different} different ones of 1100; {EQUAL})" in panel.summary()
    in_all_rows = f"pde: 1100 rows of which {different} are different"
    assert in_all_rows not in panel.summary()
    assert in_all_rows in ask(step, "spectrum", "repeated_points").summary()  # rank says nothing
    whole = network(points, max_points=1100)
    assert ask(whole).readings["repeated_points"].facts["repeated"] == {}
    assert definite(whole).distinct == different


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_different_points_are_not_called_duplicated(dtype: torch.dtype):
    panel = ask(network(torch.linspace(-1, 1, 5000, dtype=dtype), max_points=9))
    if dtype == torch.float64:
        assert panel.readings["repeated_points"].facts["repeated"] == {"pde": 0}
    assert "duplicated" not in panel.summary()


def bc(**changes: Any) -> dict[str, Any]:
    """What is read of a term of four rows."""
    start = {"name": "bc", "rows": 4, "parameters": 9, "rank": 4, "smallest": 0.5, "floor": 1e-12}
    d = Definiteness(**{**start, "duplicates": (), "still": 0, "broadcast": {}, **changes})
    facts = {"must_decrease": d.must_decrease, "statement": d.statement, "cause": d.cause}
    return {"rank": {"bc": facts | {"repeats_said": bool(d.broadcast or d.searched)}}}


def repeated(rows: int, repeated: int, dtype: str = "float32", term: str = "pde") -> dict[str, Any]:
    step = {"rows": {"pde": 3, "bc": 2, term: rows}, "dtype": dtype}
    return {"step": step, "repeated_points": {"repeated": {term: repeated}}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (bc(), "bc: positive definite with smallest eigenvalue 0.5;"),
        (
            bc(rank=2, duplicates=((0, 1), (2, 3))),
            f"- bc: rank is lost by equal rows (2 different ones of 4; {EQUAL}).",
        ),
        (
            bc(rank=3, broadcast={"bc": (2, 2)}),
            "- bc: the 4 rows of bc look like those of a difference that was broadcast",
        ),
        (
            repeated(9, 2),
            "- pde: 9 rows of which 7 are different (looked for in all rows): duplicated",
        ),
        (
            repeated(900, 1, "float64"),
            "- pde: 900 rows of which 899 are different",
        ),
        (bc(rank=3), "NOT - bc: rank"),
        (bc(rank=3), "NOT positive definite"),
        (repeated(900, 18), "NOT duplicated"),
        (repeated(9, 5, term="bc") | bc(searched=(9, 4)), "NOT looked for"),
        (repeated(9, 5, term="bc") | bc(broadcast={"bc": (3, 3)}), "NOT looked for"),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)


def test_rows_that_are_equal_are_not_what_float64_resolves():
    """u_x of a ReLU network: as many different rows as pieces, all at different points."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    x = torch.linspace(0, 1, 60)[:, None].requires_grad_()
    (u_x,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    step = look(None, net, residuals={"pde": u_x - 1, "bc": net(x.detach()[:1])})
    text = ask(step).summary()
    different = definite(step).distinct
    assert different < 10
    assert f"the rest, {60 - different}, belong to rows that are equal to others." in text
    assert "does not tell apart, as with periodic features, ReLU or saturated units" in text
    assert "resolves more" not in text


def test_what_float32_does_not_resolve_beside_equal_rows_is_said_of_both():
    points = torch.linspace(-1, 1, 60)
    points[0] = points[1]
    text = ask(network(points)).summary()
    assert "is not resolved in float32" in text
    assert "a model in float64 resolves more" in text
    assert "belong to rows that are equal" not in text
    assert "rank is lost by equal rows (59 different ones of 60;" in text
