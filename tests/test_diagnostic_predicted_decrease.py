"""The forecast of a measured step in a real Trainer: when it is judged, and what against."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from pinn_ntk import NTK, NTKWarning, tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.step.step_inputs import StepInputs
from pinn_ntk.diagnostics import predicted_decrease
from pinn_ntk.looks.digest import RandomStates
from tests.by_hand import Seen
from tests.looks import said, says
from tests.pinn import N_BC, N_PDE, batch, build, calling, fit, same, trainer
from tests.zoo import Burst, Manual, Noted, Resampled, Residuals, Stream, TwoNetworks, make, train

RATIO = "ntk/predicted_decrease_ratio"
ROUTES: list[dict[str, Any]] = [{"residuals": "residuals"}, {"probe": "residuals"}]


def ratios(monitor: NTKMonitor) -> dict[int, float]:
    found = monitor.history.get(f"{monitor.prefix}/predicted_decrease_ratio", [])
    return {int(step): float(ratio) for step, ratio in found}


def sgd(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda module: torch.optim.SGD(module.parameters(), lr=lr)


# --- Against a computation by hand


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
def test_the_ratio_is_that_of_the_step_taken(optimizer: str):
    module, monitor = make(Seen, optimizer=optimizer), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=7)
    assert ratios(monitor) == module.ratios(0, 2, 4)
    assert all(abs(value - 1) < 0.5 for value in ratios(monitor).values())  # it says something


@pytest.mark.parametrize("every", [1, 3])
def test_weights_of_the_balancer_are_those_of_the_step(every: int):
    """They change at the next step, but what is compared is one loss."""
    module, monitor = make(Seen, optimizer="adam"), NTKMonitor(every_n_steps=every)
    train(module, monitor, NTKBalancer(every_n_steps=1), steps=5)
    for step, value in ratios(monitor).items():
        rule = module.rule(step)
        weights = np.array([rule["pde"]] * N_PDE + [rule["bc"]] * N_BC)
        assert value == pytest.approx(module.ratio(step, weights), rel=1e-8)
    assert list(ratios(monitor)) == list(range(0, 4, every))


def test_a_probe_and_a_function_are_judged_at_once_the_last_step_too():
    module = make(Seen, optimizer="adam")
    live = NTKMonitor(every_n_steps=2)
    routes = [NTKMonitor(every_n_steps=2, prefix=next(iter(route)), **route) for route in ROUTES]
    train(module, live, *routes, steps=5)
    assert ratios(live) == module.ratios(0, 2)
    for found in map(ratios, routes):
        assert abs(found.pop(4) - 1) < 0.5
        assert found == module.ratios(0, 2)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_in_low_precision_the_ratio_is_about_that_of_double(precision: Any):
    """In bf16 the noise of the loss is 32 / 256 of it: only long steps stand out."""
    exact, rough = NTKMonitor(every_n_steps=1), NTKMonitor(every_n_steps=1)
    train(make(Noted, optimizer="adam"), exact, steps=4)
    single, points = make(Noted, optimizer="adam").float(), batch(torch.float32)
    train(single, rough, steps=4, batches=[points] * 4, precision=precision)
    for step, value in ratios(rough).items():
        assert value == pytest.approx(ratios(exact)[step], rel=0.02 if "32" in precision else 0.5)
    assert precision != "32-true" or list(ratios(rough)) == [0, 1, 2]


class Tapped(Seen):
    def __init__(self, reshaped: bool) -> None:
        super().__init__()
        self.reshaped = reshaped

    def losses(self, residuals: Residuals) -> Residuals:
        found = {n: tap(r.flatten() if self.reshaped else r, n) for n, r in residuals.items()}
        return {n: r.reshape(2, -1).square().mean() for n, r in found.items()}


class Scaled(Seen):
    def losses(self, residuals: Residuals) -> Residuals:
        return {name: 1e6 * loss for name, loss in super().losses(residuals).items()}


ONLY_PDE = np.array([1.0] * N_PDE + [0.0] * N_BC)


@pytest.mark.parametrize(
    ("module", "options", "weights"),
    [
        (lambda: make(Tapped, reshaped=False), {}, 1.0),
        (lambda: make(Tapped, reshaped=True), {}, 1.0),
        (lambda: make(Scaled, optimizer=sgd(1e-9)), {}, 1.0),
        (lambda: make(Seen), {"include": "pde"}, ONLY_PDE),
    ],
    ids=["taps", "reshaped taps", "a scale of the loss", "part of the terms"],
)
def test_the_ratio_is_that_of_the_terms_found(
    module: Callable[[], Seen], options: dict[str, Any], weights: Any
):
    seen, monitor = module(), NTKMonitor(every_n_steps=1, **options)
    train(seen, monitor, steps=3)
    rel = 1e-6 if isinstance(seen, Scaled) else 1e-8
    expected = {step: seen.ratio(step, weights) for step in (0, 1)}
    assert ratios(monitor) == pytest.approx(expected, rel=rel)


# --- No number


class Changing(Noted):
    """Residuals that are another function of the parameters in each step, at the same points."""

    def __init__(self, change: str, **options: Any) -> None:
        super().__init__(**options, dropout=0.3 if change == "dropout" else 0.0)
        self.change = change
        self.register_buffer("weight", torch.ones((), dtype=torch.float64))
        self.register_buffer("running_mean", torch.zeros(()))
        self.head = nn.Linear(1, 1).double().requires_grad_(change == "trained")
        if change == "rrelu":
            self.net[1] = nn.RReLU().double()

    def residuals(self, batch: Any) -> Residuals:
        found = super().residuals(batch)
        if self.change == "buffer":
            self.weight = self.weight * 1.5
        if self.change == "statistic":
            self.running_mean = self.running_mean + 1
        drawn: dict[str, Callable[[], Any]] = {
            "torch": lambda: 0.1 * torch.randn_like(found["bc"]),
            "numpy": np.random.rand,
            "python": random.random,
        }
        if self.change in drawn:
            found["bc"] = found["bc"] + drawn[self.change]()
        noise = torch.as_tensor(batch.get("noise", 0.0))
        found["bc"] = self.head(self.weight.sqrt() * found["bc"]) + noise
        return found

    def on_before_optimizer_step(self, *_: Any) -> None:
        if self.change == "within":
            self.weight.mul_(1.5)

    def on_train_batch_end(self, *_: Any) -> None:
        super().on_train_batch_end()
        if self.change == "frozen":
            with torch.no_grad():
                self.head.weight.mul_(1.5)


DRAWN = ["dropout", "rrelu", "torch", "numpy", "python"]
STILL = ["none", "statistic", "trained"]
NOISE: dict[str, Callable[[int], Any]] = {
    "target": lambda i: torch.full((N_BC, 1), float(i), dtype=torch.float64),
    "number": float,
    "array": lambda i: np.full((), float(i)),
}


@pytest.mark.parametrize("change", [*DRAWN, *NOISE, "buffer", "frozen", *STILL])
def test_another_residual_function_at_the_same_points_has_no_ratio(change: str):
    """Every other step is measured, so that steps judge that are not due."""
    module, monitor = make(Changing, change=change), NTKMonitor(every_n_steps=2)
    batches = [batch() | {"noise": NOISE.get(change, lambda _: 0.0)(i)} for i in range(6)]
    loader = DataLoader(batches, batch_size=None, collate_fn=lambda item: item)  # kept as they are
    trainer(monitor, steps=5).fit(module, loader)
    assert list(ratios(monitor)) == ([0, 2] if change in STILL else [])
    assert "ntk/interference/pde/bc" in monitor.history


@pytest.mark.parametrize("options", ROUTES)
@pytest.mark.parametrize(
    ("change", "optimizer"), [("dropout", "lbfgs"), *((change, "sgd") for change in DRAWN)]
)
def test_a_function_is_judged_with_the_random_numbers_that_it_had(
    change: str, options: dict[str, Any], optimizer: str
):
    """Hence the ratio of a short step is near 1; the run goes on with numbers of its own."""

    def lbfgs(module: Any) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(module.parameters(), lr=1e-6, max_iter=3)

    def run(*callbacks: pl.Callback) -> tuple[Changing, tuple[Any, ...]]:
        module = make(Changing, change=change, optimizer=short)
        random.seed(2)
        np.random.seed(2)  # noqa: NPY002
        torch.manual_seed(2)
        train(module, *callbacks, steps=3)
        return module, (random.random(), np.random.rand(), torch.rand(()))  # noqa: NPY002

    short = sgd(1e-6) if optimizer == "sgd" else lbfgs
    monitor = NTKMonitor(every_n_steps=1, **options)
    (plain, after), (module, drawn) = run(), run(monitor)
    assert drawn == after
    assert same(plain, module)
    assert ratios(monitor) == pytest.approx(dict.fromkeys(range(3), 1.0), abs=0.01)


class Once(Noted):
    """Draws a random number in one step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def residuals(self, batch: Any) -> Residuals:
        found = super().residuals(batch)
        if self.step == self.at:
            found["bc"] = found["bc"] + torch.rand_like(found["bc"])
        return found


class Refilled(Noted):
    """The factors of a kernel may be views of points, which are overwritten before the step."""

    def __init__(self, spoils: bool, **options: Any) -> None:
        super().__init__(**options)
        self.spoils = spoils
        self.register_buffer("x", torch.zeros(N_BC, 1, dtype=torch.float64))

    def residuals(self, batch: Any) -> Residuals:
        self.x.copy_(3 * batch["ends"])
        return {"bc": self.net(self.x) - 1}

    def on_before_optimizer_step(self, *_: Any) -> None:
        if self.spoils:
            self.x.zero_()


class Clamped(Noted):
    """Somebody else moves the parameters."""

    def on_train_batch_end(self, *_: Any) -> None:
        super().on_train_batch_end()
        if self.batches == 3:
            with torch.no_grad():
                self.net[0].weight.mul_(0.99)


class Drawing(Resampled):
    """Draws points in each step, and further numbers behind them."""

    def on_after_backward(self) -> None:
        torch.rand(1)


class Causal(Noted):
    """Weights of points, which cannot be carried to those of a probe."""

    def losses(self, residuals: Residuals) -> Residuals:
        weights = torch.linspace(1, 2, N_PDE, dtype=torch.float64)[:, None]
        pde = (weights * residuals["pde"] ** 2).mean()
        return {"pde": pde, "bc": residuals["bc"].square().mean()}


GRID = {"probe": "on_grid"}
JUDGED: dict[str, tuple[Callable[[], Noted], dict[str, Any], dict[str, Any], list[int], bool]] = {
    "points drawn anew": (lambda: make(Resampled), {}, {}, [], True),
    "points drawn by a function": (lambda: make(Resampled), ROUTES[0], {}, [0, 1, 2, 3], True),
    "points drawn before others": (lambda: make(Drawing), ROUTES[0], {}, [0, 1, 2, 3], True),
    "a grid": (lambda: make(Resampled), GRID, {}, [0, 1, 2, 3], True),
    "a grid, others drawn": (lambda: make(Drawing), GRID, {}, [0, 1, 2, 3], True),
    "drawn once": (lambda: make(Once, 1), {}, {"steps": 5}, [2, 3], True),
    "drawn later": (lambda: make(Once, 2), {}, {"steps": 5}, [0, 3], True),
    "changed within": (lambda: make(Changing, "within"), ROUTES[0], {}, [], True),
    "probe changed within": (lambda: make(Changing, "within"), ROUTES[1], {}, [], True),
    "points kept": (lambda: make(Refilled, spoils=False), {}, {}, [0, 1, 2], False),
    "points overwritten": (lambda: make(Refilled, spoils=True), {}, {}, [], False),
    "accumulated": (lambda: make(Noted), {}, {"steps": 3, "accumulate_grad_batches": 2}, [], True),
    "no step": (lambda: make(Noted, optimizer=sgd(0.0)), {}, {"steps": 3}, [], True),
    "moved by others": (lambda: make(Clamped), {}, {"steps": 6}, [0, 1, 3, 4], True),
    "part of the parameters": (lambda: make(Noted), {"params": "net.0.*"}, {}, [], True),
    "undefined": (lambda: make(Burst), {}, {"steps": 5}, [0, 3], True),  # after 1, before 2
    "weights of points": (lambda: make(Causal), {}, {}, [0, 1, 2], True),
    "weights of other points": (lambda: make(Causal), ROUTES[1], {}, [], False),
    "two optimizers": (lambda: make(TwoNetworks, manual=True), {}, {"steps": 8}, [0, 1, 2], True),
    "manual": (lambda: make(Manual), {}, {}, [0, 1, 2], True),
    "manual, taps": (lambda: make(Manual, taps=True), {}, {}, [0, 1, 2], True),
    "raw": (lambda: make(Manual, raw=True, taps=True), {}, {}, [], False),  # no weights are known
}


@pytest.mark.parametrize("case", JUDGED)
def test_which_steps_are_judged(case: str):
    module, options, run, steps, interferes = JUDGED[case]
    monitor = NTKMonitor(every_n_steps=1, **options)
    told = pytest.warns(NTKWarning, match="NaN or inf") if case == "undefined" else nullcontext()
    with told:
        train(module(), monitor, **({"steps": 4} | run))
    assert list(ratios(monitor)) == steps
    assert np.isfinite(list(ratios(monitor).values())).all()
    assert ("ntk/interference/pde/bc" in monitor.history) == interferes


def test_a_step_that_is_neither_measured_nor_judges_looks_at_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    looked: list[tuple[str, int]] = []

    def counted(what: str, do: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (looked.append((what, module.step)), do(*given, **named))[1]

    monkeypatch.setattr(RandomStates, "now", counted("random", RandomStates.now))
    monkeypatch.setattr(StepInputs, "setting", counted("setting", StepInputs.setting))
    module = make(Noted)
    train(module, NTKMonitor(every_n_steps=4), steps=8)
    expected = [(what, step) for what in ("random", "setting") for step in (0, 1, 4, 5, 7)]
    assert sorted(set(looked)) == expected


# --- What else happens in a fit


def test_a_resumed_run_judges_the_step_before_its_first(tmp_path: Path):
    def go_on(steps: int, ckpt: Path | None = None) -> tuple[NTKMonitor, pl.Trainer]:
        monitor, module = NTKMonitor(every_n_steps=2), make(Noted, optimizer="adam")
        run = trainer(monitor, steps=steps)
        run.fit(module, Stream(pack=lambda _: batch()), ckpt_path=ckpt)
        return monitor, run

    whole, _ = go_on(6)
    first, run = go_on(3)
    assert list(ratios(first)) == [0]  # step 2 is the last of this fit
    run.save_checkpoint(tmp_path / "c.ckpt")
    second, _ = go_on(6, tmp_path / "c.ckpt")
    assert list(ratios(second)) == [0, 2, 4]
    assert ratios(second) == ratios(whole)


COPIES = [copy.deepcopy, lambda monitor: pickle.loads(pickle.dumps(monitor))]


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_holds_the_forecast_that_waits(way: Callable[[NTKMonitor], NTKMonitor]):
    def waits() -> dict[str, Any]:
        return way(monitor).state_dict()["diagnostics"]["states"].get("predicted_decrease", {})

    waiting: list[int | None] = []
    monitor = NTKMonitor(every_n_steps=2)
    note = calling(on_train_batch_start=lambda *_: waiting.append(waits().get("step")))
    train(make(Noted), note, monitor, steps=4)
    assert waiting == [None, 0, None, 2]
    assert waits().keys() == {
        *("step", "total_step", "terms", "loss", "predicted", "unit", "fingerprints", "setting"),
        *("parameters", "slope"),
    }
    assert waits()["step"] == 3


@pytest.mark.parametrize("way", COPIES)
def test_a_monitor_may_be_copied_and_pickled_inside_a_batch(way: Callable[[Any], Any]):
    """Then kernel, graphs and batch stay behind, and only what is plain goes along."""

    def look(*_: Any) -> None:
        twin = way(monitor)
        pair = [m.panel.diagnostics["predicted_decrease"]._start for m in (monitor, twin)]
        kept.append(tuple(start is not None for start in pair))
        assert {**monitor.finder.recorder.logged}.keys() == {"pde", "bc"}
        assert twin.finder.recorder.logged == {}
        assert twin.history["ntk/lr"].tolist() == monitor.history["ntk/lr"].tolist()

    kept: list[tuple[bool, ...]] = []
    monitor = NTKMonitor(every_n_steps=1)
    train(make(Noted), monitor, calling(on_before_optimizer_step=look), steps=3)
    assert kept == [(True, False)] * 3
    assert list(ratios(monitor)) == [0, 1]


def test_another_fit_does_not_judge_the_last_step_of_the_one_before():
    module, monitor = build(), NTKMonitor(every_n_steps=2)
    for _ in range(2):
        fit(module, monitor, steps=3)
    assert list(ratios(monitor)) == [0, 3]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("options", [{}, *ROUTES])
def test_training_is_bit_identical_at_every_step(optimizer: str, options: dict[str, Any]):
    plain, watched = (build(optimizer=optimizer, dropout=0.5) for _ in range(2))
    torch.manual_seed(5)
    fit(plain, steps=12)
    torch.manual_seed(5)
    fit(watched, NTKMonitor(every_n_steps=1, **options), steps=12)
    assert same(plain, watched)


def test_nothing_of_a_kernel_is_kept_over_the_batch(monkeypatch: pytest.MonkeyPatch):
    kept: list[weakref.ref[NTK]] = []

    def watched(kernel: NTK, tensors: Any, keep: Any = predicted_decrease.kept_apart) -> NTK:
        apart = keep(kernel, tensors)
        kept.append(weakref.ref(apart))
        return apart

    def look(*_: Any) -> None:
        gc.collect()
        assert [reference for reference in kept if reference() is not None] == []

    monkeypatch.setattr(predicted_decrease, "kept_apart", watched)
    train(make(Noted), NTKMonitor(every_n_steps=1), calling(on_train_batch_start=look), steps=3)
    assert len(kept) == 3


def test_other_callbacks_may_go_by_the_ratio():
    seen: list[float | None] = []
    monitor = NTKMonitor(every_n_steps=2)
    note = lambda run, *_: seen.append(run.callback_metrics.get(RATIO))  # noqa: E731
    train(make(Noted), monitor, calling(on_train_batch_end=note), steps=5)
    found = ratios(monitor)
    assert seen == [None, found[0], found[0], found[2], found[2]]


class Straight(Noted):
    """u(x) = a x + b, for which a step of any length does what is foretold."""

    def __init__(self, lr: float) -> None:
        super().__init__(optimizer=sgd(lr))
        self.net = nn.Linear(1, 1).double()

    def residuals(self, batch: Any) -> Residuals:
        return {"pde": self.net(batch["x"]) - torch.sin(3 * batch["x"]), "bc": self.net(batch["x"])}


@pytest.mark.parametrize(("lr", "sign"), [(0.01, "fell"), (2.0, "rose")])
def test_of_a_step_that_does_what_the_kernel_says_nothing_is_said(lr: float, sign: str):
    module, monitor = make(Straight, lr), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=3)
    assert ratios(monitor) == pytest.approx({0: 1, 1: 1}, rel=1e-8)
    assert "Prediction" not in monitor.panel.summary()
    state = monitor.state_dict()
    late = state["diagnostics"]["late"]["predicted_decrease"]["facts"]
    assert (late["step"], late["predicted"] < 0) == (1, sign == "rose")
    again = NTKMonitor(every_n_steps=1)
    again.load_state_dict(state)
    assert again.state_dict()["diagnostics"]["late"] == state["diagnostics"]["late"]


@pytest.mark.parametrize(
    ("ratio", "predicted", "sentence"),
    [
        (1.04, 0.5, "NOT Prediction"),
        (0.8, 0.5, "NOT Prediction"),
        (1.6, 0.5, "by the step at 7 the loss fell by 1.6 times what the kernel says. It does not"),
        (-0.3, 0.5, "rose, by 0.3 times the fall that the kernel says. It does not explain"),
        (1.01, -0.5, "NOT Prediction"),
        (1.6, -0.5, "rose by 1.6 times what the kernel says. It does not"),
        (-0.3, -0.5, "fell, by 0.3 times the rise that the kernel says. It does not"),
        (0.9, None, "NOT Prediction"),
        (-0.3, None, "changed, by 0.3 times the change that the kernel says. It"),
    ],
)
def test_sentences(ratio: float, predicted: float | None, sentence: str):
    facts = {"step": 7, "ratio": ratio, "predicted": predicted}
    assert says(said(predicted_decrease=facts), sentence)
    assert "Prediction" not in said()


class HalfCut(Noted):
    """u_xx is made without its graph, so that the parameters are seen to move it by u alone."""

    def __init__(self, whole: bool) -> None:
        super().__init__(optimizer=sgd(1e-5))
        self.whole = whole

    def residuals(self, batch: Any) -> Residuals:
        x = batch["x"].clone().requires_grad_()
        u = self.net(3 * x)
        (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=self.whole, retain_graph=True)
        return {"pde": 3 * u_xx + u - 1, "bc": self.net(3 * batch["ends"])}


@pytest.mark.parametrize("whole", [True, False])
def test_a_derivative_that_is_cut_off_is_named_however_short_the_step(whole: bool):
    module, monitor = make(HalfCut, whole), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=3)
    text = monitor.panel.summary()
    assert ("It does not explain that step" in text) is not whole
    assert ("a derivative in them is cut off" in text) is not whole
