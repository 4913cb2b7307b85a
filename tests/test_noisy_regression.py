"""The study of noisy regression: shrunk, as users run it, and its parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.scripts import load, study

noisy_regression = load("noisy_regression")


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    options = "--points 200 --frequencies 15 --width 128 --steps 300 --seeds [0,1]"
    return study("noisy_regression", tmp_path_factory.mktemp("study"), *options.split())


def test_best_step_is_foretold_within_a_factor_of_two(numbers: dict[str, Any]):
    assert [run["seed"] for run in numbers["runs"]] == [0, 1]
    for run in numbers["runs"]:
        assert 0.5 <= run["predicted"] / run["best"] <= 2
        assert run["noise"] == pytest.approx(1.5, rel=0.15)
        assert run["error_stopped"] < 1.15 * run["error_best"]
        assert run["error_last"] > 1.2 * run["error_best"]  # it pays to stop
        assert run["measured"][0] > 1.2 * run["error_best"]
        row = f"| {run['seed']} | {run['predicted']} | {run['best']} | {run['ratio']:.3g} | yes |"
        assert row in numbers["printed"]


def test_best_is_the_least_that_was_measured(numbers: dict[str, Any]):
    for run in numbers["runs"]:
        least = min(run["measured"])
        assert run["steps"][run["measured"].index(least)] == run["best"]
        assert run["error_best"] == least
        first, last = run["valley"]
        assert first <= run["best"] <= last
        assert run["ratio"] == run["predicted"] / run["best"]


def test_linearised_error_is_near_the_measured_one(numbers: dict[str, Any]):
    for run in numbers["runs"]:
        assert run["linearized"][0] == pytest.approx(run["measured"][0], rel=1e-9)
        until = run["steps"].index(run["best"])
        assert run["linearized"][:until] == pytest.approx(run["measured"][:until], rel=0.2)


def test_problem_is_what_it_says():
    setting = noisy_regression.Setting(points=4000, frequencies=30, noise=1.5)
    problem = noisy_regression.Problem(setting, seed=2)
    x, x_val, known = (v.flatten().numpy() for v in (problem.x, problem.x_val, problem.truth))
    noise = problem.y - torch.from_numpy(np.interp(x, x_val, known))[:, None]
    assert float(noise.std()) == pytest.approx(1.5, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(problem.truth.square().mean()) == pytest.approx(1.0, rel=0.01)
    assert float(problem.x.abs().max()) <= 1


def test_a_seed_decides_everything():
    setting = noisy_regression.Setting(points=30, frequencies=3, width=8)
    one, again, other = (noisy_regression.Problem(setting, seed) for seed in (0, 0, 1))
    assert torch.equal(one.y, again.y)
    assert torch.equal(one.net.layers[0].weight, again.net.layers[0].weight)
    assert not torch.equal(one.y, other.y)


def test_first_step_is_gradient_descent_on_the_mean_square():
    setting = noisy_regression.Setting(points=20, frequencies=3, width=8)
    problem, again = (noisy_regression.Problem(setting, 0) for _ in range(2))
    measured = problem.errors([0, 1], lr=0.01)
    ((again.net(again.x) - again.y).square().sum() / 20).backward()
    torch.optim.SGD(again.net.parameters(), lr=0.01).step()
    expected = (again.net(again.x_val) - again.truth).square().mean().item()
    assert measured[1] == pytest.approx(expected, rel=1e-12)


def test_network_takes_sines_and_cosines_of_unit_mean_square():
    torch.set_default_dtype(torch.float64)
    net, x = noisy_regression.Network(2, 4), torch.tensor([[0.1], [0.7]])
    angles = [math.pi * x, 2 * math.pi * x]
    features = math.sqrt(2) * torch.cat([f(a) for f in (torch.sin, torch.cos) for a in angles], 1)
    torch.testing.assert_close(net(x), net.layers(features))


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_grid_starts_at_zero_and_ends_where_asked(steps: int):
    grid = noisy_regression.grid(steps)
    assert grid[:2] == [0, 1]
    assert grid[-1] == steps
    assert grid == sorted(set(grid))


def test_valley_is_where_the_error_is_near_its_least():
    assert noisy_regression.valley([0, 1, 2, 3, 4], [2.0, 1.04, 1.0, 1.05, 1.06]) == (1, 3)
