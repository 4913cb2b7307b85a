"""Pictures that a diagnostic draws when a fit ends. They need matplotlib; pyplot is not touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pinn_ntk.kernel.spectrum import Spectrum
from pinn_ntk.looks.step_terms import BATCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


MAX_LINES = 40
"""Spectra in one panel at most: the first, the last, and evenly many between."""


BRIGHTEST = 0.92
"""Where the colour map ends: its last yellow does not show on white."""


FEW = 20
"""Eigenvalues below which a spectrum is drawn with its points, so that a single one shows."""


def history_figure(
    history: Mapping[str, Sequence[tuple[int, Spectrum]]], *, points: str = BATCH
) -> Figure:
    """Spectrum of every term over training: one panel a term, thin lines from dark to bright.

    Needs matplotlib; pyplot is not touched.
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
