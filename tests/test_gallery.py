"""The gallery of examples: its package against formulas, its scripts as users run them."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn.functional import linear

from tests.networks import Lambda
from tests.scripts import ROOT, example, load, python

networks, embeddings = load("gallery.networks"), load("gallery.embeddings")
factorization, points = load("gallery.factorization"), load("gallery.points")
plots, problem, command_line = (load(f"gallery.{n}") for n in ("plots", "problem", "command_line"))
derivatives = load("gallery.derivatives")

SCRIPTS = sorted(file.stem for file in (ROOT / "examples").glob("*.py"))
CLOSED = ["advection", "helmholtz", "klein_gordon", "two_scale_poisson"]  # what is solved is known
HIGHEST = {"advection": 30.0, "helmholtz": 17 * math.pi**2, "klein_gordon": 25 * math.pi**2}
HIGHEST["two_scale_poisson"] = 0.1 * (50 * math.pi) ** 2
"""Size of the terms that cancel in a residual."""


def classes(script: ModuleType) -> tuple[type, type]:
    """The problem of a script and its points."""
    own = [c for c in vars(script).values() if isinstance(c, type)]
    own = [c for c in own if c.__module__ == script.__name__]
    (model,) = (c for c in own if issubclass(c, problem.Problem))
    return model, script.Points


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


# --- Scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_short_and_begins_with_its_command(name: str):
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(text.splitlines()) < 120
    command = f"python examples/{name}.py fit --config configs/{name}.yaml"
    assert command in text.split('"""')[1]
    assert command in (ROOT / "configs" / f"{name}.yaml").read_text()
    assert f"`{command}`" in (ROOT / "examples" / "README.md").read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs_small(name: str, tmp_path: Path):
    script, config = (ROOT / p for p in (f"examples/{name}.py", f"configs/{name}.yaml"))
    logs = f"--trainer.logger.init_args.save_dir={tmp_path}"
    done = python(script, "fit", f"--config={config}", "--smoke", logs, cwd=tmp_path)
    assert not re.findall(r"^.*(?:\.py:\d+:|Warning|Traceback).*$", done.stderr, re.MULTILINE)
    (reported,) = re.findall(r"relative L2 error +([\d.]+e[-+]\d+)", done.stdout)
    assert "20 steps" in done.stdout
    (log,) = (file.parent for file in tmp_path.rglob("events.out.tfevents.*"))
    assert imread(log / "prediction.png")[..., :3].std() > 0.05
    events = EventAccumulator(str(log)).Reload()
    scalars = events.Scalars("rel_l2")
    assert [s.step for s in scalars] == [9, 19, 19]
    assert float(reported) == pytest.approx(scalars[-1].value, rel=5e-3)
    assert "prediction" in events.Tags()["images"]
    weights = [tag for tag in events.Tags()["scalars"] if tag.startswith("ntk/weight/")]
    assert len(weights) >= 2  # terms are known by the names that the script logs
    assert all(tag.removeprefix("ntk/weight/").startswith("loss_") for tag in weights)


@pytest.mark.parametrize("name", SCRIPTS)
def test_configuration_has_the_balancer_and_the_monitor(name: str):
    said = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["trainer"]
    used = {callback["class_path"].rpartition(".")[2] for callback in said["callbacks"]}
    assert used >= {"NTKMonitor", "NTKBalancer"}
    assert said["logger"]["init_args"]["name"] == name


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CLOSED)
def test_exact_solution_has_no_residual_and_no_error(name: str):
    problem_of, points_of = classes(example(name))
    model, data = problem_of(width=2, depth=1), points_of(n_test=9)
    model.net = Lambda(model.exact)
    for term, residual in model.residuals(data.draw(1)).items():
        assert float(residual.detach().abs().max()) < 1e-8 * HIGHEST[name], term
    assert float(model.error(data.test)) == 0.0


COUNTS: dict[str, dict[str, int]] = {
    "advection": {"loss_r": 400, "loss_u": 60, "loss_b": 60},
    "helmholtz": {"loss_r": 400, "loss_b": 100},
    "klein_gordon": {"loss_r": 300, "loss_b": 200, "loss_u": 100, "loss_ut": 100},
    "two_scale_poisson": {"loss_r": 200, "loss_b": 2},
}


@pytest.mark.parametrize("name", CLOSED)
def test_terms_have_the_points_that_they_are_given(name: str):
    problem_of, points_of = classes(example(name))
    model, data = problem_of(width=3), points_of()
    rows = {term: r.shape for term, r in model.residuals(data.draw(1)).items()}
    assert rows == {term: (count, 1) for term, count in COUNTS[name].items()}
    few = {n: 7 for n in command_line.arguments(points_of) if n.startswith("n_")}
    rows = {term: len(r) for term, r in model.residuals(points_of(**few).draw(1)).items()}
    assert rows == dict.fromkeys(COUNTS[name], 7)
    for number, seed in ((1, 0), (2, 0), (1, 1)):
        batch, again = (points_of(seed=seed).draw(number) for _ in range(2))
        first = data.draw(1)
        assert all(torch.equal(batch[part], again[part]) for part in batch)
        assert torch.equal(batch["r"], first["r"]) == ((number, seed) == (1, 0))


def test_points_lie_where_they_should():
    for name, box, ends in (
        ("helmholtz", [(-1, 1), (-1, 1)], {"b": (0, 1)}),
        ("klein_gordon", [(0, 1), (0, 1)], {"b": (1,)}),
        ("two_scale_poisson", [(0, 1)], {"b": (0,)}),
    ):
        batch = example(name).Points().draw(1)
        for axis, (low, high) in enumerate(box):
            inside = batch["r"][:, axis]
            assert low <= float(inside.min()) < low + 0.1 * (high - low)
            assert high >= float(inside.max()) > high - 0.1 * (high - low)
        for part, axes in ends.items():
            on_side = [torch.isin(batch[part][:, a], torch.tensor(box[a])) for a in axes]
            assert torch.stack(on_side).any(0).all()
    batch = example("advection").Points().draw(1)
    assert not batch["u"][:, 0].any()
    assert not batch["left"][:, 1].any()
    assert torch.equal(batch["left"][:, 0], batch["right"][:, 0])
    assert torch.equal(batch["right"][:, 1], torch.full((60,), 2 * math.pi))
    assert not example("klein_gordon").Points().draw(1)["initial"][:, 0].any()


@pytest.mark.parametrize("name", CLOSED)
def test_network_is_as_the_arguments_say(name: str):
    problem_of, _ = classes(example(name))
    model = problem_of(width=6, depth=2, frequencies=10, scale=3.0, modified=True, factorize=True)
    features, net = model.net
    assert isinstance(features, embeddings.FourierFeatures)
    assert isinstance(net, networks.ModifiedMLP)
    assert len(net.layers) == 3
    assert all(isinstance(layer, factorization.RandomWeightFactorization) for layer in net.layers)
    assert {**model.hparams}.keys() >= {"width", "depth", "scale", "lr", "decay"}
    assert isinstance(problem_of().net, networks.MLP)


# --- Networks


def test_mlp_is_its_formula():
    net = networks.MLP(2, 3, width=5, depth=2, mean=[0.5, -1.0], std=[2.0, 0.25]).double()
    x = torch.randn(4, 2, dtype=torch.float64)
    h = (x - torch.tensor([0.5, -1.0])) / torch.tensor([2.0, 0.25])
    first, second, last = net.layers
    h = torch.tanh(second(torch.tanh(first(h))))
    torch.testing.assert_close(net(x), last(h))
    plain = networks.MLP(2, 1, depth=0, mean=3.0, std=2.0)
    torch.testing.assert_close(plain(x.float()), plain.layers[0]((x.float() - 3) / 2))


def test_mlp_starts_from_glorot_and_zero_biases():
    for net in (networks.MLP(2, 1, width=400), networks.ModifiedMLP(2, 1, width=400)):
        assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))
        (weight,) = (p.detach() for p in [net.layers[1].weight])
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / 800), rel=0.02)


def test_modified_mlp_mixes_two_encoders():
    net = networks.ModifiedMLP(2, 1, width=5, depth=3, mean=0.5, std=0.2).double()
    x = torch.rand(4, 2, dtype=torch.float64)
    z = (x - 0.5) / 0.2
    first, second, third, last = net.layers
    u, v = (torch.tanh(linear(z, e.weight, e.bias)) for e in net.encoders)
    h = torch.tanh(first(z))
    for layer in (second, third):
        gate = torch.tanh(layer(h))
        h = (1 - gate) * u + gate * v
    torch.testing.assert_close(net(x), last(h))


def test_fourier_features_are_sines_and_cosines():
    features = embeddings.FourierFeatures(2, 6, scale=4.0)
    assert features.angles.shape == (2, 3)
    x = torch.rand(5, 2)
    phase = x @ features.angles
    torch.testing.assert_close(features(x), torch.cat([phase.sin(), phase.cos()], 1))
    many = embeddings.FourierFeatures(2, 40_000, scale=[1.0, 5.0]).angles
    assert many.std(1).tolist() == pytest.approx([1.0, 5.0], rel=0.03)
    assert not list(features.parameters())
    with pytest.raises(ValueError, match="7 Fourier features"):
        embeddings.FourierFeatures(2, 7)


def test_periodic_embedding_is_periodic_and_keeps_the_rest():
    embedding = embeddings.PeriodicEmbedding(2, axis=1, period=3.0, harmonics=2)
    x = torch.rand(5, 2, dtype=torch.float64)
    features, angle = embedding(x), 2 * math.pi * x[:, 1] / 3.0
    expected = [x[:, 0], angle.sin(), (2 * angle).sin(), angle.cos(), (2 * angle).cos()]
    torch.testing.assert_close(features, torch.stack(expected, 1))
    assert embedding.n_out == 5
    shifted = x + torch.tensor([0.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(embedding(shifted), features)


def test_factorization_is_a_diagonal_times_a_matrix():
    layer = nn.Linear(3, 400).double()
    layer.weight.requires_grad_(False)
    factorized = factorization.RandomWeightFactorization(layer, mean=0.5, std=0.1)
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(factorized(x), layer(x))  # it starts from the same function
    s, v = factorized.s.detach().flatten(), factorized.v.detach()
    torch.testing.assert_close(torch.diag(s.exp()) @ v, layer.weight)
    assert float(s.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(s.std()) == pytest.approx(0.1, rel=0.2)
    with torch.no_grad():
        factorized.s += 1.0
    torch.testing.assert_close(factorized(x) - layer.bias, math.e * (layer(x) - layer.bias))


def test_factorized_replaces_every_linear_layer():
    net = networks.ModifiedMLP(2, 1, width=4, depth=2)
    before = net(torch.ones(3, 2))
    factorization.factorized(net)
    torch.testing.assert_close(net(torch.ones(3, 2)), before)
    assert not any(isinstance(module, nn.Linear) for module in net.modules())
    assert sum("s" in name.split(".") for name, _ in net.named_parameters()) == 5


def test_gradient_has_a_column_for_each_input():
    x = derivatives.tracked(torch.rand(4, 3, dtype=torch.float64))
    along = derivatives.gradient((x**2 * torch.tensor([1.0, 2.0, 3.0])).sum(1, keepdim=True), x)
    for i, column in enumerate(along):
        torch.testing.assert_close(column, 2 * (i + 1) * x[:, i : i + 1])
    second = derivatives.gradient(along[1], x)
    torch.testing.assert_close(second[1], torch.full_like(along[1], 4.0))


# --- Points


def test_box_says_mean_and_deviation():
    box = points.Box((0.0, -1.0), (2.0, 5.0))
    inside = box.inside(100_000, generator())
    assert inside.mean(0).tolist() == pytest.approx(box.mean, rel=0.02)
    assert inside.std(0).tolist() == pytest.approx(box.std, rel=0.02)
    assert inside.amin(0).tolist() == pytest.approx([0.0, -1.0], abs=1e-3)
    assert inside.amax(0).tolist() == pytest.approx([2.0, 5.0], abs=1e-3)


def test_box_has_sides_and_a_grid():
    box = points.Box((0.0, -1.0), (2.0, 5.0))
    side = box.side(50, 1, 5.0, generator())
    assert torch.equal(side[:, 1], torch.full((50,), 5.0))
    assert side[:, 0].unique().numel() == 50
    every = box.boundary(10, generator(), axes=(0, 1))
    ends = [(0, 0.0), (0, 2.0), (1, -1.0), (1, 5.0)]
    assert [int((every[:, axis] == value).sum()) for axis, value in ends] == [3, 3, 2, 2]
    with pytest.raises(ValueError, match="3 boundary points"):
        box.boundary(3, generator(), axes=(0, 1))
    grid = box.grid(3)
    assert grid.shape == (9, 2)
    assert grid[[0, 1, 3, -1]].tolist() == [[0, -1], [0, 2], [1, -1], [2, 5]]
    assert points.Box((0.0,), (1.0,)).grid(3).tolist() == [[0.0], [0.5], [1.0]]


# --- Problem, figures, command line


class Line(problem.Problem):
    """u = (x, 2 x) by a network that says (x, 0)."""

    inputs, outputs = ("x",), ("u", "v")

    def __init__(self) -> None:
        super().__init__(lr=0.5, decay=0.25)
        self.net = Lambda(lambda x: torch.cat([x, 0 * x], 1))
        self.slope = nn.Parameter(torch.tensor(3.0))
        self.factors = {"b": 10.0}
        self.said: dict[str, Tensor] = {}
        self.log_dict = self.said.update

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.slope * x for name, x in batch.items()}

    def exact(self, x: Tensor) -> Tensor:
        return torch.cat([x, 2 * x], 1)


def test_error_is_over_all_outputs():
    assert float(Line().error(torch.rand(50, 1))) == pytest.approx(math.sqrt(4 / 5))


def test_loss_is_the_sum_of_mean_squares_and_each_is_logged():
    model = Line()
    loss = model.training_step({"a": torch.tensor([[1.0], [2.0]]), "b": torch.tensor([[1.0]])})
    said = {name: float(value.detach()) for name, value in model.said.items()}
    assert said == {"a": 22.5, "b": 90.0}
    assert float(loss.detach()) == 112.5
    assert all(value.requires_grad for value in model.said.values())


def test_learning_rate_falls_by_decay_in_1000_steps():
    chosen = Line().configure_optimizers()
    schedule = chosen["lr_scheduler"]["scheduler"]
    for _ in range(1000):
        chosen["optimizer"].step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.5 * 0.25])
    assert chosen["lr_scheduler"]["interval"] == "step"


def test_figure_has_a_row_for_each_output():
    x = torch.linspace(0, 1, 11)[:, None]
    curves = plots.draw(Line(), x).axes
    assert [axes.get_ylabel() for axes in curves] == ["u", "", "v", ""]
    for above, below, slopes in ((*curves[:2], (1, 1, 0)), (*curves[2:], (2, 0, 2))):
        lines = [line.get_ydata() for line in (*above.lines, *below.lines)]
        np.testing.assert_allclose(lines, [slope * x.flatten().numpy() for slope in slopes])


def test_figure_of_two_inputs_shows_maps():
    model = Line()
    model.inputs, model.outputs = ("t", "x"), ("u",)
    model.exact, model.net = (
        lambda p: p[:, :1] + 2 * p[:, 1:],
        Lambda(lambda p: p.sum(1, keepdim=True)),
    )
    grid = points.Box((0.0, -1.0), (2.0, 1.0)).grid(5)
    axes = plots.draw(model, grid).axes[:3]
    t, x = grid[:, 0].view(5, 5).T.numpy(), grid[:, 1].view(5, 5).T.numpy()
    for one, expected in zip(axes, (t + 2 * x, t + x, abs(x)), strict=True):
        np.testing.assert_allclose(one.images[0].get_array(), expected, atol=1e-6)
        assert one.images[0].get_extent() == [0, 2, -1, 1]
        assert one.get_xlabel() == "t"
    assert [one.get_ylabel() for one in axes] == ["x", "", ""]


class Own:
    def __init__(self, n_own: int = 100, width: int = 5) -> None: ...


class Handing(Own):
    def __init__(self, n_test: int = 200, **settings: Any) -> None: ...


class Closed(Own):
    def __init__(self, n_closed: int = 100) -> None: ...


def test_smoke_stands_for_small_numbers():
    assert command_line.arguments(Closed) == {"self", "n_closed"}
    said = command_line.smoke(Own, Handing)
    assert [option for option in said if not option.startswith("--trainer")] == [
        "--data.n_own=10",
        "--data.n_test=20",
        "--model.width=8",
    ]
    assert "--trainer.max_steps=20" in said
    assert not any("model" in option for option in command_line.smoke(Closed, Closed))


def test_help_shows_smoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["helmholtz.py", "fit", "--help"])
    monkeypatch.setattr(torch, "set_num_threads", int)
    with pytest.raises(SystemExit, match="0"):
        example("helmholtz").main()
    shown = capsys.readouterr().out
    options = ("--smoke", "--model.frequencies", "--data.n_boundary", "--data.seed", "--model.lr")
    assert [option for option in options if option not in shown] == []
