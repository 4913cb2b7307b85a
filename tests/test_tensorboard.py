"""Spectra as tensor summaries: written by us, read by TensorBoard."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import summary_pb2
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

from pinn_ntk.tensorboard import PLUGIN_NAME, add_spectrum
from tests.scripts import ROOT

TAG = "ntk/spectrum/pde"


def written(folder: Path, steps: int, values: Any, **options: Any) -> EventAccumulator:
    with SummaryWriter(str(folder)) as writer:
        for step in range(steps):
            add_spectrum(writer, TAG, values, step, **({"rel_floor": 1e-14} | options))
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list])
def test_every_step_is_read_back(tmp_path: Path, kind: Any):
    values = np.geomspace(1e6, 1e-30, 64)
    log = written(tmp_path, 150, kind(values.tolist()))
    events = log.Tensors(TAG)
    assert [event.step for event in events] == list(range(150))
    for event in events:
        read = tensor_util.make_ndarray(event.tensor_proto)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, values, rtol=1e-6)
    assert log.Tags()["scalars"] == []


def test_metadata_says_what_the_numbers_are(tmp_path: Path):
    options = {"rel_floor": 2.5e-14, "block": "pde", "n_points": 3, "n_params": 41}
    log = written(tmp_path, 1, [3.0, 2.0, 1.0], dtype="float32", **options)
    metadata = log.SummaryMetadata(TAG)
    assert metadata.plugin_data.plugin_name == PLUGIN_NAME == "spectra"
    assert metadata.data_class == summary_pb2.DATA_CLASS_TENSOR
    expected = {"v": 1, "kind": "spectrum", "dtype": "float32", **options}
    assert json.loads(log.PluginTagToContent("spectra")[TAG]) == expected


def test_odd_values_are_kept(tmp_path: Path):
    log = written(tmp_path, 1, [1e300, 1.0, -1e-20, math.nan])
    read = tensor_util.make_ndarray(log.Tensors(TAG)[0].tensor_proto)
    np.testing.assert_array_equal(read, np.array([np.inf, 1, -1e-20, np.nan], np.float32))


def test_256_eigenvalues_take_about_a_kilobyte(tmp_path: Path):
    written(tmp_path, 100, np.geomspace(1e6, 1e-30, 256))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 100 * 1500


def test_a_rank_that_writes_nothing_is_passed_over():
    add_spectrum(SimpleNamespace(_get_file_writer=lambda: None), TAG, [1.0], 0, rel_floor=0.0)


def test_a_matrix_is_no_spectrum(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected eigenvalues of shape \(n,\), got \(2, 2\)"):
        written(tmp_path, 1, np.eye(2))


def test_reading_a_log_needs_no_torch():
    code = "import sys, pinn_ntk.tensorboard; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
