"""What loggers wrote, read back."""

from __future__ import annotations

import csv
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def events(folder: str | Path) -> EventAccumulator:
    """All that TensorBoard reads in a folder."""
    kept = {"scalars": 0, "tensors": 0, "images": 0}
    return EventAccumulator(str(folder), size_guidance=kept).Reload()


def summaries(log: EventAccumulator) -> dict[int, str]:
    """Step -> text."""
    written = log.Tensors("ntk/summary/text_summary")
    return {e.step: tensor_util.make_ndarray(e.tensor_proto)[0].decode() for e in written}


def column(folder: str | Path, tag: str) -> dict[int, float]:
    """Step -> value in the table of a CSVLogger, where there is one."""
    with (Path(folder) / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[tag]) for row in csv.DictReader(file) if row.get(tag)}
