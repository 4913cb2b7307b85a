"""How far kernels and parameters moved, against numbers computed by hand."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from pinn_ntk import NTK, Drift
from pinn_ntk.analysis.drift import flat, relative_change
from pinn_ntk.diagnostics.drift import KernelDrift
from pinn_ntk.looks.step_terms import BATCH, PROBE
from tests.looks import linear, look_at, rows, said, says

NONE = NTK({})

# --- Any tensors


@pytest.mark.parametrize(
    ("now", "start", "change"),
    [
        ([1.0, -2.0], [1.0, -2.0], 0.0),
        ([3.0, 5.0], [3.0, 4.0], 0.2),
        ([2.0, -4.0], [1.0, -2.0], 1.0),
        ([-3.0, 4.0], [3.0, -4.0], 2.0),
        ([0.0, 0.0], [3.0, 4.0], 1.0),
        ([1e-150, 2e-150], [1e-150, 1e-150], 1 / math.sqrt(2)),
        ([1.0, 1.0], [0.0, 0.0], math.nan),
    ],
    ids=["none", "one_entry", "doubled", "reversed", "vanished", "tiny", "from_zero"],
)
def test_relative_change(now: list[float], start: list[float], change: float):
    expected = pytest.approx(change, rel=1e-15, abs=0, nan_ok=True)
    assert relative_change(column(*now), column(*start)) == expected


def test_change_of_a_matrix_is_its_frobenius_norm():
    now, start = torch.randn(3, 4), torch.randn(3, 4)
    squares = [tensor.double().square().sum() for tensor in (now.double() - start, start)]
    expected = float((squares[0] / squares[1]).sqrt())
    assert relative_change(now, start) == pytest.approx(expected, rel=1e-14)


def test_change_is_taken_in_float64():
    start = torch.full((1000,), 1e-4, dtype=torch.bfloat16)
    now = start.clone()
    now[0] *= 2
    assert relative_change(now, start) == pytest.approx(1000**-0.5, rel=1e-12)


def test_other_points_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(3, 3\).*same points"):
        relative_change(torch.ones(2, 2), torch.ones(3, 3))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_each_name_has_a_start_of_its_own():
    drift = Drift()
    assert drift.update({"pde": column(3.0, 4.0)}) == {"pde": 0.0}
    assert drift.update({"pde": column(3.0, 5.0), "bc": column(1.0)}) == {"pde": 0.2, "bc": 0.0}
    assert drift.update({"pde": column(3.0, 3.0), "bc": column(3.0)}) == {"pde": 0.2, "bc": 2.0}


def test_another_number_of_rows_starts_anew():
    drift = Drift()
    drift.update({"pde": column(3.0, 4.0)})
    assert drift.update({"pde": column(1.0)}) == {"pde": 0.0}
    assert drift.update({"pde": column(4.0)}) == {"pde": 3.0}


def test_the_start_is_a_copy():
    drift, weight = Drift(), torch.nn.Parameter(column(3.0, 4.0))
    drift.update({"w": weight})
    with torch.no_grad():
        weight += column(0.0, 1.0)
    assert drift.update({"w": weight}) == {"w": 0.2}
    assert not drift.start["w"].requires_grad


def test_flat_keeps_order_in_float64():
    vector = flat({"a": torch.ones(2, 2), "b": torch.tensor(3.0, requires_grad=True)})
    assert vector.tolist() == [1.0, 1.0, 1.0, 1.0, 3.0]
    assert (vector.dtype, vector.requires_grad) == (torch.float64, False)


# --- Kernels and parameters


def test_drift_of_blocks_whole_and_parameters():
    drift, theta = KernelDrift(), torch.tensor([3.0, 4.0])
    first, _ = linear(pde=rows(3), bc=rows(2, seed=1))
    second, _ = linear(pde=2 * rows(3), bc=rows(2, seed=1))
    assert set(drift.update(first, {"theta": theta}, fixed=True).values()) == {0.0}
    now = drift.update(second, {"theta": torch.tensor([3.0, 5.0])}, fixed=True)
    assert now["pde"] == pytest.approx(3.0)  # 4 K - K
    assert now["bc"] == 0.0
    whole = float((second.matrix() - first.matrix()).norm() / first.matrix().norm())
    assert now["kernel"] == pytest.approx(whole)
    assert now["parameters"] == pytest.approx(0.2)


def test_drift_leaves_out_other_terms_and_other_shapes():
    drift, theta = KernelDrift(), {"theta": torch.ones(4)}

    def tags(**matrices: Tensor) -> set[str]:
        return set(drift.update(linear(**matrices)[0], theta, fixed=True))

    assert tags(pde=rows(3), bc=rows(2)) == {"pde", "bc", "kernel", "parameters"}
    assert tags(pde=rows(3)) == {"pde", "parameters"}
    assert tags(pde=rows(4), bc=rows(2)) == {"bc", "parameters"}
    assert tags(pde=rows(3), ic=rows(2)) == {"pde", "ic", "parameters"}  # yet another whole
    third = drift.update(linear(pde=rows(3), bc=rows(2))[0], theta, fixed=True)
    assert third == {"pde": 0.0, "bc": 0.0, "kernel": 0.0, "parameters": 0.0}


def test_terms_called_like_the_whole_do_not_hide_it():
    kernel, theta = linear(kernel=rows(3), parameters=rows(2), parameters_a=rows(2, seed=1))
    params = {"theta": theta, "c": torch.ones(1)}
    drift = KernelDrift().update(kernel, params, fixed=True, groups={"theta": "a", "c": "b"})
    own = {"kernel", "parameters", "parameters_a"}
    assert set(drift) == own | {f"{name}_" for name in own} | {"parameters_b"}


PDE = {"pde": "p0", "bc": "b0"}
MOVED = PDE | {"pde": "p1"}
ALL = {"pde", "bc", "kernel"}


@pytest.mark.parametrize(
    ("prints", "tags", "moved"),
    [
        ([PDE, PDE, PDE], [set(), ALL, ALL], ()),
        ([PDE, PDE, MOVED, PDE], [set(), ALL, {"bc"}, {"bc"}], ("pde",)),
        ([None, None], [set(), ALL], ()),
        ([{}, PDE], [set(), ALL], ()),
        ([PDE, {"pde": None}], [set(), ALL], ()),
        ([PDE, None, PDE], [set(), ALL, ALL], ()),
        ([None, PDE, MOVED], [set(), ALL, {"bc"}], ("pde",)),
    ],
    ids=["still", "moved", "none", "told_later", "no_more", "not_between", "first_told_counts"],
)
def test_on_a_batch_points_that_changed_once_have_no_drift_for_good(
    prints: list[Any], tags: list[set[str]], moved: tuple[str, ...]
):
    """Those that cannot be told pass for unchanged; drift starts with the second measurement."""
    kernel, theta = linear(pde=rows(3), bc=rows(2, seed=1))
    drift = KernelDrift()
    found = [set(drift.update(kernel, {"theta": theta}, told)) for told in prints]
    assert [tag - {"parameters"} for tag in found] == tags
    assert drift.moved_points == moved
    if moved:
        assert [(a, b) for a, b, _ in drift.state_dict()["blocks"]] == [("bc", "bc")]


def test_another_number_of_rows_is_another_set_of_points():
    theta, drift = {"theta": torch.ones(4)}, KernelDrift()
    for count in (3, 4, 3, 3):
        found = drift.update(linear(pde=rows(count), bc=rows(2))[0], theta)
    assert set(found) == {"bc", "parameters"}
    assert drift.moved_points == ("pde",)


def test_a_probe_is_not_asked_for_its_points():
    kernel, theta = linear(pde=rows(3))
    drift = KernelDrift()
    for prints in ({"pde": "a"}, {"pde": "b"}):
        found = drift.update(kernel, {"theta": theta}, prints, fixed=True)
        assert found["pde"] == found["kernel"] == 0.0
    assert drift.moved_points == ()


def test_drift_of_groups_of_parameters():
    start = {"w": [3.0, 4.0], "b": [2.0], "nu": [0.5], "lam": [0.0]}
    later = {"w": [3.0, 5.0], "b": [2.0], "nu": [0.25], "lam": [1.0]}
    groups = {"w": "network", "b": "network", "nu": "inverse", "lam": "loss_weights"}
    drift = KernelDrift()
    for values in (start, later):
        params = {name: torch.tensor(entries) for name, entries in values.items()}
        found = drift.update(NONE, params, groups=groups)
    assert found["parameters_network"] == pytest.approx(1 / math.sqrt(29))
    assert found["parameters_inverse"] == pytest.approx(0.5)
    assert math.isnan(found["parameters_loss_weights"])
    assert found["parameters"] == pytest.approx(math.sqrt(1 + 0.0625 + 1) / math.sqrt(29.25))


def test_a_single_group_says_nothing_new():
    groups = {"a": "network", "b": "network"}
    params = {"a": torch.ones(1), "b": torch.ones(2)}
    assert KernelDrift().update(NONE, params, groups=groups) == {"parameters": 0.0}


def test_drift_of_parameters_needs_the_same_parameters():
    drift = KernelDrift()
    drift.update(NONE, {"a": torch.ones(2)})
    assert drift.update(NONE, {"a": torch.ones(3)}) == {}
    assert drift.update(NONE, {"a": torch.ones(2), "b": torch.ones(1)}) == {}


@pytest.mark.parametrize("fixed", [True, False])
def test_drift_goes_on_from_a_checkpoint(fixed: bool):
    theta, prints = {"t": torch.ones(2)}, {"pde": "p", "bc": "b", "ic": "i"}
    first = linear(pde=rows(3), bc=rows(2, seed=1), ic=rows(1))[0]
    second = linear(pde=2 * rows(3), bc=rows(2, seed=2), ic=rows(1))[0]
    drift, other, file = KernelDrift(), KernelDrift(), io.BytesIO()
    drift.update(first, theta, prints, fixed=fixed)
    drift.update(first, theta, prints | {"ic": "moved"}, fixed=fixed)
    torch.save(drift.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.moved_points == drift.moved_points == (() if fixed else ("ic",))
    found = other.update(second, theta, prints, fixed=fixed)
    assert found == drift.update(second, theta, prints, fixed=fixed)
    assert found["pde"] == pytest.approx(3.0)
    assert ("kernel" in found) == fixed


def test_no_block_is_kept_twice_and_none_unless_asked_for():
    kernel, theta = linear(pde=rows(3), bc=rows(2))
    drift, unsaved = KernelDrift(), KernelDrift(save_start=False)
    for one in (drift, unsaved):
        one.update(kernel, {"theta": theta})
    kept = sum(block.numel() for *_, block in drift.state_dict()["blocks"])
    assert kept == 3 * 3 + 2 * 2 + 3 * 2
    assert unsaved.state_dict() == {}


def test_what_was_seen_first_is_a_copy():
    kernel, theta = linear(pde=rows(3))
    drift = KernelDrift()
    drift.update(kernel, {"theta": theta}, fixed=True)
    kernel["pde"].mul_(2)
    with torch.no_grad():
        theta.mul_(3)
    found = drift.update(kernel, {"theta": theta}, fixed=True)
    assert found["pde"] == pytest.approx(1.0)
    assert found["parameters"] == pytest.approx(2.0)


# --- Looks


@pytest.mark.parametrize(("points", "at_once"), [(BATCH, False), (PROBE, True)])
def test_only_on_a_probe_drift_is_known_at_once(points: str, at_once: bool):
    drift = KernelDrift()
    first, second = (drift.read(look_at({"pde": rows(3)}, n, points=points)) for n in (0, 1))
    assert ("drift/pde" in first.values) == ("drift/kernel" in first.values) == at_once
    assert second.values == {"drift/pde": 0.0, "drift/kernel": 0.0, "drift/parameters": 0.0}


def test_points_that_moved_are_named():
    drift = KernelDrift()
    for step, told in enumerate("ab"):
        known: Mapping[str, Any] = {"fingerprints": {"pde": told, "bc": "c"}}
        reading = drift.read(look_at({"pde": rows(3), "bc": rows(2)}, step, known=known))
    assert reading.facts["moved_points"] == ["pde"]
    assert reading.values == {"drift/bc": 0.0, "drift/parameters": 0.0}


def test_new_points_of_a_probe_begin_anew_but_with_the_parameters():
    drift, twice = KernelDrift(), look_at({"pde": 2 * rows(3)}, 1, points=PROBE)
    drift.read(look_at({"pde": rows(3)}, points=PROBE))
    with torch.no_grad():
        twice.params["theta"].mul_(2)
    drift.points_renewed()
    expected = {"drift/pde": 0.0, "drift/kernel": 0.0, "drift/parameters": 1.0}
    assert drift.read(twice).values == expected


def of(*moved: str, **drift: float) -> dict[str, Any]:
    facts = {"drift": drift} if drift else {}
    return {"drift": facts | {"moved_points": list(moved)}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (of("pde", "bc"), "those of pde, bc changed since the first measurement"),
        (of("pde"), "NTKMonitor(probe=...) measures on points that stay"),
        *((of(kernel=d, pde=d, parameters=0.1), "NOT theory") for d in (0.0, 0.05, 0.3, 399.0)),
        ({"drift": {"drift": {}}}, "NOT nan"),
        ({"drift": None}, "NOT Points"),
        ({}, "NOT Points"),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)
