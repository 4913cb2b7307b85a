"""How far things moved, against numbers computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pinn_ntk import Drift
from pinn_ntk.analysis.drift import flat, relative_change

CHANGES: dict[str, tuple[list[float], list[float], float]] = {
    "none": ([1.0, -2.0], [1.0, -2.0], 0.0),
    "one_entry": ([3.0, 5.0], [3.0, 4.0], 0.2),
    "doubled": ([2.0, -4.0], [1.0, -2.0], 1.0),
    "reversed": ([-3.0, 4.0], [3.0, -4.0], 2.0),
    "vanished": ([0.0, 0.0], [3.0, 4.0], 1.0),
    "tiny": ([1e-150, 2e-150], [1e-150, 1e-150], 1 / math.sqrt(2)),
}


@pytest.mark.parametrize(("now", "start", "change"), CHANGES.values(), ids=CHANGES)
def test_relative_change(now: list[float], start: list[float], change: float) -> None:
    tensors = (torch.tensor(values, dtype=torch.float64) for values in (now, start))
    assert relative_change(*tensors) == pytest.approx(change, rel=1e-15, abs=0.0)


def test_change_of_a_matrix_is_its_frobenius_norm() -> None:
    now, start = torch.randn(3, 4), torch.randn(3, 4)
    squares = [tensor.double().square().sum() for tensor in (now.double() - start, start)]
    expected = float((squares[0] / squares[1]).sqrt())
    assert relative_change(now, start) == pytest.approx(expected, rel=1e-14)


def test_change_is_taken_in_float64() -> None:
    start = torch.full((1000,), 1e-4, dtype=torch.bfloat16)
    now = start.clone()
    now[0] *= 2
    assert relative_change(now, start) == pytest.approx(1000**-0.5, rel=1e-12)


def test_from_zero_there_is_no_relative_change() -> None:
    assert math.isnan(relative_change(torch.ones(2), torch.zeros(2)))


def test_other_points_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(3, 3\).*same points"):
        relative_change(torch.ones(2, 2), torch.ones(3, 3))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_each_name_has_a_start_of_its_own() -> None:
    drift = Drift()
    assert drift.update({"pde": column(3.0, 4.0)}) == {"pde": 0.0}
    assert drift.update({"pde": column(3.0, 5.0), "bc": column(1.0)}) == {"pde": 0.2, "bc": 0.0}
    assert drift.update({"pde": column(3.0, 3.0), "bc": column(3.0)}) == {"pde": 0.2, "bc": 2.0}


def test_another_number_of_rows_starts_anew() -> None:
    drift = Drift()
    drift.update({"pde": column(3.0, 4.0)})
    assert drift.update({"pde": column(1.0)}) == {"pde": 0.0}
    assert drift.update({"pde": column(4.0)}) == {"pde": 3.0}


def test_the_start_is_a_copy() -> None:
    drift, weight = Drift(), torch.nn.Parameter(column(3.0, 4.0))
    drift.update({"w": weight})
    with torch.no_grad():
        weight += column(0.0, 1.0)
    assert drift.update({"w": weight}) == {"w": 0.2}
    assert not drift.start["w"].requires_grad


def test_flat_keeps_order_in_float64() -> None:
    tensors = {"a": torch.ones(2, 2), "b": torch.tensor(3.0, requires_grad=True)}
    vector = flat(tensors)
    assert vector.tolist() == [1.0, 1.0, 1.0, 1.0, 3.0]
    assert vector.dtype == torch.float64
    assert not vector.requires_grad
