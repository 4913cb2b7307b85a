"""Measurements of the kernel as scalars, as words and as one picture.

Pure functions of `pinn_ntk.measurement.Measurement`; nothing here knows of a Trainer or a logger.
Only what stands above the noise floor of a spectrum enters a number or the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pinn_ntk.balance import weights_from_traces
from pinn_ntk.measurement import Measurement
from pinn_ntk.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

LAYOUT = {
    "NTK": {
        "trace of each block": ["Multiline", [r"ntk/trace/.*"]],
        "loss weights": ["Multiline", [r"ntk/weight/.*"]],
    }
}
"""Layout of TensorBoard's custom scalars tab; the innermost entries are regular expressions."""

MAX_LINES = 40
"""Spectra in one panel at most: the first, the last, and evenly many between."""

BRIGHTEST = 0.92
"""Where the colour map ends: its last yellow does not show on white."""

CONSTANT, MOVED = 0.1, 0.5
"""Drift up to which the kernel passes for constant, and from which it plainly does not."""

FEW = 20
"""Eigenvalues below which a spectrum is drawn with its points, so that a single one shows."""

UNEVEN = 3.0
"""Ratio of two traces from which the summary calls them uneven."""


def scalars(measurement: Measurement) -> dict[str, float]:
    """Tag -> number, as listed in the docstring of ``NTKMonitor``; what is not finite is left out.

    Args:
        measurement: What was measured at one step.

    Returns:
        The scalars, all tags starting with ``ntk/``.
    """
    values = {f"ntk/trace/{term}": trace for term, trace in measurement.traces.items()}
    for term, spectrum in measurement.spectra.items():
        values[f"ntk/lambda_max/{term}"] = spectrum.lambda_max
        values[f"ntk/effective_rank/{term}"] = spectrum.effective_rank
        values[f"ntk/log10_condition/{term}"] = math.log10(spectrum.condition)
    values |= {f"ntk/drift/{name}": value for name, value in measurement.drift.items()}
    if measurement.max_stable_lr is not None:
        values["ntk/max_stable_lr"] = measurement.max_stable_lr
    if measurement.certificate is not None:
        values["ntk/certificate"] = measurement.certificate
    return {tag: value for tag, value in values.items() if math.isfinite(value)}


def summary(measurement: Measurement, *, max_points: int | None = None) -> str:
    """What a measurement says, in words, as Markdown.

    Args:
        measurement: What was measured at one step.
        max_points: The limit that was in force, to be named where rows were left out.

    Returns:
        A table of the loss terms and a list of findings.
    """
    findings = [
        _balance(measurement),
        *(_resolved(term, spectrum) for term, spectrum in measurement.spectra.items()),
        _drift(measurement),
        _step_size(measurement),
        _trust(measurement),
        *(_left_out(term, measurement, max_points) for term in measurement.spectra),
    ]
    lines = [f"**Kernel at step {measurement.step}**", "", *_table(measurement), ""]
    return "\n".join(lines + [f"- {finding}" for finding in findings if finding])


def _table(measurement: Measurement) -> list[str]:
    lines = [
        "| term | rows | trace | lambda_max | effective rank | condition | drift |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for term, s in measurement.spectra.items():
        drift = measurement.drift.get(term, math.nan)
        lines.append(
            f"| {term} | {measurement.rows[term]} | {measurement.traces[term]:.3g} | "
            f"{s.lambda_max:.3g} | {s.effective_rank:.3g} | {s.condition:.1e} | {drift:.3g} |"
        )
    return lines


def _balance(measurement: Measurement) -> str:
    traces = {term: trace for term, trace in measurement.traces.items() if trace > 0}
    if len(traces) < 2:
        return ""
    slow, fast = min(traces, key=traces.__getitem__), max(traces, key=traces.__getitem__)
    ratio = traces[fast] / traces[slow]
    if ratio < UNEVEN:
        return f"Traces: within a factor of {ratio:.2g}; with equal weights no term lags behind."
    weights = weights_from_traces(traces, measurement.rows)
    listed = ", ".join(f"{term} {weight:.3g}" for term, weight in weights.items())
    return (
        f"Traces: that of {fast} is {ratio:.3g} times that of {slow}, so with equal weights {slow} "
        f"lags behind. Weights that even the traces out: {listed}."
    )


def _resolved(term: str, spectrum: Spectrum) -> str:
    rank, size = spectrum.rank, len(spectrum.eigenvalues)
    noise = f"; along the other {size - rank} nothing is learned" if rank < size else ""
    return (
        f"{term}: {spectrum.effective_rank:.2g} directions carry the kernel, {rank} of {size} "
        f"stand above the rounding noise{noise}."
    )


def _drift(measurement: Measurement) -> str:
    drift, moved = measurement.drift.get("kernel"), measurement.drift.get("parameters")
    if drift is None or not math.isfinite(drift) or not moved:
        return ""
    verdict = "in between: the linear theory of the first kernel holds roughly"
    if drift <= CONSTANT:
        verdict = "nearly constant: the linear theory of the first kernel describes the training"
    elif drift >= MOVED:
        verdict = "changed: the linear theory of the first kernel no longer holds"
    return (
        f"Drift: the kernel has moved by {drift:.2g} of its norm since the first measurement, the "
        f"parameters by {moved:.2g}; {verdict}. Where "
        "points are drawn anew each step this includes the change of points."
    )


def _step_size(measurement: Measurement) -> str:
    if measurement.max_stable_lr is None:
        return ""
    return (
        f"Step size: plain gradient descent on this loss is unstable above "
        f"{measurement.max_stable_lr:.2g}; Adam and others follow another rule."
    )


def _trust(measurement: Measurement) -> str:
    if measurement.certificate is None:
        return "Certificate: the kernel was not checked against ordinary backward passes."
    return (
        f"Certificate: the kernel agrees with ordinary backward passes to "
        f"{measurement.certificate:.0e}."
    )


def _left_out(term: str, measurement: Measurement, max_points: int | None) -> str:
    rows, kept = measurement.rows[term], len(measurement.spectra[term].eigenvalues)
    if rows == kept:
        return ""
    limit = "" if max_points is None else f" (max_points={max_points})"
    return (
        f"{term}: spectrum, lambda_max, ranks, condition and drift are those of {kept} of its "
        f"{rows} rows, evenly strided{limit}; the trace is of all rows, the step size an estimate."
    )


def history_figure(history: Mapping[str, Sequence[tuple[int, Spectrum]]]) -> Figure:
    """Spectrum of every term over training: one panel a term, thin lines from dark to bright.

    Needs matplotlib; pyplot is not touched.

    Args:
        history: Term -> (step, spectrum) in the order measured.

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
