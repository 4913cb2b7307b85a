"""The figure of docs/gallery.md: the course of the error of all runs with all points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gallery_problems import DESIGNS, PROBLEMS, RULES
from benchmarks.gallery_table import Runs

ACROSS = 5
"""Problems in a row."""


def draw(runs: Runs, path: Path) -> None:
    """Error against steps, and below it against seconds of one core; five problems a row."""
    from matplotlib.figure import Figure

    shown = [p for p in PROBLEMS if any(r["problem"] == p.title for r in runs)]
    rows = 2 * math.ceil(max(len(shown), 1) / ACROSS)
    figure = Figure(figsize=(13.0, 2.5 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, ACROSS, squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    colours = {column: f"C{i}" for i, column in enumerate(RULES)}
    for i, problem in enumerate(shown):
        row, column = 2 * (i // ACROSS), i % ACROSS
        of = [r for r in runs if (r["problem"], r["design"]) == (problem.title, DESIGNS[0])]
        _panels(panels[row : row + 2, column], problem.title, of, colours)
    lines = [panels[0, 0].plot([], [], color=c)[0] for c in colours.values()]
    figure.legend(lines, list(colours), loc="outside lower center", ncols=8, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _panels(pair: Any, title: str, runs: Runs, colours: Mapping[str, str]) -> None:
    for panel, label in zip(pair, ("step", "seconds of one core"), strict=True):
        panel.set_visible(True)
        panel.set(yscale="log", xlabel=label, ylabel="relative L2 error")
    pair[0].set_title(title, fontsize=10)
    for run in runs:
        if run["column"] in colours:
            _curve(pair, run, colours[run["column"]])


def _curve(panels: Any, run: Mapping[str, Any], colour: str) -> None:
    steps, seconds, found = zip(*run["course"], strict=True)
    values = [math.nan if e is None or math.isinf(e) else e for e in found]
    for panel, x in zip(panels, (steps, seconds), strict=True):
        panel.plot(x, values, color=colour, linewidth=1.0, alpha=0.8)
