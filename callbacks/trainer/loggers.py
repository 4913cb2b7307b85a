"""Where results go: scalars to every logger, the rest to those that have calls for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch

from pinn_ntk.callbacks.trainer.logger_calls import Taker, taker
from pinn_ntk.callbacks.trainer.state import StatefulCallback
from pinn_ntk.diagnostics.base import Reading, Tag
from pinn_ntk.errors import warn

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from matplotlib.figure import Figure

T = TypeVar("T")

log = logging.getLogger(__name__)


def publish(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
    """Let other callbacks of the trainer (early stopping, checkpoints) read scalars.

    They stay in ``trainer.callback_metrics`` until the next values of those tags, or the next run.
    """
    tensors = {tag: torch.tensor(value, dtype=torch.float64) for tag, value in values.items()}
    trainer.callback_metrics.update(tensors)


def log_tensors(trainer: pl.Trainer, reading: Reading, prefix: str) -> None:
    """Write the tensors of a reading, each with the facts under its tag, and flush."""
    for to, logger in takers(trainer):
        what = f"logging spectra to {to}"
        for tag, tensor in reading.tensors.items():
            facts = reading.facts.get(tag, {})
            write = partial(logger.spectrum, f"{prefix}/{tag}", tensor, reading.step, facts)
            _attempt(trainer, what, write)
        _attempt(trainer, what, logger.flush)


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
    for to, logger in takers(trainer):
        _attempt(trainer, f"logging the layout to {to}", partial(logger.layout, charts))


def log_text(trainer: pl.Trainer, tag: str, text: str, step: int) -> None:
    """Write Markdown."""
    for to, logger in takers(trainer):
        _attempt(trainer, f"logging texts to {to}", partial(logger.text, tag, text, step))


def log_figure(trainer: pl.Trainer, tag: str, figure: Figure, step: int) -> None:
    """Write a figure as an image, and flush."""
    for to, logger in takers(trainer):
        what = f"logging figures to {to}"
        _attempt(trainer, what, partial(logger.figure, tag, figure, step))
        _attempt(trainer, what, logger.flush)


def takes_figures(trainer: pl.Trainer) -> bool:
    """Whether there is a logger for them."""
    return next(takers(trainer), None) is not None


def takers(trainer: pl.Trainer) -> Iterator[tuple[str, Taker]]:
    """Loggers that take more than scalars, each with the name of its class."""
    for logger in trainer.loggers:
        name = type(logger).__name__
        found = _attempt(trainer, f"opening {name}", partial(taker, logger))
        if found is not None:
            yield name, found


def _attempt(trainer: pl.Trainer, what: str, write: Callable[[], T]) -> T | None:
    """What fails in one logger is said once a fit and keeps nothing from the others."""
    try:
        return write()
    except Exception as error:  # whatever it is, training must go on
        log.debug("%s failed; training goes on.", what, exc_info=error)
        said = f"{type(error).__name__}: {error}".rstrip(": .")
        after = f"{what} is tried again when next due"
        traced = "Its traceback is logged at level DEBUG by pinn_ntk."
        message = f"pinn_ntk: {what} failed with {said}. Training goes on; {after}. {traced}"
        _tell(trainer, message, what)
        return None


def _tell(trainer: pl.Trainer, message: str, what: str) -> None:
    """By a guard of this fit, all of which know what was said; or else by whoever listens."""
    ours = [c for c in getattr(trainer, "callbacks", ()) if isinstance(c, StatefulCallback)]
    guards = [c.guard for c in ours if hasattr(c, "guard")]
    if guards:
        guards[0].tell_once(message, what)
    else:
        warn(message)
