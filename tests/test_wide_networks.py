"""The study of wide networks: shrunk, as users run it, and its parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pinn_ntk.graph.reference import reference_jacobian
from tests.scripts import load, study

wide_networks = load("wide_networks")
WIDTHS = (64, 2048)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All of the 500 steps at few points."""
    options = "--widths [64,2048] --seeds [0] --starts [mirrored] --points 10 --every 50"
    return study("wide_networks", tmp_path_factory.mktemp("study"), *options.split())


def test_wide_network_is_foretold_within_one_percent(numbers: dict[str, Any]):
    narrow, wide = numbers["runs"]
    assert (narrow["width"], wide["width"]) == WIDTHS
    assert wide["steps"] == list(range(0, 501, 50))
    assert max(wide["error_of_now"]) < 0.01
    assert max(narrow["error_of_now"]) > 1.5 * max(wide["error_of_now"])
    assert wide["loss"][-1] < 0.1 * wide["loss"][0]  # much of it is learned meanwhile
    assert wide["loss_foretold"][-1] == pytest.approx(wide["loss"][-1], rel=0.02)


def test_wide_network_is_lazier_and_the_table_says_so(numbers: dict[str, Any]):
    narrow, wide = numbers["runs"]
    for run in (narrow, wide):
        row = f"| mirrored | {run['width']} | {max(run['error_of_now']):.3g} |"
        assert row in numbers["printed"]
    assert math.isnan(wide["laziness"][0])  # nothing has moved
    assert wide["laziness"][-1] < 0.01
    assert wide["laziness"][-1] < narrow["laziness"][-1]
    assert 0 < wide["kernel_drift"] < narrow["kernel_drift"]


@pytest.mark.parametrize("start", ["mirrored", "plain"])
def test_residuals_are_those_of_the_problem(start: str):
    problem = wide_networks.Poisson(8, start, 0, wide_networks.Setting(points=5))
    hidden, output = problem.net.layers[0], problem.net.layers[2]
    x = problem.points["x_r"]
    t = torch.tanh((x - 0.5) * math.sqrt(12) * hidden.weight.mT + hidden.bias)
    scale = (4.0 if start == "mirrored" else 1.0) / math.sqrt(8)
    second = -2 * t * (1 - t**2) * 12 * hidden.weight.mT**2
    f = -(math.pi**2) * torch.sin(math.pi * x)
    residuals = problem.terms()
    torch.testing.assert_close(residuals["pde"], scale * second @ output.weight.mT - f)
    if start == "mirrored":
        torch.testing.assert_close(residuals["pde"].detach(), -f)
        torch.testing.assert_close(residuals["bc"].detach(), torch.zeros(2, 1))
        assert len(set(hidden.weight.flatten().tolist())) == 4


def test_steps_are_those_of_gradient_descent():
    """Two steps of the study against two written out, and their forecast from the slow kernel."""
    setting = wide_networks.Setting(points=4, steps=2, every=1)
    record = wide_networks.study(6, "plain", 3, setting)
    problem = wide_networks.Poisson(6, "plain", 3, setting)
    params = list(problem.net.parameters())
    start = torch.cat(list(problem.terms().values()))
    jacobian = reference_jacobian(start, params)
    k, r = jacobian @ jacobian.mT, start.detach().flatten()
    d = torch.tensor([2 / 4] * 4 + [2 / 2] * 2)
    losses = []
    for _ in range(3):
        loss = sum(part.square().mean() for part in problem.terms().values())
        losses.append(loss.item())
        for p, g in zip(params, torch.autograd.grad(loss, params), strict=True):
            p.data -= record["lr"] * g
    assert record["loss"] == pytest.approx(losses, rel=1e-12)
    step = torch.eye(6) - record["lr"] * k * d
    foretold = [float((d * v.square()).sum() / 2) for v in (r, step @ r, step @ step @ r)]
    assert record["loss_foretold"] == pytest.approx(foretold, rel=1e-10)
    top = float(torch.linalg.eigvals(k * d).real.max())
    assert record["lr"] == pytest.approx(0.02 * 2 / top, rel=1e-10)
