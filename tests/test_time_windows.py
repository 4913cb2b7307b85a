"""Forgetting over time windows: its parts against plain autograd, the script as users run it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tests.scripts import ROOT, command, load

windows, forgetting = load("windows"), load("forgetting")
pytestmark = pytest.mark.usefixtures("float64")


class Exact(nn.Module):
    """The solution in place of the network."""

    def forward(self, points: Tensor) -> Tensor:
        t, x = points.split(1, dim=1)
        slow = torch.exp(-0.02 * t) * torch.sin(x - t)
        return slow + torch.exp(-0.08 * t) * torch.cos(2 * (x - t)) / 2


def test_exact_solution_has_no_residual() -> None:
    model, data = windows.Advection(), windows.Windows()
    model.net = Exact()
    for window in range(3):
        batch = data.batch(window)
        assert model.enter(batch)
        assert not model.enter(batch)
        residuals = model.residuals(batch)
        assert float(residuals["pde"].detach().abs().max()) < 1e-14
        assert float(residuals["initial"].detach().abs().max()) < 1e-15
    assert float(model.error(data.test)) < 1e-15


def test_network_is_periodic() -> None:
    net, points = windows.Network(5, 3.0), torch.rand(6, 2)
    shifted = points + torch.tensor([0.0, 2 * math.pi])
    torch.testing.assert_close(net(points), net(shifted))


def test_windows_follow_one_another() -> None:
    data = windows.Windows(windows=3, length=0.5, n_t=2, n_x=4, steps=7)
    assert [batch["window"] for batch in data.train_dataloader()] == [0, 0, 0, 1, 1, 2, 2]
    second = data.batch(1)
    assert sorted(set(second["pde"][:, 0].tolist())) == [0.625, 0.875]
    assert set(second["initial"][:, 0].tolist()) == {0.5}
    assert second["initial"][:, 1].tolist() == pytest.approx([0, math.pi / 2, math.pi, 4.712389])
    with pytest.raises(ValueError, match="windows is 1; expected 2 or more"):
        windows.Windows(windows=1)


Setup = tuple[Any, Any]


@pytest.fixture
def begun() -> Setup:
    """Model and points at the start of the third window; nothing of it fits the network yet."""
    data = windows.Windows(windows=3, n_t=3, n_x=6)
    model = windows.Advection(width=8).double()
    for window in range(3):
        model.enter(data.batch(window))
        with torch.no_grad():
            for parameter in model.parameters():  # as training between two windows
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return model, data


def loss_on(model: Any, data: Any, windows: range) -> Tensor:
    terms = [model.residuals(data.batch(window)) for window in windows]
    return sum(t["pde"].square().mean() + 10 * t["initial"].square().mean() for t in terms)


def flat_gradient(model: Any, loss: Tensor) -> Tensor:
    return parameters_to_vector(torch.autograd.grad(loss, list(model.parameters())))


def test_losses_and_cosine_at_the_start(begun: Setup) -> None:
    model, data = begun
    switch = forgetting.foresee(model, data, 2)
    old, new = loss_on(model, data, range(2)), loss_on(model, data, range(2, 3))
    assert switch.loss == pytest.approx(float(old.detach()), rel=1e-12)
    before, now = flat_gradient(model, old), flat_gradient(model, new)
    cosine = float(before @ now / (before.norm() * now.norm()))
    assert switch.cosine == pytest.approx({0: cosine}, rel=1e-10)


def descend(model: Any, data: Any, lr: float, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_on(model, data, range(2, 3)).backward()
        optimizer.step()


def test_one_step_moves_old_values_as_foretold_up_to_its_square(begun: Setup) -> None:
    model, data = begun
    start = parameters_to_vector(model.parameters()).detach()
    distances = []
    for fraction in (0.2, 0.1, 0.05):
        vector_to_parameters(start.clone(), model.parameters())
        model.fraction = fraction
        switch = forgetting.foresee(model, data, 2)
        descend(model, data, switch.lr, 1)
        forgetting.measure(model, data, switch, 1)
        distances.append(switch.distance(1))
        old = float(loss_on(model, data, range(2)).detach())
        assert switch.measured_loss[1] == pytest.approx(old, rel=1e-12)
        assert switch.foretold_loss[1] == pytest.approx(old, rel=0.02)
    assert distances[0] < 0.1
    halvings = [distances[0] / distances[1], distances[1] / distances[2]]
    assert halvings == pytest.approx([2.0, 2.0], rel=0.1)  # of an error relative to lr


def test_ten_steps_are_foretold(begun: Setup) -> None:
    model, data = begun
    model.fraction = 0.05
    switch = forgetting.foresee(model, data, 2)
    descend(model, data, switch.lr, 10)
    forgetting.measure(model, data, switch, 10)
    assert switch.distance(10) < 0.05
    (start, row) = switch.rows()
    assert start[:3] == [3, 0, 0.0]
    assert row[:2] == [3, 10]
    change = switch.measured[10]
    assert row[3] == pytest.approx(float(change.norm()) / math.sqrt(len(change)), rel=1e-12)


# --- As a user runs it

OPTIONS = """
--trainer.max_steps=204 --trainer.val_check_interval=100 --trainer.log_every_n_steps=50
--data.windows=2 --data.n_t=4 --data.n_x=8 --model.width=12
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The script as the README runs it, but shorter and smaller."""
    cwd, config = tmp_path_factory.mktemp("windows"), ROOT / "configs" / "time_windows.yaml"
    done = command("time_windows", "fit", f"--config={config}", *OPTIONS.split(), cwd=cwd)
    done.folder = cwd / "logs" / "time_windows" / "version_0"
    done.numbers = json.loads((done.folder / "forgetting.json").read_text())
    return done


def test_run_foretells_what_is_forgotten(run: Any) -> None:
    rows = {row["steps"]: row for row in run.numbers["rows"]}
    assert list(rows) == [0, 1, 10, 100]
    assert {row["window"] for row in rows.values()} == {2}
    distances = [rows[k]["relative distance"] for k in (1, 10, 100)]
    assert distances == sorted(distances)
    assert distances[0] < 0.01
    assert distances[1] < 0.1
    for k in (1, 10):
        assert rows[k]["measured (rms)"] > 0
        foretold, measured = rows[k]["old loss foretold"], rows[k]["old loss measured"]
        assert foretold == pytest.approx(measured, rel=0.02)
    assert all(-1 <= row["cosine old, new"] <= 1 for row in rows.values())
    (lr,) = run.numbers["learning rates"]
    assert lr > 0


def test_run_prints_the_table_it_wrote_and_no_warning(run: Any) -> None:
    rows = run.numbers["rows"]
    assert not re.findall(r"^.*(?:\.py:\d+:|Warning|Traceback).*$", run.stderr, re.MULTILINE)
    table = re.findall(r"^\| 2 \|.*$", run.stdout, re.MULTILINE)
    assert len(table) == len(rows)
    for line, row in zip(table, rows, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert int(cells[1]) == row["steps"]
        assert float(cells[3]) == pytest.approx(row["measured (rms)"], rel=5e-3)


def test_run_draws_and_logs(run: Any) -> None:
    assert float(imread(run.folder / "prediction.png")[..., :3].std()) > 0.05
    losses = run.numbers["losses"]
    assert [len(values) for _, values in losses] == sorted(len(values) for _, values in losses)
    assert len(losses[-1][1]) == 2
