"""Eigenfunctions over the domain: of kernels whose eigenfunctions are known."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from pinn_ntk import Spectrum, eigenfunction_figure
from pinn_ntk.analysis.eigenfunctions import eigenfunctions
from tests.kernels import explicit

pytestmark = pytest.mark.usefixtures("float64")
N = 40
ANGLES = 2 * math.pi * torch.arange(N, dtype=torch.float64) / N


def cosines() -> Tensor:
    """1, cos and cos 2 at equidistant angles, orthogonal and of mean square 1, (N, 3)."""
    functions = torch.stack([torch.cos(k * ANGLES) for k in range(3)], 1)
    return functions / functions.square().mean(0).sqrt()


def kernel() -> Tensor:
    """Eigenvalues 8, 4, 2 with these functions."""
    return cosines() @ torch.diag(torch.tensor([8.0, 4.0, 2.0])) @ cosines().mT / N


def spectrum(matrix: Tensor | None = None) -> Spectrum:
    return Spectrum.of(kernel() if matrix is None else matrix, eigenvectors=True)


def test_known_functions() -> None:
    found = eigenfunctions(spectrum())
    assert found.shape == (N, 3)  # 37 others lie below the floor
    assert torch.allclose(found, cosines(), atol=1e-12)
    assert torch.allclose(found.square().mean(0), torch.ones(3))


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 2), (3, 3), (9, 3), (None, 3)])
def test_count(count: int | None, kept: int) -> None:
    assert eigenfunctions(spectrum(), count).shape == (N, kept)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sign_is_that_of_the_largest_entry(sign: float) -> None:
    vector = sign * torch.tensor([0.1, -0.9, 0.3, 0.2])
    (found,) = eigenfunctions(spectrum(torch.outer(vector, vector))).mT
    assert torch.allclose(found, -2 * sign * vector / vector.norm())


def test_rows_of_a_larger_matrix() -> None:
    """Two blocks: the second has functions of its own, and none where the first acts."""
    whole = torch.block_diag(kernel(), 100 * torch.ones(5, 5))
    of_first = eigenfunctions(spectrum(whole), rows=slice(0, N))
    of_second = eigenfunctions(spectrum(whole), rows=torch.arange(N, N + 5))
    assert (of_first.shape, of_second.shape) == ((N, 4), (5, 4))
    assert float(of_first[:, 0].abs().max()) < 1e-12  # eigenvalue 500 belongs to the second
    assert torch.allclose(of_second[:, 0], torch.full((5,), math.sqrt(45 / 5)))
    assert torch.allclose(of_first[:, 2] * math.sqrt(N / 45), eigenfunctions(spectrum())[:, 1])


def test_rows_of_one_component() -> None:
    both = torch.kron(kernel(), torch.diag(torch.tensor([1.0, 3.0])))  # row n * 2 + c
    found = eigenfunctions(spectrum(both), 1, slice(1, None, 2))
    assert torch.allclose(found, torch.full((N, 1), math.sqrt(2)))


@pytest.mark.parametrize("count", [50, 200])
def test_eigenvalues_of_the_operator_do_not_grow_with_the_points(count: int) -> None:
    """Of int_0^1 (x x' + 1) f(x') dx', the kernel of a x + b: those of [[1/3, 1/2], [1/2, 1]]."""
    x = (torch.arange(count) + 0.5) / count  # midpoints
    kernel = explicit(data=torch.stack([x, torch.ones(count)], 1))
    found = torch.linalg.eigvalsh(kernel["data"] / count)[-2:]
    expected = torch.linalg.eigvalsh(torch.tensor([[1 / 3, 1 / 2], [1 / 2, 1]]))
    assert float((found - expected).norm()) <= float(expected.norm()) / count**2
    weighted = kernel.weighted_matrix({"data": 2 / count})  # of a mean of squares: twice as much
    assert torch.allclose(weighted, 2 * kernel["data"] / count, rtol=1e-14, atol=0)


def titles(figure: object) -> list[str]:
    """Such as "1: 8" of the panel of lambda_1 = 8."""
    texts = [axes.get_title() for axes in figure.axes if axes.axison]
    return [re.sub(r"\$\\lambda_\{(\d+)\}\$ = ", r"\1: ", text) for text in texts]


def test_lines_over_one_dimension() -> None:
    order = torch.randperm(N)
    mixed, labels = spectrum(kernel()[order][:, order]), {"labels": ["angle"], "title": "Cosines"}
    figure = eigenfunction_figure(ANGLES[order, None], mixed, **labels)
    assert titles(figure) == ["1: 8", "2: 4", "3: 2"]
    assert figure.get_suptitle() == "Cosines"
    assert figure.axes[1].get_xlabel() == "angle"
    _, line = figure.axes[1].lines
    np.testing.assert_array_equal(line.get_xdata(), ANGLES.numpy())
    expected = (math.sqrt(2) * torch.cos(ANGLES)).numpy()
    np.testing.assert_allclose(line.get_ydata(), expected, atol=1e-12)
    figure.savefig("/dev/null", format="png")


def test_points_may_be_flat_and_empty_panels_are_off() -> None:
    assert titles(eigenfunction_figure(ANGLES, spectrum(), count=1)) == ["1: 8"]
    five = spectrum(torch.diag(torch.arange(1.0, 6.0)))
    figure = eigenfunction_figure(torch.arange(5.0), five, count=4)
    assert len(figure.axes) == 6
    assert titles(figure) == ["1: 5", "2: 4", "3: 3", "4: 2"]


def test_maps_over_two_dimensions() -> None:
    side = torch.linspace(0, 1, 6)
    points = torch.cartesian_prod(side, side)
    function = points[:, 0] - points[:, 1]
    figure = eigenfunction_figure(points, spectrum(torch.outer(function, function)), labels="tx")
    axes, scale = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("t", "x")
    (contours,) = axes.collections
    top = 6 * float(function.abs().max() / function.norm())
    assert contours.levels[[0, -1]].tolist() == pytest.approx([-top, top])
    assert scale.get_ylim() == pytest.approx((-top, top))
    labels = [text.get_text() for text in scale.get_yticklabels()]
    assert labels == [f"-{top:.2g}", "0", f"{top:.2g}"]
    figure.savefig("/dev/null", format="png")


@pytest.mark.parametrize("count", [1, 2, 30])
def test_points_on_a_line_are_drawn_as_points(count: int) -> None:
    points = torch.linspace(0, 1, count)[:, None] * torch.tensor([1.0, 2.0])
    figure = eigenfunction_figure(points, spectrum(torch.ones(count, count)))
    assert figure.axes[1].get_ylim() == pytest.approx((-1.0, 1.0))  # the scale
    (marks,) = figure.axes[0].collections
    assert marks.get_offsets().shape == (count, 2)
    assert marks.get_array().tolist() == pytest.approx([1.0] * count)


SHAPE = r"points have the shape .*expected \(N, 1\) or \(N, 2\)"
WRONG = [((20,), "20 points for 40 rows")]
WRONG += [(shape, SHAPE) for shape in ((N, 3), (N, 0), (N, 1, 1), ())]


@pytest.mark.parametrize(("shape", "message"), WRONG, ids=str)
def test_points_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        eigenfunction_figure(torch.zeros(shape), spectrum())


def test_where_there_are_no_functions_the_cause_is_named() -> None:
    with pytest.raises(ValueError, match="take it with eigenvectors=True"):
        eigenfunctions(Spectrum.of(kernel()))
    with pytest.raises(ValueError, match="count is 0"):
        eigenfunctions(spectrum(), 0)
    nothing = spectrum(torch.zeros(4, 4))
    assert eigenfunctions(nothing).shape == (4, 0)
    with pytest.raises(ValueError, match="no eigenvalue stands above"):
        eigenfunction_figure(torch.arange(4.0), nothing)
