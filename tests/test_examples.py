"""The examples: each module against its mathematics, and the script shrunk, as users run it."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from tests.networks import Lambda
from tests.scripts import ROOT, command, load

poisson, wave, milestones = load("poisson"), load("wave"), load("milestones")
fit_quietly, Draws = load("problems").fit_quietly, load("gallery.points").Draws
OneLayer = load("gallery.one_layer").OneLayer
STEPS = 60


@pytest.mark.parametrize("a", [1.0, 2.0, 4.0])
def test_exact_solution_has_no_residual_and_no_error(a: float):
    model = poisson.Poisson(a=a)
    model.net = Lambda(lambda x: torch.sin(a * math.pi * x))
    x = torch.linspace(0.0, 1.0, 100, dtype=torch.float64)[:, None]
    assert float(model.residual(x).detach().abs().max()) < 1e-10 * (a * math.pi) ** 2
    assert float(model.error(x)) == 0.0


def test_residual_is_in_physical_units():
    """u_xx by hand: sum_k v_k w_k^2 tanh''(w_k z + b_k) / std^2, z = (x - mean) / std."""
    model = poisson.Poisson(width=7, mean=0.3, std=0.2).double()
    x = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)[:, None]
    hidden, out = model.net[0], model.net[2]
    t = torch.tanh((x - 0.3) / 0.2 * hidden.weight.mT + hidden.bias)  # (11, 7)
    u_xx = (-2 * t * (1 - t**2) * hidden.weight.mT**2) @ out.weight.mT / 0.2**2
    f = -((4 * math.pi) ** 2) * torch.sin(4 * math.pi * x)
    torch.testing.assert_close(model.residual(x), u_xx - f)


def test_initialisation_is_the_standard_parametrisation():
    torch.manual_seed(0)
    net = OneLayer(width=20_000, mean=0.5, std=1.0)
    torch.manual_seed(1)
    biases = torch.cat([OneLayer(1, 0.5, 1.0)[2].bias.detach() for _ in range(2000)])
    samples = {net[0].weight: 1.0, net[0].bias: 1.0, net[2].weight: 20_000**-0.5, biases: 1.0}
    for sample, std in samples.items():
        assert float(sample.detach().std()) == pytest.approx(std, rel=0.05)
        assert abs(float(sample.detach().mean())) < 5 * std / math.sqrt(sample.numel())


def test_points_are_those_of_the_paper():
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


def fit(seed: int, steps: int) -> nn.Module:
    pl.seed_everything(seed)
    data = poisson.Points(steps=steps)
    model = poisson.Poisson(mean=data.mean, std=data.std)
    fit_quietly(model, data)
    return model


def test_one_step_is_gradient_descent_on_two_mean_squares():
    pl.seed_everything(0)
    data = poisson.Points()
    start = poisson.Poisson(mean=data.mean, std=data.std)
    r_b = start.net(data.train["x_b"])  # u is 0 on both ends for a = 4
    r_r = start.residual(data.train["x_r"])
    loss = r_b.square().sum() / 100 + r_r.square().sum() / 100
    grads = torch.autograd.grad(loss, list(start.parameters()))
    end = fit(seed=0, steps=1)
    for before, grad, after in zip(start.parameters(), grads, end.parameters(), strict=True):
        torch.testing.assert_close(after, before - 1e-5 * grad, rtol=1e-5, atol=1e-6)
        assert not torch.equal(after, before)


def test_a_seed_decides_the_result():
    first, again, other = ([p.detach() for p in fit(seed, 5).parameters()] for seed in (7, 7, 8))
    assert all(torch.equal(p, q) for p, q in zip(first, again, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(first, other, strict=True))


def test_figure_shows_prediction_exact_and_their_distance():
    torch.manual_seed(0)
    model, x = poisson.Poisson(), torch.linspace(0.0, 1.0, 50)[:, None]
    above, below = poisson.draw(model, x).axes
    exact, prediction = (line.get_ydata() for line in above.lines)
    (distance,) = (line.get_ydata() for line in below.lines)
    np.testing.assert_allclose(exact, np.sin(4 * math.pi * np.linspace(0, 1, 50)), atol=1e-5)
    np.testing.assert_array_equal(prediction, model.net(x).detach().numpy().ravel())
    np.testing.assert_array_equal(distance, np.abs(prediction - exact))


class Run:
    """What one run of a script left behind."""

    def __init__(self, config: str, stdout: str, stderr: str, folder: Path):
        self.config, self.stdout, self.stderr, self.folder = config, stdout, stderr, folder
        guidance = {"scalars": 0, "images": 0}
        self.events = EventAccumulator(str(folder), size_guidance=guidance).Reload()

    def scalar(self, tag: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in self.events.Scalars(tag)]

    def number(self, label: str) -> float:
        """The number that the report gives behind ``label``."""
        match = re.search(rf"^  {re.escape(label)}\s+([-+.\de]+)", self.stdout, re.MULTILINE)
        assert match, f"no {label!r} in the report:\n{self.stdout}"
        return float(match[1])


@pytest.fixture(scope="module", params=["poisson", "poisson_plain"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The script as the README runs it, but for 60 steps."""
    config, cwd = request.param, tmp_path_factory.mktemp("run")
    shrunk = {"max_steps": STEPS, "val_check_interval": 20, "log_every_n_steps": 10}
    path = ROOT / "configs" / f"{config}.yaml"
    options = [f"--trainer.{key}={value}" for key, value in shrunk.items()]
    done = command("poisson", "fit", f"--config={path}", *options, cwd=cwd)
    return Run(config, done.stdout, done.stderr, cwd / "logs" / config / "version_0")


def test_run_warns_of_nothing_and_shows_progress(run: Run):
    assert not re.findall(r"^.*(?:\.py:\d+:|Warning|Traceback).*$", run.stderr, re.MULTILINE)
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
    trace = {t: dict(run.scalar(f"ntk/trace/{t}"))[0] for t in ("loss_b", "loss_r")}
    for term, weight in weights:  # every 100 steps: of 60, only step 0
        assert float(weight) == pytest.approx(sum(trace.values()) / trace[term], rel=1e-3)
    assert {term for term, _ in weights} == (set() if "plain" in run.config else set(trace))


def test_figure_is_written_and_logged(run: Run):
    path = run.folder / "prediction.png"
    assert str(path.relative_to(run.folder.parents[2])) in run.stdout
    pixels = imread(path)
    assert pixels.shape[:2] == (750, 1050)
    assert float(pixels[..., :3].std()) > 0.05
    (image,) = run.events.Images("prediction")
    assert image.step == STEPS - 1
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_help_needs_no_config(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["poisson.py", "fit", "--help"])
    monkeypatch.setattr(torch, "set_num_threads", int)
    with pytest.raises(SystemExit, match="0"):
        poisson.main()
    shown = capsys.readouterr().out
    options = ("--model.width", "--data.n_residual", "--trainer.max_steps", "--seed_everything")
    assert [option for option in options if option not in shown] == []


# --- Wave


def exact(points: Tensor) -> Tensor:
    """The solution of the wave equation, a and c as in the paper."""
    t, x = (math.pi * points).split(1, 1)
    return x.sin() * (2 * t).cos() + 0.5 * (4 * x).sin() * (8 * t).cos()


def points_inside(n: int) -> Tensor:
    return torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_exact_wave_solves_every_equation_and_has_no_loss():
    model, points = wave.Wave(width=2, depth=1), points_inside(100)
    model.net = Lambda(exact)
    u_tt = 64 * math.pi**2  # the size of the terms that cancel
    assert float(model.residual(points).detach().abs().max()) < 1e-12 * u_tt
    start = points * torch.tensor([0.0, 1.0])
    assert float(model.velocity(start).detach().abs().max()) < 1e-12 * u_tt
    for side in (0.0, 1.0):
        ends = torch.stack([points[:, 0], torch.full((100,), side)], 1)
        assert float(model.exact(ends).abs().max()) < 1e-14 * u_tt
    torch.testing.assert_close(model.exact(points), exact(points))
    assert float(model.error(points)) < 1e-14
    loss, logged, _ = losses_of(model)
    assert float(loss) < 1e-20
    assert set(logged) == {"loss_u", "loss_ut", "loss_r"}


def losses_of(model: Any) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss of one batch, what is logged of it, and the batch."""
    logged: dict[str, Tensor] = {}
    batch = {name: points.double() for name, points in wave.Points().draw(1).items()}
    model.log_dict = logged.update
    return model.training_step(batch).detach(), logged, batch


def test_loss_of_u_is_the_sum_of_three_means():
    model = wave.Wave(width=3, depth=2).double()
    _, logged, batch = losses_of(model)
    initial, left, right = batch["u"].split(100)
    means = [(model.net(initial) - exact(initial)).square().mean()]
    means += [model.net(side).square().mean() for side in (left, right)]
    torch.testing.assert_close(logged["loss_u"], sum(means))


def test_residual_of_fourier_features_is_that_of_plane_waves():
    """Without hidden layers u = sum_k v_k sin(w_k . (t, x)) + ..., so u_tt = -w_t^2 u_k."""
    model = wave.Wave(c=3.0, depth=0, frequencies=10, scale=4.0).double()
    features, (out,) = model.net[0], model.net[1].layers
    points, (w_t, w_x) = points_inside(20), features.angles  # (5,) each
    phase = points @ features.angles
    factor = 3.0**2 * w_x**2 - w_t**2
    expected = torch.cat([factor * phase.sin(), factor * phase.cos()], 1) @ out.weight.mT
    torch.testing.assert_close(model.residual(points), expected)


def test_derivatives_are_in_physical_units():
    """By hand with z = sqrt(12) (p - 1/2): each derivative brings a factor sqrt(12) w."""
    model, points = wave.Wave(c=3.0, depth=1, width=7).double(), points_inside(11)
    hidden, out = model.net.layers
    w_t, w_x = (math.sqrt(12) * hidden.weight).unbind(1)
    tanh = torch.tanh(math.sqrt(12) * (points - 0.5) @ hidden.weight.mT + hidden.bias)
    first, second = 1 - tanh**2, -2 * tanh * (1 - tanh**2)
    torch.testing.assert_close(model.velocity(points), (w_t * first) @ out.weight.mT)
    u_tt, u_xx = ((w**2 * second) @ out.weight.mT for w in (w_t, w_x))
    torch.testing.assert_close(model.residual(points), u_tt - 9.0 * u_xx)


def test_wave_starts_from_glorot_and_zero_biases():
    first, *_, last = wave.Wave(width=500).net.layers
    for layer, fans in ((first, 502), (last, 501)):
        weight = layer.weight.detach()
        deviation = math.sqrt(2 / fans)
        assert float(weight.std()) == pytest.approx(deviation, rel=5 / math.sqrt(weight.numel()))
        assert not layer.bias.any()


def test_draws_lie_on_their_sides():
    data = wave.Points(n_initial=30, n_boundary=20, n_residual=50)
    batch = data.draw(3)
    initial, left, right = batch["u"].split([30, 20, 20])
    assert torch.equal(initial, batch["ut"])
    for points, axis, value in ((initial, 0, 0.0), (left, 1, 0.0), (right, 1, 1.0)):
        assert torch.equal(points[:, axis], torch.full((len(points),), value))
        assert points[:, 1 - axis].unique().numel() == len(points)
    assert batch["r"].shape == (50, 2)
    for free in (initial[:, 1], left[:, 0], right[:, 0], *batch["r"].T):
        assert 0 <= float(free.min()) < 0.3 < 0.7 < float(free.max()) < 1
    assert data.test.shape == (200**2, 2)
    assert data.test[[0, 1, -1]].tolist() == [[0, 0], [0, pytest.approx(1 / 199)], [1, 1]]


def flat(batch: dict[str, Tensor]) -> Tensor:
    return torch.cat([batch[name].flatten() for name in ("u", "ut", "r")])


def test_draws_are_decided_by_seed_and_number():
    first, again, other = (wave.Points(seed=seed) for seed in (0, 0, 1))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(flat(first.draw(4)), flat(again.draw(4)))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first.draw(4)["r"], first.draw(5)["r"])
    assert not torch.equal(first.draw(4)["r"], other.draw(4)["r"])


@pytest.mark.parametrize("done", [0, 2, 6])
def test_draws_go_on_where_they_were(done: int):
    points = wave.Points(n_initial=2, n_boundary=2, n_residual=2)
    whole = [flat(batch) for batch in Draws(points, 7)]
    interrupted, resumed = Draws(points, 7), Draws(points, 7)
    batches = iter(interrupted)
    for _ in range(done):
        next(batches)
    resumed.load_state_dict(interrupted.state_dict())
    rest = [flat(batch) for batch in resumed]
    assert len(whole) == len(resumed) == 7
    assert len(rest) == 7 - done
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[done:], strict=True))


def configuration(config: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a configuration says; its callbacks by class."""
    said = yaml.safe_load((ROOT / "configs" / f"{config}.yaml").read_text())
    callbacks = said["trainer"].pop("callbacks")
    return said, {c["class_path"].rpartition(".")[2]: c for c in callbacks}


def shrunk(steps: int, without: str = "") -> dict[str, object]:
    """``wave_paper.yaml`` with few steps of 20 neurons on a few points, a checkpoint every 5."""
    settings, callbacks = configuration("wave_paper")
    settings["model"] |= {"width": 10, "depth": 2}
    settings["data"] |= {"n_initial": 6, "n_boundary": 6, "n_residual": 9, "n_test": 12}
    settings["trainer"] |= {"max_steps": steps, "val_check_interval": 5, "log_every_n_steps": 1}
    callbacks["ModelCheckpoint"]["init_args"]["every_n_train_steps"] = 5
    for kind in ("NTKMonitor", "NTKBalancer"):
        callbacks[kind]["init_args"]["every_n_steps"] = 4
    settings["trainer"]["callbacks"] = [c for kind, c in callbacks.items() if kind != without]
    return settings


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains by the command line of the wave in this process; gives the log folder of the run."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # restored afterwards
    monkeypatch.setenv("PL_SEED_WORKERS", "0")

    def fit(folder: Path, settings: dict[str, object], *arguments: str) -> Path:
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        Path("config.yaml").write_text(yaml.safe_dump(settings))
        monkeypatch.setattr(sys, "argv", ["wave.py", "fit", "--config=config.yaml", *arguments])
        wave.main()
        (log,) = Path("logs").glob("*/*")
        return log.absolute()

    return fit


def test_stopped_wave_goes_on_as_if_it_had_not_been(shell, tmp_path: Path, monkeypatch):
    """One run of 10 steps; another, lost after 7, resumed from its checkpoint of step 5."""
    monkeypatch.setattr(wave, "draw", lambda model, points: Figure((1, 1)))

    def end(folder: str, steps: int, *arguments: str) -> dict[str, Any]:
        log = shell(tmp_path / folder, shrunk(steps, without="NTKMonitor"), *arguments)
        return torch.load(log / "checkpoints" / "last.ckpt", weights_only=True)

    whole = end("whole", 10)
    assert end("again", 7)["global_step"] == 5
    resumed = end("again", 10, "--ckpt_path", "last")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)


def test_wave_reports_and_logs(shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = shell(tmp_path / "cwd", shrunk(10))
    run = Run("wave_paper", capsys.readouterr().out, "", log)
    logged = run.scalar("rel_l2")
    assert [step for step, _ in logged] == [4, 9, 9]
    assert run.number("relative L2 error") == pytest.approx(logged[-1][1], rel=5e-3)
    assert "4.518e-01 without weights" in run.stdout
    for term in ("loss_u", "loss_ut", "loss_r"):
        assert [step for step, _ in run.scalar(f"ntk/weight/{term}")] == [0, 4, 8]
        (weight,) = re.findall(rf"{term} ([.\de+]+)", run.stdout)
        assert float(weight) == pytest.approx(run.scalar(f"ntk/weight/{term}")[-1][1], rel=1e-4)
    assert imread(log / "prediction.png").shape[:2] == (510, 1650)


def test_wave_figure_shows_exact_prediction_and_error():
    model, data = wave.Wave(width=4, depth=1), wave.Points(n_test=9)
    figure = wave.draw(model, data.test)
    shown, prediction, error = (axes.images[0].get_array() for axes in figure.axes[:3])
    t, x = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))  # rows x, columns t
    points = torch.tensor(np.stack([t.ravel(), x.ravel()], 1), dtype=torch.float32)
    np.testing.assert_allclose(shown.ravel(), exact(points)[:, 0].numpy(), atol=1e-5)
    np.testing.assert_allclose(prediction.ravel(), model.net(points).detach()[:, 0], atol=1e-5)
    np.testing.assert_allclose(error, abs(prediction - shown), atol=1e-6)


# --- Configurations


def settings(config: str) -> dict[str, Any]:
    """What a configuration says, without where it is logged; callbacks by class."""
    said, callbacks = configuration(config)
    del said["trainer"]["logger"]
    callbacks.get("ModelCheckpoint", {"init_args": {}})["init_args"].pop("dirpath", None)
    return {**said, "callbacks": callbacks}


@pytest.mark.parametrize("config", ["poisson", "wave", "wave_paper"])
def test_plain_configuration_lacks_the_balancer_and_nothing_else(config: str):
    weighted, plain = settings(config), settings(f"{config}_plain")
    every = weighted["callbacks"].pop("NTKBalancer")["init_args"]["every_n_steps"]
    assert every == {"poisson": 100, "wave": 500, "wave_paper": 100}[config]
    assert weighted == plain


@pytest.mark.parametrize("config", ["wave", "wave_paper"])
def test_configuration_fits_its_classes(config: str):
    said = settings(config)
    model, data = wave.Wave(**said["model"]), wave.Points(**said["data"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.residual(data.draw(1)["r"]).shape == (300, 1)
    network = model.net[1] if "frequencies" in said["model"] else model.net
    assert len(network.layers) == said["model"]["depth"] + 1


# --- Milestones

CURVES: dict[str, dict[int, float]] = {
    "rel_l2": {999: 0.5, 1999: 0.25},
    "loss_u": {995: 1.0, 1003: 2.0, 1995: 0.5},
    "loss_r": {995: 8.0, 1003: 4.0, 1995: 2.0},
    "ntk/weight/loss_u": {0: 10.0, 1000: 100.0, 2000: 300.0},
    "ntk/weight/loss_r": {0: 1.5, 1000: 1.25, 2000: 1.125},
}
HEAD = "| step | relative L2 error | weighted loss | loss_u | loss_r | weight of u | weight of r |"


def rows(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]


def test_milestones_are_read_from_event_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(FileNotFoundError, match=rf"no event files in {re.escape(str(tmp_path))}"):
        milestones.read(tmp_path)
    with SummaryWriter(str(tmp_path)) as writer:
        for tag, curve in CURVES.items():
            for step, value in curve.items():
                writer.add_scalar(tag, value, step)
    milestones.main([str(tmp_path), "1000", "2000", "5000"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == HEAD
    assert rows(printed) == [
        ["1000", "5.000e-01", "2.050e+02", "2.000e+00", "4.000e+00", "100", "1.25"],
        ["2000", "2.500e-01", "1.522e+02", "5.000e-01", "2.000e+00", "300", "1.125"],
        ["5000", *6 * ["-"]],
    ]


def test_milestones_without_balancer_have_weights_of_one_and_without_a_weight_no_total():
    plain = {tag: curve for tag, curve in CURVES.items() if "weight" not in tag}
    assert rows(milestones.table(plain, [995])) == [
        ["995", "5.000e-01", "9.000e+00", "1.000e+00", "8.000e+00", "1", "1"]
    ]
    (row,) = rows(milestones.table(CURVES | {"ntk/weight/loss_u": {0: 10.0}}, [1000]))
    assert row[2] == row[5] == "-"
    assert row[3] == "2.000e+00"


@pytest.mark.parametrize(
    ("logged", "step", "value"),
    [
        *[({}, 0, None), ({0: 3.0}, 0, 3.0), ({0: 3.0}, 10, 3.0), ({0: 3.0}, 11, None)],
        ({79_999: 1.0, 80_000: 2.0}, 80_000, 2.0),
        *[({9_900: 1.0}, 10_000, 1.0), ({9_899: 1.0}, 10_000, None)],
    ],
)
def test_nearest_value_is_near(logged: dict[int, float], step: int, value: float | None):
    assert milestones.nearest(logged, step) == value
