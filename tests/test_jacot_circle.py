"""The study of the kernel on the unit circle: its parts, and the script shrunk."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pinn_ntk import reference_ntk
from pinn_ntk.limit.parametrization import ntk_mlp
from tests.scripts import load, study

jacot_circle = load("jacot_circle")


def test_circle_and_data():
    angles, x = jacot_circle.circle(101)
    assert float(angles[0]) == -math.pi
    assert float(angles[-1]) == math.pi
    torch.testing.assert_close(x[50], torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(torch.atan2(x[75, 1], x[75, 0]), angles[75])
    inputs, targets = jacot_circle.data(4000)
    assert torch.equal(jacot_circle.data(4000)[0], inputs)
    torch.testing.assert_close(targets[:, 0], inputs[:, 0] * inputs[:, 1])
    assert float(inputs.std()) == pytest.approx(1.0, abs=0.05)


def test_row_is_that_of_the_gradients():
    network = ntk_mlp([2, 9, 9, 1], nn.ReLU, bias_std=0.1)
    _, x = jacot_circle.circle(7)
    values = {"start": network(torch.tensor([[1.0, 0.0]])), "circle": network(x.float())}
    expected = reference_ntk(values, network)["start", "circle"][0].tolist()
    assert jacot_circle.row(network, x) == pytest.approx(expected, rel=1e-5)


def test_descent_is_that_of_the_optimizer():
    network, other = (ntk_mlp([2, 9, 9, 1], nn.ReLU, bias_std=0.1) for _ in range(2))
    other.load_state_dict(network.state_dict())
    losses = jacot_circle.descend(network, steps=5, lr=0.5, samples=6)
    x, y = jacot_circle.data(6)
    optimizer, expected = torch.optim.SGD(other.parameters(), lr=0.5), []
    for _ in range(5):
        loss = ((other(x) - y) ** 2).sum() / (2 * 6)
        expected.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[:5] == pytest.approx(expected, rel=1e-5)
    assert losses[5] < losses[0]
    torch.testing.assert_close(network.state_dict(), other.state_dict(), rtol=1e-5, atol=1e-6)


def test_statistics_are_relative_to_the_limit():
    runs = [
        jacot_circle.Run(1, 0, [1.0, 0.0], [1.0, 1.0], [3.0, 1.0], 2.0),
        jacot_circle.Run(1, 1, [3.0, 4.0], [3.0, 6.0], [5.0, 2.0], 4.0),
    ]
    numbers = jacot_circle.statistics(runs, np.array([3.0, 4.0]))
    assert numbers["spread"] == pytest.approx(math.sqrt(2 + 8) / 5)
    assert numbers["distance"] == pytest.approx((math.sqrt(4 + 16) / 5 + 0) / 2)
    assert numbers["distance_of_mean"] == pytest.approx(math.sqrt(1 + 4) / 5)
    assert numbers["drift"] == pytest.approx((1 / 5 + 2 / 5) / 2)
    assert (numbers["loss_start"], numbers["loss_end"], numbers["seconds"]) == (4.0, 1.5, 3.0)
    assert math.isnan(jacot_circle.statistics(runs[:1], np.array([3.0, 4.0]))["spread"])


def test_a_finished_network_is_not_trained_again(tmp_path: Path):
    options = {"steps": 2, "lr": 0.5, "samples": 4, "depth": 3, "beta": 0.1, "points": 5}
    first = jacot_circle.known_or_run(tmp_path, 8, 1, options)
    again = jacot_circle.known_or_run(tmp_path, 8, 1, options)
    assert again == first  # the seconds, too
    other = jacot_circle.known_or_run(tmp_path, 8, 1, {**options, "steps": 3})
    assert other.start == first.start
    assert other.losses[:3] == first.losses
    assert other.end != first.end


def arc_cosine_limit(angle: float, layers: int, beta: float) -> float:
    """Theta of ReLU by Cho and Saul 2009, for two unit vectors, weights N(0, 1), as scalars."""
    q, c = 0.5 + beta**2, math.cos(angle) / 2 + beta**2
    theta = c
    for _ in range(layers - 1):
        rho = max(-1.0, min(1.0, c / q))
        angle = math.acos(rho)
        slope = (math.pi - angle) / (2 * math.pi)
        c = q * (math.sin(angle) + (math.pi - angle) * rho) / (2 * math.pi) + beta**2
        q = q / 2 + beta**2
        theta = c + theta * slope
    return theta


def test_script_as_a_user_runs_it(tmp_path: Path):
    options = ("--widths", "[32,512]", "--seeds", "[0,1,2]", "--steps", "20", "--points", "21")
    numbers = study("jacot_circle", tmp_path, *options)
    expected = [arc_cosine_limit(angle, 4, 0.1) for angle in numbers["angles"]]
    np.testing.assert_allclose(numbers["limit"], expected, rtol=1e-7)
    narrow, wide = numbers["summary"]["32"], numbers["summary"]["512"]
    for number in ("spread", "distance", "drift"):
        assert 0 < 1.5 * wide[number] < narrow[number]
    assert wide["distance"] < 0.25
    assert all(run["losses"][-1] < run["losses"][0] for run in numbers["runs"])
    assert f"| 512 | {wide['spread']:.3g} |" in numbers["printed"]
    assert len(list((tmp_path / "jacot_circle").glob("width*_seed*.json"))) == 6
