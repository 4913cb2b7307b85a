"""A whole spectrum as one tensor summary: about 1 kB for 256 eigenvalues, readable offline.

Format of a series, version 1:

| part | content |
| --- | --- |
| tensor of an event | eigenvalues, largest first, (n,) float32; noise below the floor included |
| metadata | plugin name "spectra", data class TENSOR |
| plugin content | JSON: v, kind, block, n_points, n_params, dtype, rel_floor, points (if told) |

``rel_floor`` times the largest eigenvalue of an event is the noise floor of that event. The
metadata stands on every event, so that truncated or merged files stay readable; TensorBoard keeps
that of a series' first event. Without a plugin of this name TensorBoard ignores the series.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tensorboard.compat.proto import summary_pb2
from tensorboard.util import tensor_util

PLUGIN_NAME = "spectra"
"""Name under which TensorBoard files the series, and prefix of its routes."""

FORMAT_VERSION = 1


def add_spectrum(
    writer: Any,
    tag: str,
    eigenvalues: ArrayLike,
    step: int,
    *,
    rel_floor: float,
    kind: str = "spectrum",
    block: str = "",
    n_points: int = 0,
    n_params: int = 0,
    dtype: str = "float64",
    points: str = "",
) -> None:
    """Write one spectrum; on ranks that write nothing this does nothing.

    ``writer`` is a torch ``SummaryWriter``, such as ``TensorBoardLogger.experiment``; ``tag`` names
    the series, with a prefix that no scalar uses. Eigenvalues are given largest first, (n,), and
    kept as float32, so that above 3.4e38 they become inf. The rest is the plugin content above:
    ``block`` is the loss term, ``n_points`` its rows, ``dtype`` that of the residual, in which the
    factors of the kernel were captured, and ``points`` what it was taken on, such as "a fixed
    probe".
    """
    with np.errstate(over="ignore"):
        values = np.asarray(eigenvalues).astype(np.float32)
    if values.ndim != 1:
        raise ValueError(f"expected eigenvalues of shape (n,), got {values.shape}.")
    content: dict[str, Any] = {
        "v": FORMAT_VERSION,
        "kind": kind,
        "block": block,
        "n_points": n_points,
        "n_params": n_params,
        "dtype": dtype,
        "rel_floor": rel_floor,
    }
    if points:
        content["points"] = points
    file_writer = writer._get_file_writer()  # also what Lightning writes hyperparameters with
    if file_writer is None:
        return
    metadata = summary_pb2.SummaryMetadata(
        summary_description="Eigenvalues of a block of the neural tangent kernel, largest first.",
        data_class=summary_pb2.DATA_CLASS_TENSOR,  # without it the series is invisible
        plugin_data=summary_pb2.SummaryMetadata.PluginData(
            plugin_name=PLUGIN_NAME, content=json.dumps(content).encode()
        ),
    )
    tensor = tensor_util.make_tensor_proto(values)
    value = summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
    file_writer.add_summary(summary_pb2.Summary(value=[value]), step)
