"""The forecast of a measured step in a real Trainer: when it is judged, and what against."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pinn_ntk import tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks import log_writer as logbook
from pinn_ntk.callbacks import predicted_decrease as outlook
from pinn_ntk.callbacks.predicted_decrease import Outlook
from pinn_ntk.callbacks.step.parameters import learning_rate
from pinn_ntk.callbacks.step.step_inputs import RandomStates
from pinn_ntk.errors import NTKWarning
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.kernel.ntk import NTK
from tests.pinn import N_BC, N_PDE, Pinn, batch, build, fit, same, trainer
from tests.zoo import Inverse, Manual, Noted, Resampled, Residuals, Stream, TwoNetworks, make, train

RATIO = "ntk/predicted_decrease_ratio"
D = np.array([2 / N_PDE] * N_PDE + [2 / N_BC] * N_BC)


class Seen(Noted):
    """Keeps residuals, Jacobian and parameters of the first evaluation of every step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.step not in self.seen:
            residuals = Pinn.residuals(self, batch)
            rows = torch.cat([r.flatten() for r in residuals.values()])
            theta = torch.cat([p.detach().flatten() for p in self.parameters()])
            J = reference_jacobian(rows, list(self.parameters()))
            self.seen[self.step] = rows.detach().numpy(), J.numpy(), theta.numpy()
        return super().training_step(batch, batch_idx)

    def ratio(self, step: int, weights: np.ndarray | float = 1.0) -> float:
        (r, J, theta), (after, _, moved) = self.seen[step], self.seen[step + 1]
        linear = r + J @ (moved - theta)
        before, predicted, measured = (weights * D @ x**2 / 2 for x in (r, linear, after))
        return float((before - measured) / (before - predicted))


def ratios(monitor: NTKMonitor) -> dict[int, float]:
    return {int(step): float(value) for step, value in monitor.history.get(RATIO, [])}


# --- Against a computation by hand


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
def test_the_ratio_is_that_of_the_step_taken(optimizer: str):
    module, monitor = make(Seen, optimizer=optimizer), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=7)
    expected = {step: module.ratio(step) for step in (0, 2, 4)}
    assert ratios(monitor) == pytest.approx(expected, rel=1e-8)
    assert all(abs(value - 1) < 0.5 for value in expected.values())  # it says something


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
    live, probe, route = (
        NTKMonitor(every_n_steps=2),
        NTKMonitor(every_n_steps=2, probe="residuals", prefix="probe"),
        NTKMonitor(every_n_steps=2, residuals="residuals", prefix="route"),
    )
    train(module, live, probe, route, steps=5)
    expected = {step: module.ratio(step) for step in (0, 2)}
    assert ratios(live) == pytest.approx(expected, rel=1e-8)
    for monitor, prefix in ((probe, "probe"), (route, "route")):
        found = dict(monitor.history[f"{prefix}/predicted_decrease_ratio"])
        last = found.pop(4)
        assert found == pytest.approx(expected, rel=1e-8)
        assert abs(last - 1) < 0.5


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_in_low_precision_the_ratio_is_about_that_of_double(precision: Any):
    """In bf16 the noise of the loss is 32 / 256 of it: only long steps stand out."""
    exact, rough = NTKMonitor(every_n_steps=1), NTKMonitor(every_n_steps=1)
    train(make(Noted, optimizer="adam"), exact, steps=4)
    module = make(Noted, optimizer="adam", dtype=torch.float64)
    single = module.float()
    points = {name: x.float() for name, x in batch().items()}
    train(single, rough, steps=4, batches=[points] * 4, precision=precision)
    for step, value in ratios(rough).items():
        assert value == pytest.approx(ratios(exact)[step], rel=0.02 if "32" in precision else 0.5)
    assert precision != "32-true" or list(ratios(rough)) == [0, 1, 2]


@pytest.mark.parametrize("reshaped", [False, True])
def test_tapped_residuals_have_the_ratio_of_their_terms(reshaped: bool):
    class Tapped(Seen):
        def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
            found = {n: tap(r.flatten() if reshaped else r, n) for n, r in residuals.items()}
            return {n: r.reshape(2, -1).square().mean() for n, r in found.items()}

    module, monitor = make(Tapped), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=3)
    expected = {step: module.ratio(step) for step in (0, 1)}
    assert ratios(monitor) == pytest.approx(expected, rel=1e-8)


def test_a_loss_scale_and_a_weight_of_all_terms_change_nothing():
    class Scaled(Seen):
        def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: 1e6 * loss for name, loss in super().losses(residuals).items()}

    def steps(module: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=1e-9)

    module, monitor = make(Scaled, optimizer=steps), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=3)
    assert ratios(monitor) == pytest.approx({s: module.ratio(s) for s in (0, 1)}, rel=1e-6)


# --- No number


def test_points_drawn_anew_have_no_ratio_and_no_warning():
    monitor = NTKMonitor(every_n_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NTKWarning)
        train(make(Resampled), monitor, steps=4)
    assert RATIO not in monitor.history
    assert "ntk/interference/pde/bc" in monitor.history


class Changing(Noted):
    """Residuals that are another function of the parameters in each step, at the same points."""

    def __init__(self, change: str, **options: Any) -> None:
        super().__init__(**options, dropout=0.3 if change == "dropout" else 0.0)
        self.change = change
        self.register_buffer("weight", torch.ones((), dtype=torch.float64))
        self.register_buffer("running_mean", torch.zeros(()))
        head = nn.Linear(1, 1).double().requires_grad_(change == "trained")
        if change == "rrelu":
            self.net[1] = nn.RReLU().double()
        self.head = head

    def residuals(self, batch: Any) -> Residuals:
        found = super().residuals(batch)
        if self.change == "buffer":
            self.weight = self.weight * 1.5
        if self.change == "statistic":
            self.running_mean = self.running_mean + 1
        if self.change == "torch":
            found["bc"] = found["bc"] + 0.1 * torch.randn_like(found["bc"])
        if self.change == "numpy":
            found["bc"] = found["bc"] + np.random.rand()  # noqa: NPY002
        if self.change == "python":
            found["bc"] = found["bc"] + random.random()
        noise = torch.as_tensor(batch.get("noise", 0.0))
        found["bc"] = self.head(self.weight.sqrt() * found["bc"]) + noise
        return found

    def on_train_batch_end(self, *_: Any) -> None:
        super().on_train_batch_end()
        if self.change == "frozen":
            with torch.no_grad():
                self.head.weight.mul_(1.5)


DRAWN = ["dropout", "rrelu", "torch", "numpy", "python"]
MOVED = ["buffer", "frozen", "target", "number", "array"]
STILL = ["none", "statistic", "trained"]


def noisy(change: str) -> list[Any]:
    noise = {
        "target": lambda i: torch.full((N_BC, 1), float(i), dtype=torch.float64),
        "number": float,
        "array": lambda i: np.full((), float(i)),
    }
    return [batch() | ({"noise": noise[change](i)} if change in noise else {}) for i in range(6)]


class Plain(DataLoader):  # type: ignore[type-arg]
    """Leaves arrays and numbers of a batch as they are."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__(batches, batch_size=None, collate_fn=lambda item: item)


@pytest.mark.parametrize("change", [*DRAWN, *MOVED, *STILL])
def test_another_residual_function_at_the_same_points_has_no_ratio(change: str):
    """Every other step is measured, so that steps judge that are not due."""
    module, monitor = make(Changing, change=change), NTKMonitor(every_n_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NTKWarning)
        trainer(monitor, steps=5).fit(module, Plain(noisy(change)))
    assert list(ratios(monitor)) == ([0, 2] if change in STILL else [])
    assert "ntk/interference/pde/bc" in monitor.history


@pytest.mark.parametrize("step", [1, 2])
def test_random_numbers_in_either_step_leave_it_unjudged(step: int):
    class Once(Noted):
        def residuals(self, batch: Any) -> Residuals:
            found = super().residuals(batch)
            if self.step == step:
                found["bc"] = found["bc"] + torch.rand_like(found["bc"])
            return found

    monitor = NTKMonitor(every_n_steps=1)
    train(make(Once), monitor, steps=5)
    assert list(ratios(monitor)) == [s for s in range(4) if s not in (step - 1, step)]


@pytest.mark.parametrize("options", [{"residuals": "residuals"}, {"probe": "residuals"}])
@pytest.mark.parametrize(
    ("change", "optimizer"), [("dropout", "lbfgs"), *((change, "sgd") for change in DRAWN)]
)
def test_a_function_is_judged_with_the_random_numbers_that_it_had(
    change: str, options: dict[str, Any], optimizer: str
):
    """Hence the ratio of a short step is near 1; the run goes on with numbers of its own."""

    def short(module: Any) -> torch.optim.Optimizer:
        if optimizer == "sgd":
            return torch.optim.SGD(module.parameters(), lr=1e-6)
        return torch.optim.LBFGS(module.parameters(), lr=1e-6, max_iter=3)

    def seeded() -> Changing:
        module = make(Changing, change=change, optimizer=short)
        random.seed(2)
        np.random.seed(2)  # noqa: NPY002
        torch.manual_seed(2)
        return module

    plain = seeded()
    train(plain, steps=3)
    after = random.random(), np.random.rand(), torch.rand(())  # noqa: NPY002
    module, monitor = seeded(), NTKMonitor(every_n_steps=1, **options)
    train(module, monitor, steps=3)
    assert after == (random.random(), np.random.rand(), torch.rand(()))  # noqa: NPY002
    assert same(plain, module)
    assert ratios(monitor) == pytest.approx(dict.fromkeys(range(3), 1.0), abs=0.01)


@pytest.mark.parametrize("options", [{"residuals": "residuals"}, {"probe": "residuals"}])
def test_a_function_that_changes_within_the_step_has_no_ratio(options: dict[str, Any]):
    class Late(Changing):
        def on_before_optimizer_step(self, *_: Any) -> None:
            self.weight.mul_(1.5)

    monitor = NTKMonitor(every_n_steps=1, **options)
    train(make(Late, change="none"), monitor, steps=4)
    assert RATIO not in monitor.history
    assert "ntk/interference/pde/bc" in monitor.history


def test_a_step_that_is_neither_measured_nor_judges_looks_at_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    looked: list[tuple[str, int]] = []

    def counted(what: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def look(*arguments: Any) -> Any:
            looked.append((what, module.step))
            return do(*arguments)

        return look

    monkeypatch.setattr(RandomStates, "now", counted("random", RandomStates.now))
    monkeypatch.setattr(outlook, "setting", counted("setting", outlook.setting))
    module = make(Noted)
    train(module, NTKMonitor(every_n_steps=4), steps=8)
    assert sorted(set(looked)) == [
        *(("random", step) for step in (0, 1, 4, 5, 7)),
        *(("setting", step) for step in (0, 1, 4, 5, 7)),
    ]


def test_points_that_are_overwritten_before_the_step_have_no_ratio():
    """The factors of a kernel may be views of them."""

    class Refilled(Noted):
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

    found = []
    for spoils in (False, True):
        monitor = NTKMonitor(every_n_steps=1)
        train(make(Refilled, spoils=spoils), monitor, steps=4)
        found.append(list(ratios(monitor)))
    assert found == [[0, 1, 2], []]


@pytest.mark.parametrize("draws", [0, 1])
def test_a_function_that_draws_points_is_judged_on_those_it_drew(draws: int):
    class Drawing(Resampled):
        def on_after_backward(self) -> None:
            torch.rand(draws)

    route = NTKMonitor(every_n_steps=1, residuals="residuals")
    probe = NTKMonitor(every_n_steps=1, probe="on_grid", prefix="probe")
    train(make(Drawing), route, probe, steps=4)
    assert list(ratios(route)) == [0, 1, 2, 3]
    assert len(probe.history["probe/predicted_decrease_ratio"]) == 4


def test_no_ratio_without_a_step_of_the_optimizer():
    monitor = NTKMonitor(every_n_steps=1)
    train(make(Noted), monitor, steps=3, accumulate_grad_batches=2)
    still = NTKMonitor(every_n_steps=1)
    train(make(Noted, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.0)), still, steps=3)
    assert RATIO not in {*monitor.history, *still.history}


def test_no_ratio_where_somebody_else_moves_the_parameters():
    class Clamped(Noted):
        def on_train_batch_end(self, *_: Any) -> None:
            super().on_train_batch_end()
            if self.batches == 3:
                with torch.no_grad():
                    self.net[0].weight.mul_(0.99)

    monitor = NTKMonitor(every_n_steps=1)
    train(make(Clamped), monitor, steps=6)
    assert list(ratios(monitor)) == [0, 1, 3, 4]


@pytest.mark.parametrize("options", [{"params": "net.0.*"}, {"include": "pde"}])
def test_part_of_the_parameters_predicts_nothing_part_of_the_terms_itself(options: dict[str, str]):
    module, monitor = make(Seen), NTKMonitor(every_n_steps=1, **options)  # type: ignore[arg-type]
    train(module, monitor, steps=3)
    if "params" in options:
        assert RATIO not in monitor.history
        return
    of_pde = np.array([1.0] * N_PDE + [0.0] * N_BC)
    expected = {step: module.ratio(step, of_pde) for step in (0, 1)}
    assert ratios(monitor) == pytest.approx(expected, rel=1e-8)


def test_an_undefined_term_has_no_ratio():
    class Diverged(Noted):
        def residuals(self, batch: Any) -> Residuals:
            found = super().residuals(batch)
            found["bc"] = found["bc"] + (float("nan") if self.step == 2 else 0.0)
            return found

        def on_after_backward(self) -> None:
            for p in self.parameters():
                p.grad.nan_to_num_(nan=0.0)  # type: ignore[union-attr]

    monitor = NTKMonitor(every_n_steps=1)
    train(make(Diverged), monitor, steps=5)
    assert list(ratios(monitor)) == [0, 3]  # 1 meets NaN after its step, 2 before


def test_weights_of_points_cannot_be_carried_to_a_probe():
    class Causal(Noted):
        def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
            weights = torch.linspace(1, 2, N_PDE, dtype=torch.float64)[:, None]
            pde = (weights * residuals["pde"] ** 2).mean()
            return {"pde": pde, "bc": residuals["bc"].square().mean()}

    live = NTKMonitor(every_n_steps=1)
    probe = NTKMonitor(every_n_steps=1, probe="residuals", prefix="probe")
    train(make(Causal), live, probe, steps=3)
    assert list(ratios(live)) == [0, 1]
    assert not [tag for tag in probe.history if "predicted" in tag or "interference" in tag]
    assert "ntk/interference/pde/bc" in live.history


# --- What else happens in a fit


def test_manual_steps_of_several_optimizers():
    module, monitor = make(TwoNetworks, manual=True), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=8)
    assert list(ratios(monitor)) == [0, 1, 2]
    assert all(np.isfinite(value) for value in ratios(monitor).values())


@pytest.mark.parametrize("options", [{}, {"taps": True}, {"raw": True, "taps": True}])
def test_manual_and_raw_backward_passes(options: dict[str, bool]):
    monitor = NTKMonitor(every_n_steps=1)
    train(make(Manual, **options), monitor, steps=4)
    known = [] if "raw" in options else [0, 1, 2]  # without the loss no weights are known
    assert list(ratios(monitor)) == known
    assert ("ntk/interference/pde/bc" in monitor.history) == bool(known)


def test_a_resumed_run_judges_the_step_before_its_first(tmp_path: Path):
    def go_on(steps: int, ckpt: Path | None = None) -> tuple[NTKMonitor, pl.Trainer]:
        monitor, module = NTKMonitor(every_n_steps=2), make(Noted, optimizer="adam")
        run = trainer(monitor, steps=steps)
        run.fit(module, Stream(pack=lambda _: batch()), ckpt_path=ckpt)  # type: ignore[arg-type]
        return monitor, run

    whole, _ = go_on(6)
    first, run = go_on(3)
    assert list(ratios(first)) == [0]  # step 2 is the last of this fit
    run.save_checkpoint(tmp_path / "c.ckpt")
    second, _ = go_on(6, tmp_path / "c.ckpt")
    assert list(ratios(second)) == [0, 2, 4]
    assert ratios(second) == ratios(whole)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_holds_the_forecast_that_waits(way: Callable[[NTKMonitor], NTKMonitor]):
    class Copy(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            waiting.append(way(monitor).state_dict()["outlook"].get("step"))

    waiting: list[int | None] = []
    monitor = NTKMonitor(every_n_steps=2)
    train(make(Noted), Copy(), monitor, steps=4)
    assert waiting == [None, 0, None, 2]
    state = way(monitor).state_dict()["outlook"]
    assert state.keys() == {
        *("step", "terms", "loss", "predicted", "unit", "fingerprints", "setting", "parameters")
    }
    assert state["step"] == 3


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_monitor_may_be_copied_and_pickled_inside_a_batch(way: Callable[[Any], Any]):
    """Then kernel, graphs and batch stay behind, and only what is plain goes along."""

    class Copy(pl.Callback):
        def on_before_optimizer_step(self, *_: Any) -> None:
            twin = way(monitor)
            kept.append((monitor._outlook.is_open, twin._outlook.is_open))
            assert {**monitor.source.recorder.logged}.keys() == {"pde", "bc"}
            assert twin.source.recorder.logged == {}
            assert twin.history["ntk/lr"].tolist() == monitor.history["ntk/lr"].tolist()

    kept: list[tuple[bool, bool]] = []
    monitor = NTKMonitor(every_n_steps=1)
    train(make(Noted), monitor, Copy(), steps=3)
    assert kept == [(True, False)] * 3
    assert list(ratios(monitor)) == [0, 1]


def test_another_fit_does_not_judge_the_last_step_of_the_one_before():
    module, monitor = build(), NTKMonitor(every_n_steps=2)
    fit(module, monitor, steps=3)
    fit(module, monitor, steps=3)
    assert list(ratios(monitor)) == [0, 3]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("options", [{}, {"probe": "residuals"}, {"residuals": "residuals"}])
def test_training_is_bit_identical_at_every_step(optimizer: str, options: dict[str, Any]):
    plain, watched = (build(optimizer=optimizer, dropout=0.5) for _ in range(2))
    torch.manual_seed(5)
    fit(plain, steps=12)
    torch.manual_seed(5)
    fit(watched, NTKMonitor(every_n_steps=1, **options), steps=12)
    assert same(plain, watched)


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no such luck.")


@pytest.mark.parametrize("place", ["begin", "after_batch", "before_backward"])
def test_a_forecast_that_fails_warns_once_and_leaves_the_rest(
    place: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Outlook, place, broken)
    module, monitor = make(Noted), NTKMonitor(every_n_steps=1)
    with pytest.warns(
        NTKWarning, match="the predicted decrease failed with RuntimeError"
    ) as warned:
        train(module, monitor, steps=4)
    assert len([w for w in warned if issubclass(w.category, NTKWarning)]) == 1
    assert RATIO not in monitor.history
    assert [int(step) for step, _ in monitor.history["ntk/lr"]] == [0, 1, 2, 3]


def test_nothing_of_a_kernel_is_kept_over_the_batch(monkeypatch: pytest.MonkeyPatch):
    kept: list[weakref.ref[NTK]] = []

    def watched(kernel: NTK, tensors: Any, keep: Callable[..., NTK] = outlook.kept_apart) -> NTK:
        apart = keep(kernel, tensors)
        kept.append(weakref.ref(apart))
        return apart

    class Look(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            gc.collect()
            assert [reference for reference in kept if reference() is not None] == []

    monkeypatch.setattr(outlook, "kept_apart", watched)
    train(make(Noted), NTKMonitor(every_n_steps=1), Look(), steps=3)
    assert len(kept) == 3


def test_other_callbacks_may_go_by_the_ratio():
    class Ask(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            value = trainer.callback_metrics.get(RATIO)
            seen.append(None if value is None else float(value))

    seen: list[float | None] = []
    monitor = NTKMonitor(every_n_steps=2)
    train(make(Noted), monitor, Ask(), steps=5)
    found = ratios(monitor)
    assert seen == [None, found[0], found[0], found[2], found[2]]


class Straight(Noted):
    """u(x) = a x + b, for which a step of any length does what is foretold."""

    def __init__(self, lr: float) -> None:
        super().__init__(optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=lr))
        self.net = torch.nn.Linear(1, 1).double()  # type: ignore[assignment]

    def residuals(self, batch: Any) -> Residuals:
        return {"pde": self.net(batch["x"]) - torch.sin(3 * batch["x"]), "bc": self.net(batch["x"])}


@pytest.mark.parametrize(("lr", "sign"), [(0.01, "fell"), (2.0, "rose")])
def test_the_summary_says_whether_the_loss_fell_or_rose(
    lr: float, sign: str, monkeypatch: pytest.MonkeyPatch
):
    texts: list[str] = []
    monkeypatch.setattr(logbook, "log_text", lambda _, __, text, step: texts.append(text))
    module, monitor = make(Straight, lr), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=3)
    assert ratios(monitor) == pytest.approx({0: 1, 1: 1}, rel=1e-8)
    assert "Prediction" not in texts[0]
    assert f"by the step at 1 the loss {sign} as much as the kernel says" in texts[-1]
    state = monitor.state_dict()
    step, _, predicted = state["book"]["judged"]
    assert (step, predicted < 0) == (1, sign == "rose")
    again = NTKMonitor(every_n_steps=1)
    again.load_state_dict(state)
    assert again.state_dict()["book"]["judged"] == state["book"]["judged"]
    del state["book"]["judged"]  # as in checkpoints of before
    again.load_state_dict(state)
    assert again.state_dict()["book"]["judged"] == []


# --- Parts


def test_the_learning_rate_is_the_largest_of_the_groups_and_of_the_optimizer_that_steps():
    module = make(Inverse, optimizer="adam")
    monitor = NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=2)
    assert monitor.history["ntk/lr"].tolist() == [[0, 0.1], [1, 0.1]]


class Scheduled(Noted):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return [optimizer], [{"scheduler": halving, "interval": "step"}]


def test_the_learning_rate_follows_its_schedule():
    module, monitor = make(Scheduled), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=4)
    expected = [[step, 0.01 / 2**step] for step in range(4)]
    np.testing.assert_allclose(monitor.history["ntk/lr"], expected, rtol=1e-14)


def test_no_learning_rate_where_it_is_not_clear_whose():
    run = trainer(steps=1)
    module = make(TwoNetworks, manual=True)
    first, second = (
        torch.optim.SGD(net.parameters(), lr=lr)
        for net, lr in ((module.net, 0.1), (module.source, 0.2))
    )
    run.strategy.optimizers = [first, second]
    params = dict(module.named_parameters())
    assert learning_rate(run, params, None) is None
    assert learning_rate(run, {n: p for n, p in params.items() if "source" in n}, None) == 0.2
    del second.param_groups[0]["lr"]
    assert learning_rate(run, {n: p for n, p in params.items() if "source" in n}, None) is None
