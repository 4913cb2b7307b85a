"""Interference of loss terms: whether a step that lowers one term lowers or raises another.

| symbol | meaning | shape |
| --- | --- | --- |
| L_a | contribution of term ``a`` to the loss, weights included | () |
| r_a | residual of term ``a``, flattened | (R_a,) |
| g_a | dL_a/dr_a, its slope | (R_a,) |
| K_ab | J_a J_b^T, one block of the kernel | (R_a, R_b) |
| M_ab | g_a^T K_ab g_b, inner product of the gradients of L_a and L_b | () |

Under gradient flow dL_a/dt = -sum_b M_ab: term ``b`` helps term ``a`` along where M_ab > 0 and
works against it where M_ab < 0. The sum over all pairs is |dL/dtheta|^2 = ||d||_K^2, the rate at
which the loss falls (Jacot, Gabriel, Hongler 2018, section 3, with d_a = N_a g_a).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pinn_ntk.analysis.kernel_gradient import term_gradients
from pinn_ntk.kernel.ntk import NTK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

CELL, LEAST = 0.7, 1.6
"""Side of a cell and least side of a panel of the figure, in inches."""

_WIDTH = 2**20  # parameters of which the gradients of all terms are multiplied at a time

CHARACTER = 0.09
"""Width of a character of a label, in inches."""


@dataclass(frozen=True, eq=False)
class Interference:
    """Inner products of the gradients of the loss terms.

    Attributes:
        terms: Names of the terms, T of them.
        matrix: M, (T, T) float64, symmetric positive semidefinite; in the unit of the loss over
            learning rate.

    Example:
        >>> products = torch.tensor([[4.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
        >>> measured = Interference(("pde", "bc"), products)
        >>> measured.between("pde", "bc")  # bc's part of a step undoes some of pde's
        -0.5
        >>> measured.decay, measured.total  # with bc beside it, pde falls at 3 instead of 4
        ({'pde': 3.0, 'bc': 0.0}, 3.0)
    """

    terms: tuple[str, ...]
    matrix: Tensor

    @property
    def norms(self) -> dict[str, float]:
        """Term -> |dL_a/dtheta|, length of its gradient."""
        lengths = self.matrix.diagonal().clamp(min=0).sqrt().tolist()
        return dict(zip(self.terms, lengths, strict=True))

    @property
    def cosine(self) -> Tensor:
        """M_ab / sqrt(M_aa M_bb), (T, T), in [-1, 1]; NaN where a gradient is zero."""
        lengths = self.matrix.diagonal().clamp(min=0).sqrt()
        return (self.matrix / lengths[:, None] / lengths).clamp(-1, 1)  # 0 / 0 stays NaN

    def between(self, a: str, b: str) -> float:
        """Cosine of the angle between the gradients of the terms ``a`` and ``b``.

        From -1 (each undoes the other) over 0 (neither notices) to 1; NaN where one of the
        gradients is zero, and has no direction. Raises KeyError where there is no such term.
        """
        for term in (a, b):
            if term not in self.terms:
                raise KeyError(f"no term {term!r} in this measurement; it has {list(self.terms)}.")
        return float(self.cosine[self.terms.index(a), self.terms.index(b)])

    @property
    def decay(self) -> dict[str, float]:
        """Term -> sum_b M_ab = -dL_a/dt under gradient flow; below 0 where its loss rises."""
        return dict(zip(self.terms, self.matrix.sum(1).tolist(), strict=True))

    @property
    def total(self) -> float:
        """Sum of all entries: -dL/dt = |dL/dtheta|^2."""
        return max(float(self.matrix.sum()), 0.0)


def interference(kernel: NTK, slopes: Mapping[str, Tensor]) -> Interference:
    """M_ab = g_a^T K_ab g_b of all pairs of terms, by products with J^T; no block is formed.

    Args:
        kernel: Kernel of the terms.
        slopes: Term -> g_a, R_a entries in any shape, one for each term of the kernel, weights in
            force included: ``Term.slope`` of `pinn_ntk.find_terms`, or
            `pinn_ntk.analysis.kernel_gradient.loss_gradients`.

    Returns:
        The interference, in the order of the kernel's terms, on its device.

    Raises:
        ValueError: A term has no slope, one of the wrong length, or slopes are given for a term
            that the kernel lacks.

    Example:
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> r, b = 3 * w[:1], w[1:] - w[:1] - 1
        >>> kernel = empirical_ntk({"pde": r, "bc": b}, [w])
        >>> measured = interference(kernel, {"pde": 2 * r, "bc": 2 * b})  # of r^2 and b^2
        >>> measured.matrix
        tensor([[324.,  36.],
                [ 36.,   8.]], dtype=torch.float64)
        >>> round(measured.between("pde", "bc"), 3)
        0.707
    """
    missing = [term for term in kernel.terms if term not in slopes]
    if missing:
        raise ValueError(
            f"no slope for {missing}; got slopes for {list(slopes)}. Expected one for each term "
            "of the kernel: zeros for points that the loss does not see, or take a kernel of the "
            "other terms alone."
        )
    return interference_of(term_gradients(kernel, slopes))


def interference_of(gradients: Mapping[str, Tensor]) -> Interference:
    """The same from the gradients dL_a/dtheta themselves, term -> (P,)."""
    pieces = zip(*(gradient.split(_WIDTH) for gradient in gradients.values()), strict=True)
    stacked = (torch.stack(piece).double() for piece in pieces)  # (T, p) of (T, P)
    products = torch.stack([some @ some.mT for some in stacked]).sum(0)
    return Interference(tuple(gradients), (products + products.mT) / 2)


def interference_figure(measured: Interference | Mapping[str, Interference]) -> Figure:
    """Cosines as coloured matrices, one panel a measurement, to be read row against column.

    Blue pairs help each other, red ones undo a part of each other's steps; grey has no direction
    because a gradient is zero. Needs matplotlib; pyplot is not touched.

    ``measured`` is one measurement, or title -> measurement, such as of the first and last step;
    ValueError where there is none.
    """
    from matplotlib.figure import Figure

    panels = {"": measured} if isinstance(measured, Interference) else dict(measured)
    if not panels:
        raise ValueError("no measurement to draw; expected an Interference or title -> one.")
    figure = Figure(figsize=_size(list(panels.values())), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    first = next(iter(panels.values()))
    for axes, (title, one) in zip(grid, panels.items(), strict=True):
        image = _draw(axes, one, named=one is first or one.terms != first.terms)
        axes.set_title(title, parse_math=False, fontsize="medium")
    grid[0].set_ylabel("term, length of its gradient")
    figure.suptitle("Interference of the loss terms", fontsize="medium")
    figure.colorbar(image, ax=list(grid), label="cosine of the gradients")
    return figure


def _size(panels: list[Interference]) -> tuple[float, float]:
    """Width and height in inches that leave each matrix its room beside the longest name."""
    side = max(LEAST, CELL * max(len(one.terms) for one in panels))
    name = CHARACTER * max(8, *(len(term) for one in panels for term in one.terms))
    leaning = 0.75 * name  # the names below the columns, and how far they reach to the left
    named = 1 + sum(one.terms != panels[0].terms for one in panels)
    labels = named * name + (len(panels) - named) * leaning
    return len(panels) * (side + 0.3) + labels + 1.6, side + leaning + 1.2


def _draw(axes: Axes, measured: Interference, *, named: bool) -> AxesImage:
    """The cells; without ``named`` only lengths at the rows, as the first panel has the names."""
    from matplotlib import colormaps

    colours = colormaps["RdBu"].with_extremes(bad="0.8")
    cosine = measured.cosine.cpu().numpy()
    image = axes.imshow(cosine, cmap=colours, vmin=-1, vmax=1)
    for (row, column), value in np.ndenumerate(cosine):
        colour = "white" if abs(value) > 0.6 else "black"  # NaN compares false
        text = "-" if math.isnan(value) else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    places, norms = range(len(measured.terms)), measured.norms
    labels = [f"{term}\n{norms[term]:.1e}" if named else f"{norms[term]:.1e}" for term in norms]
    axes.set_xticks(places, measured.terms, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(places, labels, parse_math=False)
    return image
