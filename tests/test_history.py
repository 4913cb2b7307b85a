"""History: arrays, the last values, a table, and what a checkpoint keeps."""

from __future__ import annotations

import io
import math
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pinn_ntk import History

POINTS = [
    (0, {"trace": 8.0, "drift": 0.0}),
    (500, {"trace": 6.0}),
    (1000, {"trace": math.nan, "weight": 1e300}),
]


@pytest.fixture
def history() -> History:
    filled = History()
    for step, values in POINTS:
        filled.add(step, values)
    return filled


def test_it_is_a_mapping_to_arrays(history: History):
    assert list(history) == ["trace", "drift", "weight"]
    assert len(history) == 3
    assert "trace" in history
    assert "loss" not in history
    for tag, points in history.items():
        expected = [(step, values[tag]) for step, values in POINTS if tag in values]
        np.testing.assert_array_equal(points, np.array(expected))
        assert (points.dtype, points.shape) == (np.float64, (len(expected), 2))


def test_a_tag_that_was_not_measured_is_a_key_error(history: History):
    with pytest.raises(KeyError, match=r"'loss' was not measured; there are \['drift'"):
        history["loss"]
    assert history.get("loss") is None


def test_the_last_value_of_every_tag(history: History):
    last = history.last()
    assert list(last) == ["trace", "drift", "weight"]
    assert math.isnan(last.pop("trace"))
    assert last == {"drift": 0.0, "weight": 1e300}
    assert History().last() == {}


def test_numbers_of_all_kinds_become_floats():
    history = History()
    history.add(np.int64(3), {"a": 1, "b": np.float32(0.5), "c": torch.tensor(2.0)})
    assert [points.tolist() for points in history.values()] == [[[3, 1]], [[3, 0.5]], [[3, 2]]]


def test_a_value_added_again_at_the_same_step_replaces_the_first(history: History):
    history.add(1000, {"trace": 5.0, "drift": 0.5})
    assert history["trace"].tolist() == [[0.0, 8.0], [500.0, 6.0], [1000.0, 5.0]]
    assert history["drift"].tolist() == [[0.0, 0.0], [1000.0, 0.5]]


def test_clear(history: History):
    history.clear()
    assert (len(history), dict(history)) == (0, {})
    history.add(7, {"trace": 1.0})
    assert history["trace"].tolist() == [[7.0, 1.0]]


def test_state_survives_a_checkpoint_that_is_loaded_with_weights_only(history: History):
    buffer = io.BytesIO()
    torch.save({"history": history.state_dict()}, buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)["history"]
    assert {type(value) for value in state.values()} == {torch.Tensor}
    assert {value.dtype for value in state.values()} == {torch.float64}
    restored = History()
    restored.add(1, {"gone": 1.0})
    restored.load_state_dict(state)
    assert restored == history
    assert list(restored) == list(history)


def test_a_restored_history_goes_on(history: History):
    restored = History()
    restored.load_state_dict(history.state_dict())
    for one in (history, restored):
        one.add(1000, {"trace": 4.0})
        one.add(1500, {"trace": 3.0})
    assert restored == history
    assert [type(step) for step, _ in restored._points["trace"]] == [int] * 4


def test_an_array_and_a_state_are_copies(history: History):
    history["trace"][:] = -1.0
    assert history["trace"][0].tolist() == [0.0, 8.0]
    history.state_dict()["trace"].zero_()
    assert history["trace"][0, 1] == 8.0


@pytest.mark.parametrize("shape", [(), (2,), (3, 3), (0, 2), (2, 2, 2)])
def test_a_state_of_something_else_is_refused(history: History, shape: tuple[int, ...]):
    before = dict(history)
    with pytest.raises(ValueError, match=r"'w' has shape .*; expected \(n, 2\)"):
        history.load_state_dict({"trace": torch.zeros(1, 2), "w": torch.zeros(shape)})
    assert before.keys() == history.keys()
    assert len(history["trace"]) == 3


def test_equality(history: History):
    other = pickle.loads(pickle.dumps(history))
    assert other == history
    other.add(2000, {"drift": 0.1})
    assert other != history
    assert history != dict(history)
    with pytest.raises(TypeError, match="unhashable"):
        hash(history)
    history.load_state_dict(History().state_dict())
    assert history == History()


def test_repr_counts_points(history: History):
    assert repr(history) == "History(trace: 3, drift: 1, weight: 1)"


STEPS = [0, 250, 500, 1000]
COLUMNS = {
    "trace": [8.0, math.nan, 6.0, math.nan],
    "drift": [0.0, 0.2, math.nan, math.nan],
    "weight": [math.nan, math.nan, math.nan, 1e300],
}


def test_what_a_dataframe_is_made_of(history: History, monkeypatch: pytest.MonkeyPatch):
    made = []
    recorder = SimpleNamespace(
        Index=lambda values, name, dtype: (values, name, dtype),
        DataFrame=lambda columns, index, dtype: made.append((columns, index, dtype)),
    )
    monkeypatch.setitem(sys.modules, "pandas", recorder)
    history.add(250, {"drift": 0.2})  # out of order
    history.to_dataframe()
    ((columns, index, dtype),) = made
    assert (index, dtype) == ((STEPS, "step", "int64"), "float64")
    assert list(columns) == list(COLUMNS)
    np.testing.assert_array_equal(list(columns.values()), list(COLUMNS.values()))


def test_dataframe(history: History):
    pandas = pytest.importorskip("pandas")
    history.add(250, {"drift": 0.2})
    expected = pandas.DataFrame(COLUMNS, index=pandas.Index(STEPS, name="step"))
    pandas.testing.assert_frame_equal(history.to_dataframe(), expected)
    empty = History().to_dataframe()
    assert (empty.shape, empty.index.name) == ((0, 0), "step")


def test_without_pandas_the_error_says_what_to_install(
    history: History, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas") as caught:
        history.to_dataframe()
    assert caught.value.name == "pandas"
