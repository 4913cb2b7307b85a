"""Measurements of the kernel as scalars and as one picture; as words in `pinn_ntk.diagnostics.words`.

Pure functions of `pinn_ntk.diagnostics.measurement.Measurement`; nothing here knows of a Trainer or a logger.
Only what stands above the noise floor of a spectrum enters a number or the picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from pinn_ntk.analysis.interference import Interference
from pinn_ntk.diagnostics.measurement import BATCH, Measurement
from pinn_ntk.diagnostics.words import summary
from pinn_ntk.kernel.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["MAX_LINES", "history_figure", "layout", "pixels", "scalars", "summary"]

MAX_LINES = 40
"""Spectra in one panel at most: the first, the last, and evenly many between."""

BRIGHTEST = 0.92
"""Where the colour map ends: its last yellow does not show on white."""

FEW = 20
"""Eigenvalues below which a spectrum is drawn with its points, so that a single one shows."""


def layout(prefix: str = "ntk") -> dict[str, dict[str, list[object]]]:
    """Layout of TensorBoard's custom scalars tab; the innermost entries are regular expressions.

    Args:
        prefix: First part of all tags.

    Returns:
        Category -> chart -> kind and tags.
    """
    tags = re.escape(prefix)
    return {
        prefix.upper(): {
            "trace of each block": ["Multiline", [rf"{tags}/trace/.*"]],
            "loss weights": ["Multiline", [rf"{tags}/weight/.*"]],
            "weights in the loss": ["Multiline", [rf"{tags}/effective_weight/.*"]],
            "learning rate": ["Multiline", [rf"{tags}/lr$", rf"{tags}/max_stable_lr$"]],
            "interference": ["Multiline", [rf"{tags}/interference/.*"]],
        }
    }


def scalars(measurement: Measurement, *, prefix: str = "ntk") -> dict[str, float]:
    """Tag -> number, as listed in the docstring of ``NTKMonitor``.

    What is not finite is left out, but for the trace of an undefined term, which is NaN.

    Args:
        measurement: What was measured at one step.
        prefix: First part of all tags.

    Returns:
        The scalars, such as ``ntk/trace/pde``.
    """
    values = {f"trace/{term}": trace for term, trace in measurement.traces.items()}
    for group, traces in measurement.group_traces.items():
        values |= {f"trace_{group}/{term}": trace for term, trace in traces.items()}
    for term, spectrum in measurement.spectra.items():
        values[f"lambda_max/{term}"] = spectrum.lambda_max
        values[f"effective_rank/{term}"] = spectrum.effective_rank
        values[f"log10_condition/{term}"] = math.log10(spectrum.condition)
    weights = measurement.effective_weights
    values |= {f"effective_weight/{term}": weight for term, weight in weights.items()}
    values |= {f"drift/{name}": value for name, value in measurement.drift.items()}
    if measurement.max_stable_lr is not None:
        values["max_stable_lr"] = measurement.max_stable_lr
    if measurement.learning_rate is not None:
        values["lr"] = measurement.learning_rate
    if measurement.distance_to_limit is not None:
        values["distance_to_limit"] = measurement.distance_to_limit
    if measurement.interference is not None:
        values |= _cosines(measurement.interference)
    if measurement.certificate is not None:
        values["certificate"] = measurement.certificate
    finite = {tag: value for tag, value in values.items() if math.isfinite(value)}
    finite |= {f"trace/{term}": math.nan for term in measurement.undefined}
    return {f"{prefix}/{tag}": value for tag, value in finite.items()}


def _cosines(measured: Interference) -> dict[str, float]:
    pairs = combinations(measured.terms, 2)
    return {f"interference/{a}/{b}": measured.between(a, b) for a, b in pairs}


def history_figure(
    history: Mapping[str, Sequence[tuple[int, Spectrum]]], *, points: str = BATCH
) -> Figure:
    """Spectrum of every term over training: one panel a term, thin lines from dark to bright.

    Needs matplotlib; pyplot is not touched.

    Args:
        history: Term -> (step, spectrum) in the order measured.
        points: What the kernels were taken on, for the title.

    Returns:
        The figure. Eigenvalues at and below the noise floor are not drawn; the floor of the last
        measurement is the dotted line.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.figure import Figure

    steps = [step for series in history.values() for step, _ in series]
    norm = Normalize(min(steps), max(*steps, min(steps) + 1))
    colours = ListedColormap(colormaps["plasma"](np.linspace(0, BRIGHTEST, 256)))
    figure = Figure(figsize=(1.2 + 4.2 * len(history), 3.6), layout="constrained")
    panels = figure.subplots(1, len(history), squeeze=False)[0]
    for axes, (term, series) in zip(panels, history.items(), strict=True):
        _draw(axes, _spread(series), lambda step: colours(norm(step)))
        axes.set_title(term, parse_math=False)
    figure.suptitle(f"Spectra on {points}", fontsize="medium")
    figure.colorbar(ScalarMappable(norm, colours), ax=list(panels), label="training step")
    return figure


def _spread(series: Sequence[tuple[int, Spectrum]]) -> list[tuple[int, Spectrum]]:
    if len(series) <= MAX_LINES:
        return list(series)
    picked = np.linspace(0, len(series) - 1, MAX_LINES).round().astype(int)
    return [series[i] for i in picked]


def _draw(axes: Axes, series: Sequence[tuple[int, Spectrum]], colour: Callable[[int], Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    lines = [spectrum.above_floor.numpy() for _, spectrum in series]
    for (step, _), kept in zip(series, lines, strict=True):
        marker = "." if len(kept) < FEW else ""
        index = np.arange(1, len(kept) + 1)
        axes.semilogy(index, kept, marker=marker, ms=4, color=colour(step), lw=0.9)
    if any(len(kept) for kept in lines):
        last = series[-1][1]
        axes.axhline(last.floor, color="0.5", linestyle=":", linewidth=0.9)
        shown = np.concatenate(lines)
        axes.set_ylim(shown.min() / 3, shown.max() * 3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.5, max(*map(len, lines), 1) + 0.5)
    axes.set(xlabel="index", ylabel="eigenvalue of $K$")


def pixels(figure: Figure) -> NDArray[Any]:
    """The figure as an image, (height, width, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
