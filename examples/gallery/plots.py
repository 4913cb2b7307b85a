"""Figures of a model on its test points: reference, prediction and error."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from torch import Tensor

from gallery.problem import Problem

Array = NDArray[np.floating]


@torch.no_grad()
def draw(model: Problem, points: Tensor) -> Figure:
    """Curves over one input, maps over two; a row for each output.

    Args:
        model: Its ``inputs`` and ``outputs`` name the axes and the rows.
        points: A grid (N, n_in), the last input fastest.
    """
    x = points.numpy()
    reference, u = model.reference(points).numpy(), model.net(points).numpy()  # (N, n_out)
    curves, rows = x.shape[1] == 1, len(model.outputs)
    size = (7.0, 5.0) if curves else (11.0, 3.4)
    figure = Figure(figsize=(size[0], rows * size[1]), layout="constrained")
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    for i, (part, name) in enumerate(zip(parts, model.outputs, strict=True)):
        (draw_curves if curves else draw_maps)(
            part, x, reference[:, i], u[:, i], (*model.inputs, name)
        )
    return figure


def title(reference: Array, u: Array) -> str:
    """How the error is headed."""
    norm = np.linalg.norm
    return f"|error|, relative L2 {norm(u - reference) / norm(reference):.2e}"


def draw_curves(
    part: SubFigure, x: Array, reference: Array, u: Array, names: tuple[str, ...]
) -> None:
    """Prediction on the reference, and the pointwise error below."""
    above, below = part.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    above.plot(x, reference, color="0.6", linewidth=4, label="reference")
    above.plot(x, u, color="tab:red", linestyle="--", label="prediction")
    above.set_ylabel(names[-1])
    above.legend(loc="upper right")
    below.plot(x, abs(u - reference), color="tab:red")
    below.set(xlabel=names[0], ylim=(0, None), xlim=(x[0], x[-1]), title=title(reference, u))


def draw_maps(
    part: SubFigure, x: Array, reference: Array, u: Array, names: tuple[str, ...]
) -> None:
    """Reference, prediction and pointwise error over both inputs."""
    shape = (len(np.unique(x[:, 0])), -1)
    top = abs(reference).max()
    signed, size = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}, {"cmap": "viridis", "vmin": 0.0}
    shown = {
        f"reference {names[-1]}": (reference, signed),
        "prediction": (u, signed),
        title(reference, u): (abs(u - reference), size),
    }
    extent = (*x[[0, -1], 0], *x[[0, -1], 1])
    for axes, (head, (values, colours)) in zip(
        part.subplots(1, 3, sharey=True), shown.items(), strict=True
    ):
        place = {"origin": "lower", "extent": extent, "aspect": "auto"}
        image = axes.imshow(values.reshape(shape).T, **colours, **place)
        axes.set(xlabel=names[0], ylabel=names[1] if values is reference else None, title=head)
        part.colorbar(image, ax=axes)
