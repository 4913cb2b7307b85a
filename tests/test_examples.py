"""The examples: each module against its mathematics, and the script shrunk, as users run it."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
STEPS = 60


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def poisson() -> ModuleType:
    return load("poisson")


class Sine(nn.Module):
    """The exact solution in place of the network."""

    def __init__(self, a: float):
        super().__init__()
        self.a = a

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.a * math.pi * x)


@pytest.mark.parametrize("a", [1.0, 2.0, 4.0])
def test_exact_solution_has_no_residual_and_no_error(poisson: ModuleType, a: float):
    model = poisson.Poisson(a=a)
    model.net = Sine(a)
    x = torch.linspace(0.0, 1.0, 100, dtype=torch.float64)[:, None]
    assert float(model.residual(x).detach().abs().max()) < 1e-10 * (a * math.pi) ** 2
    assert float(model.error(x)) == 0.0


def test_residual_is_in_physical_units(poisson: ModuleType):
    """u_xx by hand: sum_k v_k w_k^2 tanh''(w_k z + b_k) / std^2, z = (x - mean) / std."""
    model = poisson.Poisson(width=7, mean=0.3, std=0.2).double()
    x = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)[:, None]
    hidden, out = model.net[0], model.net[2]
    t = torch.tanh((x - 0.3) / 0.2 * hidden.weight.mT + hidden.bias)  # (11, 7)
    u_xx = (-2 * t * (1 - t**2) * hidden.weight.mT**2) @ out.weight.mT / 0.2**2
    f = -((4 * math.pi) ** 2) * torch.sin(4 * math.pi * x)
    torch.testing.assert_close(model.residual(x), u_xx - f)


def test_initialisation_is_the_standard_parametrisation(poisson: ModuleType):
    torch.manual_seed(0)
    net = poisson.Network(width=20_000, mean=0.5, std=1.0)
    torch.manual_seed(1)
    biases = torch.cat([poisson.Network(1, 0.5, 1.0)[2].bias.detach() for _ in range(2000)])
    for sample, std in [
        (net[0].weight, 1.0),
        (net[0].bias, 1.0),
        (net[2].weight, 20_000**-0.5),
        (biases, 1.0),
    ]:
        assert float(sample.detach().std()) == pytest.approx(std, rel=0.05)
        assert abs(float(sample.detach().mean())) < 5 * std / math.sqrt(sample.numel())


def test_points_are_those_of_the_paper(poisson: ModuleType):
    data = poisson.Points(steps=3)
    x_b, x_r = data.train["x_b"], data.train["x_r"]
    assert x_b.flatten().tolist() == [0.0] * 50 + [1.0] * 50
    assert x_r.shape == (100, 1)
    torch.testing.assert_close(x_r.diff(dim=0), torch.full((99, 1), 1 / 99))
    z = (x_r - data.mean) / data.std
    assert float(z.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(z.square().mean()) == pytest.approx(1.0, abs=1e-6)
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    assert all(torch.equal(batch["x_r"], x_r) for batch in batches)
    assert next(iter(data.val_dataloader())).shape == (1000, 1)


def fit(poisson: ModuleType, seed: int, steps: int, folder: Path) -> nn.Module:
    pl.seed_everything(seed)
    data = poisson.Points(steps=steps)
    model = poisson.Poisson(mean=data.mean, std=data.std)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=data)
    return model


def test_one_step_is_gradient_descent_on_two_mean_squares(poisson: ModuleType, tmp_path: Path):
    pl.seed_everything(0)
    data = poisson.Points()
    start = poisson.Poisson(mean=data.mean, std=data.std)
    r_b = start.net(data.train["x_b"])  # u is 0 on both ends for a = 4
    r_r = start.residual(data.train["x_r"])
    loss = r_b.square().sum() / 100 + r_r.square().sum() / 100
    grads = torch.autograd.grad(loss, list(start.parameters()))
    end = fit(poisson, seed=0, steps=1, folder=tmp_path)
    for before, grad, after in zip(start.parameters(), grads, end.parameters(), strict=True):
        torch.testing.assert_close(after, before - 1e-5 * grad, rtol=1e-5, atol=1e-6)
        assert not torch.equal(after, before)


def test_a_seed_decides_the_result(poisson: ModuleType, tmp_path: Path):
    first, again, other = (
        [p.detach() for p in fit(poisson, seed, 5, tmp_path).parameters()] for seed in (7, 7, 8)
    )
    assert all(torch.equal(p, q) for p, q in zip(first, again, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(first, other, strict=True))


def test_figure_shows_prediction_exact_and_their_distance(poisson: ModuleType):
    torch.manual_seed(0)
    model, x = poisson.Poisson(), torch.linspace(0.0, 1.0, 50)[:, None]
    above, below = poisson.draw(model, x).axes
    exact, prediction = (line.get_ydata() for line in above.lines)
    (distance,) = (line.get_ydata() for line in below.lines)
    np.testing.assert_allclose(exact, np.sin(4 * math.pi * np.linspace(0, 1, 50)), atol=1e-5)
    np.testing.assert_array_equal(prediction, model.net(x).detach().numpy().ravel())
    np.testing.assert_array_equal(distance, np.abs(prediction - exact))


@dataclass
class Run:
    """What one run of a script left behind."""

    config: str
    stdout: str
    stderr: str
    folder: Path
    events: EventAccumulator

    def scalar(self, tag: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in self.events.Scalars(tag)]

    def number(self, label: str) -> float:
        """The number that the report gives behind ``label``."""
        match = re.search(rf"^  {re.escape(label)}\s+([-+.\de]+)", self.stdout, re.MULTILINE)
        assert match, f"no {label!r} in the report:\n{self.stdout}"
        return float(match[1])


CONFIGS = ["poisson", "poisson_plain"]


def start(config: str, cwd: Path) -> subprocess.Popen[str]:
    """The script as the README runs it, but for 60 steps."""
    shrunk = {"max_steps": STEPS, "val_check_interval": 20, "log_every_n_steps": 10}
    command = [sys.executable, str(ROOT / "examples" / "poisson.py"), "fit"]
    command += ["--config", str(ROOT / "configs" / f"{config}.yaml")]
    command += [f"--trainer.{key}={value}" for key, value in shrunk.items()]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONWARNINGS", None)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Both configurations, side by side, because most of the time goes into imports."""
    cwd = tmp_path_factory.mktemp("runs")
    processes = {config: start(config, cwd) for config in CONFIGS}
    results = {}
    for config, process in processes.items():
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        folder = cwd / "logs" / config / "version_0"
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
        results[config] = Run(config, stdout, stderr, folder, events.Reload())
    return results


@pytest.fixture(params=CONFIGS)
def run(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Run:
    return runs[request.param]


def test_run_warns_of_nothing(run: Run):
    assert not re.findall(r"^.*(?:\.py:\d+:|Warning|Traceback).*$", run.stderr, re.MULTILINE)


def test_run_shows_progress(run: Run):
    assert f"{STEPS}/{STEPS}" in run.stdout


def test_reported_error_is_the_logged_one(run: Run):
    logged = run.scalar("rel_l2")
    assert [step for step, _ in logged] == [19, 39, 59, STEPS - 1]
    assert run.number("relative L2 error") == pytest.approx(logged[-1][1], rel=5e-3)


def test_loss_terms_and_kernel_are_logged(run: Run):
    for tag in ("loss_b", "loss_r"):
        assert len(run.scalar(tag)) == STEPS // 10
        assert all(0 < value < math.inf for _, value in run.scalar(tag))
    assert {"ntk/trace/loss_b", "ntk/trace/loss_r"} <= set(run.events.Tags()["scalars"])


def test_reported_drift_is_the_logged_one(run: Run):
    for what in ("kernel", "parameters"):
        _, drift = run.scalar(f"ntk/drift/{what}")[-1]
        assert drift > 0
        assert run.number(f"drift, {what}") == pytest.approx(drift, rel=5e-3)


def test_reported_weights_are_those_of_the_traces(run: Run):
    weights = re.findall(r"(loss_[br]) ([.\de+]+)", run.stdout)
    if run.config == "poisson_plain":
        assert weights == []
        return
    trace = {t: dict(run.scalar(f"ntk/trace/{t}"))[0] for t in ("loss_b", "loss_r")}
    for term, weight in weights:  # every 100 steps: of 60, only step 0
        assert float(weight) == pytest.approx(sum(trace.values()) / trace[term], rel=1e-3)
    assert {term for term, _ in weights} == set(trace)


def test_figure_is_written_and_logged(run: Run):
    path = run.folder / "prediction.png"
    assert str(path.relative_to(run.folder.parents[2])) in run.stdout
    pixels = imread(path)
    assert pixels.shape[:2] == (750, 1050)
    assert float(pixels[..., :3].std()) > 0.05
    (image,) = run.events.Images("prediction")
    assert image.step == STEPS - 1
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_help_needs_no_config(
    poisson: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["poisson.py", "fit", "--help"])
    monkeypatch.setattr(torch, "set_num_threads", int)
    with pytest.raises(SystemExit, match="0"):
        poisson.main()
    shown = capsys.readouterr().out
    for option in (
        "--model.width",
        "--data.n_residual",
        "--trainer.max_steps",
        "--seed_everything",
    ):
        assert option in shown
