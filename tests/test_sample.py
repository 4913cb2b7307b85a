"""Rows that stand for all rows: unbiased, with an error that holds, shared out among terms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pinn_ntk.kernel import sample as module
from pinn_ntk.kernel.sample import FEW, Sample, shared_out


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


DIAGONALS: dict[str, Tensor] = {
    "uniform": normal(6000).abs(),
    "heavy_tail": normal(3000).exp(),
    "trend": torch.linspace(0, 1, 5001, dtype=torch.float64) ** 2 + normal(5001).abs() / 5,
    "parts": torch.cat([normal(1000).abs(), 5 + normal(500), 9 * normal(4000) ** 2]),
    "components": normal(2000, 3).square() * torch.tensor([1.0, 5.0, 0.1]),
    "components_first": normal(3, 2000).square() + torch.tensor([[1.0], [50.0], [0.1]]),
}


@pytest.mark.parametrize("most", [24, 48, 200])
@pytest.mark.parametrize("values", DIAGONALS.values(), ids=DIAGONALS)
@pytest.mark.parametrize("whole_points", [False, True])
def test_the_truth_lies_within_two_standard_errors(
    values: Tensor, most: int, whole_points: bool, monkeypatch: pytest.MonkeyPatch
):
    """Of 400 draws in about 95 %; fewer where a few large rows carry the sum, or rows are few."""
    truth, hits, found = float(values.sum()), 0, []
    for seed in range(400):
        monkeypatch.setattr(module, "SEED", seed)
        drawn = Sample.drawn(values.shape, most, whole_points=whole_points)
        assert drawn is not None
        of_rows = values.flatten()[drawn.rows]
        found.append((drawn.estimate(of_rows), drawn.error(of_rows)))
        hits += abs(found[-1][0] - truth) <= 2 * found[-1][1]
    estimates, errors = torch.tensor(found, dtype=torch.float64).T
    spread = float(estimates.std())
    assert float(estimates.mean()) == pytest.approx(truth, abs=4 * spread / math.sqrt(400))
    # never far too small; jumps between neighbouring strata count, so that it may be too large
    assert 0.85 * spread < float(errors.square().mean().sqrt()) < 8 * spread
    assert hits / 400 > (0.86 if most > 24 else 0.75)


def test_equal_strata_give_r_over_n_times_the_sum():
    drawn = Sample.drawn(torch.Size([60]), 6)
    assert drawn is not None
    values = normal(60).square()[drawn.rows]
    assert drawn.estimate(values) == pytest.approx(10 * float(values.sum()))
    assert drawn.rows.tolist() == sorted(drawn.rows.tolist())
    assert [int(row) // 10 for row in drawn.rows] == list(range(6))


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1,), ()])
def test_few_rows_are_all_taken(shape: tuple[int, ...]):
    assert Sample.drawn(torch.Size(shape), 4) is None


def test_components_of_a_point_come_together():
    drawn = Sample.drawn(torch.Size([3, 100]), 12, whole_points=True)
    assert drawn is not None
    points = drawn.rows.view(4, 3)
    assert drawn.each == 3
    assert torch.equal(points % 100, (points % 100)[:, :1].expand(4, 3))
    assert (points // 100).tolist() == [[0, 1, 2]] * 4
    wide = Sample.drawn(torch.Size([3, 100]), FEW * 3 - 1, whole_points=True)
    assert wide is not None
    assert wide.each == 1, "too few rows for some whole points"


@pytest.mark.parametrize("whole_points", [False, True])
def test_a_sample_of_a_sample_is_one(whole_points: bool, monkeypatch: pytest.MonkeyPatch):
    values, found = normal(500, 2).square(), []
    for seed in range(300):
        monkeypatch.setattr(module, "SEED", 2 * seed)
        first = Sample.drawn(values.shape, 200, whole_points=whole_points)
        assert first is not None
        places, second = first.fewer(30)
        assert torch.equal(first.rows[places], second.rows)
        assert float(second.sizes.sum()) == pytest.approx(1000)
        of_rows = values.flatten()[second.rows]
        found.append((second.estimate(of_rows), second.error(of_rows)))
    estimates, errors = torch.tensor(found).T
    spread = float(estimates.std())
    assert float(estimates.mean()) == pytest.approx(
        float(values.sum()), abs=4 * spread / math.sqrt(300)
    )
    assert float(errors.mean()) == pytest.approx(spread, rel=0.2)


def test_one_row_has_no_error_that_could_be_told():
    drawn = Sample.drawn(torch.Size([9]), 1)
    assert drawn is not None
    assert drawn.error(torch.ones(1)) == math.inf


@pytest.mark.parametrize(
    ("wanted", "total", "given"),
    [
        ({"a": 10, "b": 20}, 100, {"a": 10, "b": 20}),
        ({"a": 100, "b": 100}, 48, {"a": 24, "b": 24}),
        ({"b": 6000, "a": 2, "c": 3000}, 48, {"b": 23, "a": 2, "c": 23}),
        (dict.fromkeys(range(50), 100), 48, dict.fromkeys(range(50), FEW)),
        ({}, 48, {}),
    ],
)
def test_rows_are_shared_out(wanted: dict, total: int, given: dict):
    assert shared_out(wanted, total) == given
    assert list(shared_out(wanted, total)) == list(wanted)
