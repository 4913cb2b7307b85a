"""The domain that a network scales its inputs to, and points that miss a part of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.diagnose import judge
from tests.cases_of_residuals import case_of, d, grid, network
from tests.cases_of_verdicts import SOLVED, case


class Scaling(nn.Module):
    """x -> factor x + shift, by coordinate, before the network."""

    def __init__(self, factor: list[float], shift: list[float]) -> None:
        super().__init__()
        self.net = network(len(factor))
        self.factor, self.shift = torch.tensor(factor).double(), torch.tensor(shift).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.factor * x + self.shift)


def slope(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    x = points.clone().requires_grad_()
    return {"ode": d(model(x), x)[:, :1] + 1}


LINES = [
    (1.0, -1.0, (0, 1.0, 2.0)),  # 0 to 1 of 0 to 2
    (2.0, -1.0, None),  # all of it
    (1.0, 0.0, None),  # no scaling
    (0.01, 0.0, None),  # another unit
    (1.0, 0.0 - 0.5, None),  # no end of it
    (-1.0, 1.0, (0, 1.0, 2.0)),  # mirrored
    (0.5, 0.5, (0, 0.0, -3.0)),  # the last quarter
    (3.4, -1.7, None),  # mean and deviation
]


@pytest.mark.parametrize(("factor", "shift", "short"), LINES)
def test_where_a_line_ends_and_its_points_do(
    factor: float, shift: float, short: tuple[int, float, float] | None
):
    found = case_of(slope, Scaling([factor], [shift]), grid()).short
    assert found == ({} if short is None else {"ode": pytest.approx(short)})


def test_the_coordinate_that_is_short_is_named():
    points = torch.cat([grid(200, 2), torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()])
    found = case_of(slope, Scaling([2.0, 0.5], [-1.0, -1.0]), points).short
    assert found == {"ode": pytest.approx((1, 1.0, 4.0))}


BOX = {"pde": [[0.0, 0.5]]}


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        (({"ranges": BOX},), Cause.POINTS),
        (({"ranges": {"pde": [[0.01, 0.48]]}},), Cause.POINTS),
        (({"ranges": {"pde": [[0.0, 0.25]]}},), Cause.CLEAN),  # a window that grows
        ((), Cause.CLEAN),
    ],
)
def test_points_that_end_early_twice_are_told(before: tuple[dict[str, object], ...], cause: Cause):
    verdict = judge(case(previous=before, **SOLVED, ranges=BOX, short={"pde": (0, 0.5, 1.0)}))
    assert verdict.cause is cause
    assert judge(case(previous=before, ranges=BOX)).cause is not Cause.POINTS
