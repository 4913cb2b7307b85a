"""A fixed probe by itself: what is frozen, restored and kept, and which random states it leaves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import Precision
from torch import Tensor

from pinn_ntk.callbacks.step.probe import SEED, FixedProbe
from pinn_ntk.callbacks.step.residual_function import untouched
from pinn_ntk.kernel.strata import stratified_rows
from tests.pinn import batch, build, trainer
from tests.zoo import Points


def points(rows: int = 3, *, shift: float = 0.0, grad: bool = False) -> Points:
    x = torch.arange(float(rows), dtype=torch.float64)[:, None] + shift
    return Points(x.requires_grad_(grad), torch.tensor([[-1.0], [1.0]]) + shift)


def restarted(*, max_points: int = 512, **options: Any) -> FixedProbe:
    """A probe that goes on with the tensors of another, not yet with a batch."""
    first = FixedProbe("residuals", 512)
    first.freeze(points(**options))
    first.rows = {"pde": torch.arange(3)}
    second = FixedProbe("residuals", max_points)
    second.load_state_dict(first.state_dict())
    assert second.batch is None
    return second


@pytest.mark.parametrize("grad", [False, True])
def test_restored_tensors_take_the_place_of_those_of_the_first_batch(grad: bool):
    probe = restarted(grad=grad)
    probe.freeze(points(shift=9.0, grad=grad))
    assert probe.renewed is False
    assert probe.batch.x.flatten().tolist() == [0.0, 1.0, 2.0]
    assert probe.batch.ends.flatten().tolist() == [-1.0, 1.0]
    assert probe.batch.x.requires_grad is grad
    assert probe.rows["pde"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "other",
    [
        points(4),
        points(2),
        [torch.zeros(3, 1), torch.zeros(2, 1), torch.zeros(1)],
        torch.zeros(3, 1),
        [torch.zeros(2, 1), torch.zeros(3, 1)],
        "no tensor at all",
    ],
    ids=["more rows", "fewer rows", "three tensors", "one tensor", "swapped", "none"],
)
def test_a_batch_without_room_for_the_restored_tensors_is_frozen_anew_and_that_is_said(other: Any):
    probe = restarted()
    assert probe.renewed is False
    probe.freeze(other)
    assert probe.renewed is True
    assert probe.rows == {}
    probe.freeze(points())  # later batches are passed over
    assert type(probe.batch) is type(other)
    assert probe.renewed is True
    probe.load_state_dict({"tensors": [torch.zeros(1)], "rows": {}})
    assert probe.renewed is False


def test_a_first_freeze_and_a_restored_batch_are_no_renewal():
    first = FixedProbe("residuals", 512)
    first.freeze(batch())
    second = FixedProbe("residuals", 512)
    second.load_state_dict(first.state_dict())
    second.freeze({"x": torch.zeros(7)})
    assert (first.renewed, second.renewed) == (False, False)
    torch.testing.assert_close(second.batch, batch())


# --- Rows kept


def kept(probe: FixedProbe, counts: dict[str, int]) -> dict[str, list[int]]:
    """Rows kept after a measurement in which the terms have so many rows."""

    def residuals(module: Any, _: Any) -> dict[str, Tensor]:
        weight = next(module.parameters()).sum()
        return {name: weight * torch.ones(count) for name, count in counts.items()}

    probe.route = residuals
    probe.freeze(points())
    found = probe.residuals(trainer(), build())
    assert {name: r.numel() for name, r in found.items()} == counts
    return {name: rows.tolist() for name, rows in probe.rows.items()}


def test_a_term_without_rows_can_be_measured_again_and_may_get_rows_later():
    probe = FixedProbe(None, 3)
    for _ in range(2):
        assert kept(probe, {"pde": 2, "data": 0}) == {"pde": [0, 1], "data": []}
    assert kept(probe, {"pde": 2, "data": 3})["data"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("restored", "rows", "expected"),
    [
        (list(range(20)), 20, None),  # more than the limit
        ([1, 3, 5, 7, 11], 20, [1, 3, 5, 7, 11]),  # as many as allowed
        ([1, 3], 20, [1, 3]),  # of a smaller limit
        ([1, 3, 5, 7, 19], 19, None),  # beyond the end
    ],
)
def test_restored_rows_are_kept_where_they_can_be(
    restored: list[int], rows: int, expected: list[int] | None
):
    probe = FixedProbe(None, 5)
    probe.load_state_dict({"batch": points(), "rows": {"pde": torch.tensor(restored)}})
    drawn = stratified_rows(rows, 5, SEED).tolist()
    assert drawn != restored
    for _ in range(2):
        assert kept(probe, {"pde": rows})["pde"] == (expected or drawn)


# --- Random states


class OneModule:
    """Stand-in for a module on a device that this machine need not have."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def modules(self) -> list[Any]:
        return []


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_the_states_of_all_cuda_devices_are_put_back(device: str, monkeypatch: pytest.MonkeyPatch):
    states = {torch.device("cuda", i): torch.tensor([i]) for i in range(3)}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda i: states[i])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, i: states.update({i: state}))
    with untouched(cast("pl.LightningModule", OneModule(device))):
        states.update(dict.fromkeys(states, torch.tensor([SEED])))
    assert {at.index: int(state) for at, state in states.items()} == {0: 0, 1: 1, 2: 2}


def test_a_cuda_that_is_not_initialised_is_neither_asked_nor_seeded(
    monkeypatch: pytest.MonkeyPatch,
):
    run, module = SimpleNamespace(precision_plugin=Precision()), build()

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("manual_seed_all", "device_count", "get_rng_state", "set_rng_state", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, Mock(side_effect=AssertionError))
    probe, drawn = FixedProbe(None, 3), []

    def residuals(module: Any, batch: Any) -> dict[str, Tensor]:
        drawn.append(torch.rand(()).item())
        return {"sum": sum(parameter.sum() for parameter in module.parameters())}

    probe.route = residuals
    probe.freeze(points())
    before = torch.get_rng_state()
    for _ in range(2):
        probe.residuals(cast("pl.Trainer", run), module)
    assert drawn[0] == drawn[1] == torch.rand((), generator=torch.Generator().manual_seed(SEED))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_a_probe_of_a_module_on_the_cpu_leaves_the_gpu_its_random_state():
    torch.cuda.init()
    before = torch.cuda.get_rng_state_all()
    kept(FixedProbe(None, 3), {"pde": 4})
    for state, now in zip(before, torch.cuda.get_rng_state_all(), strict=True):
        assert torch.equal(state, now)
