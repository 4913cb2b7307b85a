"""Interference of terms against gradients by plain autograd, and against losses after a step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import NTK, Interference, empirical_ntk, find_terms, interference, loss_gradients
from pinn_ntk.analysis.interference import interference_figure
from tests.asserts import assert_near
from tests.cases import CASES, Case
from tests.kernels import IN_FLOAT64, Movable, built, by_autograd, explicit, two_terms
from tests.losses import LOSSES
from tests.networks import NETWORKS
from tests.operators import laplacian, points

pytestmark = IN_FLOAT64


@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_of_the_gradients(case: Case) -> None:
    residuals, leaves, kernel = built(case)
    for name, loss in LOSSES.items():
        losses = loss(residuals)
        gradients = by_autograd(losses, leaves)
        slopes = loss_gradients(sum(losses.values()), residuals)
        measured = interference(kernel, slopes)
        lengths = gradients.norm(dim=1)
        reach = torch.tensor([kernel.trace(a) ** 0.5 * float(slopes[a].norm()) for a in slopes])
        lengths = torch.where(lengths < 1e-3 * reach, reach, lengths)  # rows that cancel
        scale = lengths[:, None] * lengths
        assert measured.terms == tuple(residuals)
        error = (measured.matrix - gradients @ gradients.mT).abs()
        assert bool((error <= 1e-12 * scale).all()), f"{name}: {error / scale}"


@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_properties_of_the_matrix(case: Case) -> None:
    residuals, _, kernel = built(case)
    slopes = loss_gradients(sum(LOSSES["mixed"](residuals).values()), residuals)
    measured = interference(kernel, slopes)
    g = {name: slope.flatten() for name, slope in slopes.items()}
    blocks = [[g[a] @ kernel[a, b] @ g[b] for b in g] for a in g]
    size = float(measured.matrix.norm())
    assert_near(measured.matrix, torch.tensor(blocks), 1e-12, "g^T K g", size)
    assert torch.equal(measured.matrix, measured.matrix.mT)
    assert float(torch.linalg.eigvalsh(measured.matrix)[0]) >= -1e-13 * size
    cosine = measured.cosine
    assert bool(((cosine.abs() <= 1) | cosine.isnan()).all())
    assert measured.total == pytest.approx(sum(measured.decay.values()), abs=1e-13 * size)


class Tug(Movable):
    """Three terms of one network: a PDE, values at its ends, and values that contradict them."""

    def __init__(self) -> None:
        self.net = NETWORKS["mlp"](1, 1)

    def residuals(self) -> dict[str, Tensor]:
        x, ends = points(7, 1), points(4, 1, seed=1)
        u = self.net(ends)
        return {"pde": laplacian(self.net(x), x) + 1, "low": u + 2, "high": u[:3] - 2}


@pytest.mark.parametrize("name", LOSSES)
def test_decay_is_the_rate_at_which_each_loss_falls(name: str) -> None:
    """-dL_a/dt under gradient flow, by central differences of each term's own loss."""
    tug = Tug()
    residuals = tug.residuals()
    loss = LOSSES[name]
    total = sum(loss(residuals).values())
    slopes = loss_gradients(total, residuals)
    measured = interference(empirical_ntk(residuals, tug.net), slopes)
    gradient = list(torch.autograd.grad(total, list(tug.net.parameters())))
    step = 1e-5 / math.sqrt(measured.total)
    ahead, behind = (loss(tug.moved(gradient, sign * step)) for sign in (-1, 1))
    size = max(measured.decay.values(), key=abs)
    for term, decay in measured.decay.items():
        rate = float(behind[term] - ahead[term]) / (2 * step)
        assert rate == pytest.approx(decay, rel=1e-6, abs=1e-7 * abs(size)), term
    assert sum(measured.decay.values()) == pytest.approx(measured.total, rel=1e-12)
    squares = sum(float(part.square().sum()) for part in gradient)
    assert measured.total == pytest.approx(squares, rel=1e-12)
    assert measured.between("low", "high") < 0


def test_terms_found_share_one_residual() -> None:
    """|r|^2 and |r| of one tensor: two terms, two slopes, one Jacobian."""
    w = torch.tensor([3.0, -1.0], requires_grad=True)
    r = 2 * torch.eye(2) @ w
    found = find_terms(r.square().sum() + 5 * r.abs().sum(), names=["square", "abs"])
    kernel = empirical_ntk({name: term.residual for name, term in found.items()}, [w])
    measured = interference(kernel, {name: term.slope for name, term in found.items()})
    # Gradients: 8 w = (24, -8) and 10 sign(w) = (10, -10).
    assert measured.matrix.tolist() == [[640.0, 320.0], [320.0, 200.0]]
    assert measured.decay == {"square": 960.0, "abs": 520.0}
    assert measured.total == 1480.0
    assert measured.norms == pytest.approx({"square": 640**0.5, "abs": 200**0.5})
    assert measured.between("square", "abs") == pytest.approx(320 / (640 * 200) ** 0.5, rel=1e-15)


def test_a_residual_made_from_another() -> None:
    """s = w + 1 and r = 5 s: both act on w through themselves only."""
    w = torch.tensor([2.0], requires_grad=True)
    s = w + 1
    r = 5 * s
    slopes = loss_gradients((r.square() - 3 * s.square()).sum(), {"r": r, "s": s})
    measured = interference(empirical_ntk({"r": r, "s": s}, [w]), slopes)
    assert measured.matrix.tolist() == [[22500.0, -2700.0], [-2700.0, 324.0]]  # of 150 and -18
    assert measured.between("s", "r") == -1.0


def test_a_zero_gradient_has_no_direction() -> None:
    kernel = explicit(pde=3 * torch.eye(2), met=torch.eye(2), flat=torch.zeros(2, 2))
    slopes = {"pde": torch.ones(2), "met": torch.zeros(2), "flat": torch.ones(2)}
    measured = interference(kernel, slopes)
    assert measured.between("pde", "pde") == 1.0
    for a, b in [("pde", "met"), ("met", "pde"), ("met", "met"), ("flat", "pde"), ("flat", "met")]:
        assert math.isnan(measured.between(a, b))
    assert measured.decay == {"pde": 18.0, "met": 0.0, "flat": 0.0}


@pytest.mark.parametrize("scale", [1e-100, 1e-10, 1.0, 1e10, 1e60])
def test_cosine_means_the_same_at_every_scale(scale: float) -> None:
    measured = interference(two_terms(), {"pde": scale * torch.ones(2), "bc": -torch.ones(1)})
    assert measured.between("pde", "bc") == pytest.approx(-math.sqrt(0.5), rel=1e-14)


def test_opposite_gradients_cancel() -> None:
    kernel, third = explicit(a=torch.eye(3), b=torch.eye(3)), torch.ones(3) / 3
    measured = interference(kernel, {"a": third, "b": -third})
    assert measured.between("a", "b") == pytest.approx(-1.0, rel=1e-15)
    assert 0 <= measured.total < 1e-15


def test_no_block_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, slopes = two_terms(), {"pde": torch.ones(2, 1), "bc": torch.ones(1)}
    monkeypatch.setattr(NTK, "__getitem__", None)
    assert interference(kernel, slopes).matrix.tolist() == [[18.0, 3.0], [3.0, 1.0]]


def test_on_each_device(device: torch.device) -> None:
    net = nn.Linear(2, 1).to(device)
    x = torch.ones(3, 2, device=device)
    kernel = empirical_ntk({"pde": net(x), "bc": -net(x[:1])}, net)
    measured = interference(kernel, {"pde": torch.ones(3), "bc": torch.ones(1, device=device)})
    assert measured.matrix.device.type == device.type
    assert measured.matrix.tolist() == [[27.0, -9.0], [-9.0, 3.0]]
    assert measured.between("pde", "bc") == -1.0
    drawn = interference_figure(measured).axes[0].get_images()[0].get_array()
    assert float(drawn[0, 1]) == -1.0


TWO, ONE = torch.ones(2), torch.ones(1)
WRONG: list[tuple[dict[str, Tensor], str]] = [
    ({"pde": TWO}, r"no slope for \['bc'\]; got slopes for \['pde'\]"),
    ({}, r"no slope for \['pde', 'bc'\]"),
    ({"pde": TWO, "bc": ONE, "ic": ONE}, r"term 'ic', which this kernel lacks"),
    ({"pde": TWO, "bc": torch.ones(3)}, r"'bc' has shape \(3,\).*expected 1"),
]


@pytest.mark.parametrize(("slopes", "message"), WRONG)
def test_errors_name_the_cause(slopes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interference(two_terms(), slopes)
    with pytest.raises(ValueError, match="no measurement to draw"):
        interference_figure({})


@pytest.mark.parametrize("pair", [("nope", "pde"), ("pde", "nope")])
def test_unknown_terms_are_named(pair: tuple[str, str]) -> None:
    measured = interference(two_terms(), {"pde": TWO, "bc": ONE})
    with pytest.raises(KeyError, match=r"no term 'nope' .* it has \['pde', 'bc'\]"):
        measured.between(*pair)


def measured(*rows: list[float]) -> Interference:
    names = ("loss_pde", "b$c", "ic")[: len(rows)]
    return Interference(names, torch.tensor(rows))


def test_figure_shows_the_cosines() -> None:
    first = measured([4.0, -1.0], [-1.0, 1.0])
    last = measured([1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0])
    figure = interference_figure({"step 0": first, "step 9": last})
    figure.canvas.draw()
    panels = figure.axes[:2]
    assert [axes.get_title() for axes in panels] == ["step 0", "step 9"]
    for axes, one in zip(panels, (first, last), strict=True):
        (image,) = axes.get_images()
        drawn = image.get_array().filled(np.nan)
        np.testing.assert_array_equal(drawn, one.cosine.numpy())
        assert image.get_clim() == (-1, 1)
    assert [text.get_text() for text in panels[0].texts] == ["1.00", "-0.50", "-0.50", "1.00"]
    assert [text.get_text() for text in panels[1].texts].count("-") == 5
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["loss_pde\n2.0e+00", "b$c\n1.0e+00"]
    figure = interference_figure(measured([4.0]))
    figure.canvas.draw()
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00"]


LONG = ("train/loss_momentum_equation_x", "train/loss_boundary_condition_inlet", "train/loss_x")


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_figure_has_room_for_long_names(first: int, last: int) -> None:
    panels = {f"step {n}": Interference(LONG[:n], torch.eye(n) + 1e-3) for n in (first, last)}
    panels["end"] = panels[f"step {last}"]
    figure = interference_figure(panels)
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    for axes in figure.axes[:-1]:
        assert min(axes.get_window_extent().size) / figure.dpi > 1.4
    named = [bool(axes.get_ylabel()) for axes in figure.axes[:-1]]
    assert named == [True] + [False] * (len(panels) - 1)


def test_figure_names_the_rows_once() -> None:
    one, other = measured([4.0, 0.0], [0.0, 1.0]), measured([9.0, 0.0], [0.0, 1.0])
    figure = interference_figure({"a": one, "b": other, "c": measured([1.0])})
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes[:3]]
    assert labels[0] == ["loss_pde\n2.0e+00", "b$c\n1.0e+00"]
    assert labels[1] == ["3.0e+00", "1.0e+00"]
    assert labels[2] == ["loss_pde\n1.0e+00"]
