"""Where results go: scalars to every logger, spectra, words and pictures to TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from pinn_ntk.diagnostics.base import Reading, Tag
from pinn_ntk.diagnostics.figures import pixels
from pinn_ntk.tensorboard import add_spectrum

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from matplotlib.figure import Figure


def publish(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
    """Let other callbacks of the trainer (early stopping, checkpoints) read scalars.

    They stay in ``trainer.callback_metrics`` until the next values of those tags, or the next run.
    """
    tensors = {tag: torch.tensor(value, dtype=torch.float64) for tag, value in values.items()}
    trainer.callback_metrics.update(tensors)


def log_tensors(trainer: pl.Trainer, reading: Reading, prefix: str) -> None:
    """Write the tensors of a reading, each with the facts under its tag, and flush."""
    for writer in writers(trainer):
        for tag, tensor in reading.tensors.items():
            described = {"rel_floor": 0.0, **reading.facts.get(tag, {})}
            add_spectrum(writer, f"{prefix}/{tag}", tensor, reading.step, **described)
        writer.flush()


def layout(tags: Iterable[Tag], prefix: str) -> dict[str, dict[str, list[object]]]:
    """Layout of TensorBoard's custom scalars tab: category -> chart -> kind and patterns."""
    charts: dict[str, list[str]] = {}
    for tag in tags:
        if tag.chart:
            charts.setdefault(tag.chart, []).append(tag.regex(prefix))
    return {prefix.upper(): {title: ["Multiline", found] for title, found in charts.items()}}


def log_layout(trainer: pl.Trainer, tags: Iterable[Tag], prefix: str) -> None:
    """Write the layout of the custom scalars tab; once a fit."""
    charts = layout(tags, prefix)
    for writer in writers(trainer):
        writer.add_custom_scalars(charts)


def log_text(trainer: pl.Trainer, tag: str, text: str, step: int) -> None:
    """Write Markdown."""
    for writer in writers(trainer):
        writer.add_text(tag, text, step)


def log_figure(trainer: pl.Trainer, tag: str, figure: Figure, step: int) -> None:
    """Write a figure as an image, without pyplot (which ``add_figure`` would import)."""
    for writer in writers(trainer):
        writer.add_image(tag, pixels(figure), step, dataformats="HWC")
        writer.flush()


def writers(trainer: pl.Trainer) -> Iterator[Any]:
    """The ``SummaryWriter`` of every TensorBoard logger; none on ranks that write nothing."""
    for logger in trainer.loggers:
        writer = getattr(logger, "experiment", None)
        if writer is None or not hasattr(writer, "add_custom_scalars"):
            continue
        if writer._get_file_writer() is not None:
            yield writer
