"""Eigenvectors of a kernel over the domain: which functions are learned first.

| symbol | meaning | shape |
| --- | --- | --- |
| x_n | points of the residual | (N, 1) or (N, 2) |
| lambda_i, v_i | eigenvalues of K, largest first, and eigenvectors | (R,), (R, R) |
| phi_i(x_n) | sqrt(R) times the entry of v_i that belongs to x_n | (N,) |

In the flow dr/dt = -K D r with D the same in all rows, the part of r along v_i decays at the rate
lambda_i D: the first functions are learned first, those below the noise floor never. The factor
sqrt(R) makes the mean square of phi_i over all R rows 1, however many points there are.

Source: Wang, Yu, Perdikaris 2022, section 4 and eq 4.5, of the decomposition of training into
these directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pinn_ntk.kernel.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLUMNS, LEVELS = 3, 21
"""Panels beside one another at most; colours of a map."""


def eigenfunctions(
    spectrum: Spectrum, count: int | None = None, rows: slice | Tensor | None = None
) -> Tensor:
    """The first ``count`` eigenfunctions above the noise floor, or all, at the points.

    ``rows`` of the matrix belong to the points, (N,) indices or a slice: those of one term of a
    larger kernel, or ``slice(0, None, 2)`` for the first component of two; all when left out.
    Returns phi_i(x_n), (N, min(count, rank)); the entry of largest size of each is positive.

    >>> import torch
    >>> kernel = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))
    >>> eigenfunctions(Spectrum.of(kernel, eigenvectors=True), 1)
    tensor([[0.0000],
            [1.4142]], dtype=torch.float64)
    """
    if spectrum.eigenvectors is None:
        raise ValueError(
            "the spectrum has no eigenvectors; take it with eigenvectors=True, as in "
            "kernel.spectrum('pde', eigenvectors=True)."
        )
    if count is not None and count < 1:
        raise ValueError(f"count is {count}; expected 1 or more eigenfunctions.")
    kept = spectrum.rank if count is None else min(count, spectrum.rank)
    values = spectrum.eigenvectors[:, :kept] * math.sqrt(len(spectrum.eigenvectors))
    values = values if rows is None else values[rows]
    if not values.numel():
        return values
    largest = values.gather(0, values.abs().argmax(0, keepdim=True))
    return values * largest.sign().where(largest != 0, 1.0)


def eigenfunction_figure(
    points: Tensor,
    spectrum: Spectrum,
    *,
    count: int = 6,
    rows: slice | Tensor | None = None,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """The first eigenfunctions, a panel each: lines over one dimension, maps over two.

    Only those above the noise floor are drawn. The colours of each map have a scale of their own,
    shown beside it, white at zero. Needs matplotlib; pyplot is not touched.

    Args:
        points: x_n, (N, 1), (N, 2) or (N,), in the order of the rows.
        spectrum: Spectrum with eigenvectors.
        count: Panels at most.
        rows: Rows of the matrix that belong to the points, as in `eigenfunctions`.
        labels: Names of the axes; "x" and "y" when left out.
        title: What stands above all panels.

    Returns:
        The figure; each panel says the rank of its eigenvalue among those of the matrix, and its
        value.

    Raises:
        ValueError: Points have another dimension, or are not as many as the rows; the spectrum
            has no eigenvectors, or none above the floor.
    """
    from matplotlib.figure import Figure

    values = eigenfunctions(spectrum, count, rows).detach().cpu().double().numpy()
    places = _places(points, len(values))
    if not values.shape[1]:
        raise ValueError(
            "no eigenvalue stands above the noise floor, so there is nothing to draw; the largest "
            f"is {spectrum.lambda_max:g}, the floor {spectrum.floor:g}."
        )
    columns = min(COLUMNS, values.shape[1])
    lines = math.ceil(values.shape[1] / columns)
    figure = Figure(figsize=(0.6 + 3.2 * columns, 0.5 + 2.5 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    draw = _line if places.shape[1] == 1 else _map
    panels = zip(grid.flat, values.T, spectrum.eigenvalues, strict=False)
    for number, (axes, function, value) in enumerate(panels, start=1):
        draw(axes, places, function)
        axes.set_title(f"$\\lambda_{{{number}}}$ = {float(value):.3g}", fontsize="medium")
    names = labels or ("x", "y")
    _name(grid, names[0], "eigenfunction" if places.shape[1] == 1 else names[1])
    figure.suptitle(title or f"Eigenfunctions and eigenvalues, {spectrum.rank} above the floor")
    return figure


def _name(grid: NDArray[Any], below: str, beside: str) -> None:
    """Name the axes of the lowest panel of each column and the first of each line."""
    for axes in grid[:, 0]:
        axes.set_ylabel(beside)
    for column in grid.T:
        for axes in column:
            axes.axison = axes.has_data()
        lowest = [axes for axes in column if axes.axison][-1]
        lowest.set_xlabel(below)
        lowest.xaxis.set_tick_params(labelbottom=True)


def _places(points: Tensor, rows: int) -> NDArray[np.float64]:
    """The points as an array (N, 1) or (N, 2)."""
    places = points.detach().cpu().double().numpy()
    if places.ndim == 1:
        places = places[:, None]
    if places.ndim != 2 or places.shape[1] not in {1, 2}:
        raise ValueError(
            f"points have the shape {tuple(points.shape)}; expected (N, 1) or (N, 2). Of a domain "
            "of more dimensions take a slice: fix the others when the residual is evaluated."
        )
    if len(places) != rows:
        raise ValueError(
            f"{len(places)} points for {rows} rows of eigenvectors. Of a residual with several "
            "components, or one term of a larger kernel, name its rows with `rows`, such as "
            "slice(0, None, 2) for the first of two components."
        )
    return places


def _line(axes: Axes, places: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    order = np.argsort(places[:, 0], kind="stable")
    marker = "." if len(values) <= 40 else ""
    axes.axhline(0.0, color="0.8", linewidth=0.8)
    axes.plot(places[order, 0], values[order], color="#0072B2", marker=marker, linewidth=1.2)


def _map(axes: Axes, places: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Filled contours between the points; the points themselves where they lie on a line."""
    x, y = places.T
    top = max(float(np.abs(values).max()), np.finfo(float).tiny)
    from_mean = places - places.mean(0)
    if np.linalg.matrix_rank(from_mean, tol=1e-9 * float(np.abs(from_mean).max())) < 2:
        drawn: Any = axes.scatter(x, y, c=values, cmap="RdBu_r", vmin=-top, vmax=top, s=12)
    else:
        levels = np.linspace(-top, top, LEVELS)
        drawn = axes.tricontourf(x, y, values, levels=levels, cmap="RdBu_r")
    scale = axes.figure.colorbar(drawn, ax=axes, ticks=[-top, 0.0, top], format="%.2g")
    scale.ax.tick_params(labelsize="small")
