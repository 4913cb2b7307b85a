"""The studies that repeat figures of Wang, Yu, Perdikaris 2022: shrunk, and their parts."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from pinn_ntk.reference import reference_jacobian

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    """An example, imported as from a script beside it."""
    if str(ROOT / "examples") not in sys.path:
        sys.path.append(str(ROOT / "examples"))
    return importlib.import_module(name)


def command(name: str, folder: Path, *options: str) -> str:
    """What a script prints, run as users run it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *options]
    script += ["--folder", str(folder)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def written(folder: Path) -> dict[str, Any]:
    """Numbers of a study, after a look at its figure."""
    image = imread(folder / f"{folder.name}.png")
    assert image[..., :3].std() > 0.05
    return json.loads((folder / f"{folder.name}.json").read_text())


# --- Drift, Figs 2 and 3


@pytest.fixture(scope="module")
def drift() -> ModuleType:
    return load("drift")


def test_drift_as_a_user_runs_it(tmp_path: Path):
    options = ("--widths", "[4,64]", "--hidden_layers", "[1]", "--seeds", "[0]", "--steps", "120")
    folder = tmp_path / "drift"
    shown = command("drift", folder, *options)
    numbers = written(folder)
    assert [run["steps"] for run in numbers["runs"]] == [120, 120]
    rows = {row["drift"]: row for row in numbers["summary"]}
    narrow, wide = (rows["parameters"]["final"][width][0] for width in ("4", "64"))
    assert 0 < wide < narrow
    assert rows["parameters"]["slope"] == pytest.approx(math.log(wide / narrow) / math.log(16))
    assert f"| 1 | parameters | {narrow:.3g} (" in shown
    assert shown.count("% of it for the kernel") == 2


def test_drift_is_that_of_kernels_row_by_row(drift: ModuleType):
    setting = drift.Setting(width=5, hidden_layers=2, seed=3, steps=7)
    record = drift.run(setting)
    drift.seed_everything(3, verbose=False)
    points = drift.Points(steps=7)
    model = drift.Descent(setting, points)
    x_b, x_r = points.train["x_b"], points.train["x_r"]
    exact_b, source = torch.sin(math.pi * x_b), -(math.pi**2) * torch.sin(math.pi * x_r)

    def residuals() -> tuple[torch.Tensor, torch.Tensor]:
        x = x_r.clone().requires_grad_()
        (u_x,) = torch.autograd.grad(model.net(x).sum(), x, create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        return model.net(x_b) - exact_b, u_xx - source

    def kernels() -> dict[str, torch.Tensor]:
        b, r = (reference_jacobian(residual, model) for residual in residuals())
        both = torch.cat([b, r])
        theta = torch.cat([p.detach().double().flatten() for p in model.parameters()])
        return {"loss_b": b @ b.T, "loss_r": r @ r.T, "kernel": both @ both.T, "parameters": theta}

    start = kernels()
    for _ in range(6):  # the monitor measures before the step
        loss = sum(r.square().sum() / 2 for r in residuals())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.add_(gradient, alpha=-1e-5)
    for name, now in kernels().items():
        step, value = record["drift"][name][-1]
        assert step == 6
        expected = float((now - start[name]).norm() / start[name].norm())
        assert value == pytest.approx(expected, rel=2e-3)


def test_losses_of_both_conventions(drift: ModuleType):
    residual = torch.tensor([3.0, 4.0, 0.0, 0.0])[:, None]
    points = drift.Points()
    for loss, expected in (("sum", 12.5), ("mean", 6.25)):
        model = drift.Descent(drift.Setting(2, 1, 0, loss=loss), points)
        assert float(model.size(residual)) == expected


def test_standardised_inputs_leave_the_units(drift: ModuleType):
    points = drift.Points()
    plain, standard = (
        drift.Descent(drift.Setting(6, 1, 0, standardised=flag), points).double()
        for flag in (False, True)
    )
    standard.load_state_dict(plain.state_dict())
    x = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)[:, None]
    z = (x - points.mean) / points.std
    torch.testing.assert_close(standard.net(x), plain.net(z))
    u_xx = (plain.residual(z) + plain.source(z)) / points.std**2
    torch.testing.assert_close(standard.residual(x) + standard.source(x), u_xx)


def test_a_diverging_run_ends_and_is_left_out(drift: ModuleType, tmp_path: Path):
    setting = drift.Setting(width=4, hidden_layers=1, seed=0, steps=2000, lr=0.1)
    (record,) = drift.runs([setting], tmp_path)
    assert record["diverged"]
    assert record["steps"] < 20
    assert math.isnan(drift.final([record], "kernel")[0])
    assert record["setting"] == asdict(setting)


def test_a_finished_run_is_not_run_again_with_these_settings(drift: ModuleType, tmp_path: Path):
    first, second = (drift.Setting(3, 1, 0, steps=steps) for steps in (2, 3))
    assert first.name == second.name
    found = [next(drift.runs([setting], tmp_path)) for setting in (first, first, second)]
    assert [record["steps"] for record in found] == [2, 2, 3]
    assert found[0]["seconds"] == found[1]["seconds"]


def test_slope_of_a_power_law(drift: ModuleType):
    widths = [10, 100, 500]
    assert drift.slope(widths, 3 * np.array(widths) ** -0.5) == pytest.approx(-0.5)
    assert math.isnan(drift.slope([10], [1.0]))
