"""Cosines of the gradients of terms."""

from __future__ import annotations

import math

import pytest
import torch

from pinn_ntk import Look, look
from pinn_ntk.diagnostics import Panel
from pinn_ntk.diagnostics.registry import chosen
from tests.looks import ask, look_at, rows, values


def between(cosine: float, *lengths: float, step: int = 0) -> Look:
    """Gradients of pde and bc with that cosine, of these lengths."""
    a, b = lengths or (1.0, 1.0)
    sine = math.sqrt(1 - cosine**2)
    gradients = {"pde": [a, 0.0], "bc": [b * cosine, b * sine]}
    known = {name: torch.tensor(g, dtype=torch.float64) for name, g in gradients.items()}
    matrices = {"pde": rows(2), "bc": rows(2)}
    losses = dict.fromkeys(known)
    return look_at(matrices, step, total_step=step, known={"losses": losses, "gradients": known})


def test_cosines_are_those_of_the_gradients_with_the_weights_in_force():
    w = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    A, B = rows(3)[:, :2], rows(2, seed=1)[:, :2]
    losses = {"pde": (A @ w).square().mean(), "bc": 5 * (B @ w).abs().sum()}
    losses["ic"] = (A @ w * 0).square().sum()  # no direction, no cosine
    found = values(ask(look(sum(losses.values()), [w], names=list(losses)), "interference"))
    pde, bc = (torch.autograd.grad(losses[n], w, retain_graph=True)[0] for n in ("pde", "bc"))
    cosine = float(torch.nn.functional.cosine_similarity(pde, bc, dim=0))
    assert found == {"interference/pde/bc": pytest.approx(cosine, rel=1e-12)}


@pytest.mark.parametrize("known", [["pde"], []])
def test_fewer_than_two_terms_of_known_weight_have_none(known: list[str]):
    step = look_at({"pde": rows(2), "bc": rows(2)}, known={"losses": dict.fromkeys(known)})
    assert ask(step, "interference").readings.keys() == {"step"}


@pytest.mark.parametrize("cosine", [-1.0, -0.62, -0.05, 0.0, 0.3])
def test_cosines_are_logged_and_nothing_is_said_of_them(cosine: float):
    panel = ask(between(cosine), "interference")
    assert values(panel) == {"interference/pde/bc": pytest.approx(cosine)}
    assert panel.summary().splitlines()[6:] == []


def test_the_figure_shows_the_first_and_the_last_step_over_restarts():
    panel = ask(between(0.5, step=2), "interference")
    panel.read(between(0.4, step=4))
    other = Panel(chosen(["interference"]))
    other.load_state_dict(panel.state_dict())
    other.read(between(0.3, step=6))
    name, figure = other.diagnostics["interference"].figure()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert (name, titles) == ("interference", ["step 2", "step 6"])
