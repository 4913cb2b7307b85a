"""Both callbacks under automatic optimisation, whatever optimizer, schedule and precision."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn

from pinn_ntk import LossWeights, tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.by_hand import wang_weights
from tests.pinn import N_BC, N_PDE, OPTIMIZERS, Pinn, batch, calling, same, trainer
from tests.zoo import (
    CutOff,
    Explicit,
    Noted,
    assert_close,
    assert_series,
    assert_terms,
    assert_traces,
    compare,
    make,
    series,
    steps_of,
    train,
)


def decay_groups(module: Any) -> torch.optim.Optimizer:
    """Biases first and undecayed, weights after them: not in the order of the module."""
    split: dict[bool, list[Tensor]] = {True: [], False: []}
    for p in module.parameters():
        split[p.ndim > 1].append(p)
    groups = [{"params": split[False], "weight_decay": 0.0}, {"params": split[True], "lr": 0.02}]
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)


def plateau(module: Any) -> dict[str, Any]:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
    config = {"scheduler": schedule, "monitor": "pde", "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": config}


def step_schedule(module: Any) -> Any:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def frozen_layer(module: Any) -> torch.optim.Optimizer:
    module.net[0].requires_grad_(requires_grad=False)
    return torch.optim.Adam(module.parameters(), lr=0.01)


WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adam": ("adam", {}),
    "adamw_groups": (decay_groups, {}),
    "frozen_layer": (frozen_layer, {}),
    "step_schedule": (step_schedule, {}),
    "plateau": (plateau, {}),
    "accumulated": ("adam", {"accumulate_grad_batches": 2}),
    "clipped_norm": ("sgd", {"gradient_clip_val": 0.1}),
    "clipped_value": ("sgd", {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}),
}


EACH_WAY = pytest.mark.parametrize(("optimizer", "options"), WAYS.values(), ids=list(WAYS))


@EACH_WAY
def test_what_is_logged_is_the_kernel_of_the_step_and_training_the_same(
    optimizer: Any, options: dict[str, Any]
):
    monitor = NTKMonitor(every_n_steps=3)
    module, _ = compare(Noted, monitor, fit={"steps": 6, **options}, optimizer=optimizer)
    assert_traces(monitor, module, [0, 3, 5])
    assert_series(monitor, "ntk/drift/parameters", module.moved, [0, 3, 5])
    assert_terms(monitor, "effective_weight", lambda _: {"pde": 1, "bc": 1}, [0, 3, 5], rel=1e-12)


@EACH_WAY
def test_balanced_training_is_that_of_a_loss_weighted_by_hand(
    optimizer: Any, options: dict[str, Any]
):
    balancer, fit = NTKBalancer(every_n_steps=3), {"steps": 6, **options}
    module, hand = compare(Noted, balancer, weigh_every=3, fit=fit, optimizer=optimizer)
    plain = make(Noted, optimizer=optimizer)
    train(plain, **fit)
    assert balancer.weights == pytest.approx(hand.weights, rel=1e-9)
    with pytest.raises(AssertionError):
        assert_close(module, plain, rel=1e-3)  # the weights make a difference


# --- Precision


class Scaled(MixedPrecision):
    """The gradient scaler of 16-mixed without the rounding, so that only the factor is left."""

    def __init__(self, scale: float = 2.0**16) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
        super().__init__("16-mixed", "cpu", scaler=scaler)

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)


def curvature(module: Noted, step: int) -> float:
    """Largest eigenvalue of the Hessian that Gauss and Newton would take."""
    scaled = {"pde": (2 / N_PDE) ** 0.5, "bc": (2 / N_BC) ** 0.5}
    J = torch.cat([scaled[name] * J for name, J in module.jacobians[step].items()])
    return float(torch.linalg.eigvalsh(J @ J.T)[-1])


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}])
def test_the_scale_of_the_loss_is_not_seen(options: dict[str, Any]):
    plain, module = make(Noted, optimizer="adam"), make(Noted, optimizer="adam")
    monitor = NTKMonitor(every_n_steps=2)
    train(plain, steps=5, **options)
    train(module, monitor, steps=5, plugins=[Scaled()], **options)
    assert same(plain, module)  # a power of two costs no digit
    assert_traces(monitor, module, [0, 2, 4])
    assert_series(monitor, "ntk/max_stable_lr", lambda s: 2 / curvature(module, s), [0, 2, 4])
    assert_series(monitor, "ntk/effective_weight/pde", lambda _: 1.0, [0, 2, 4], rel=1e-12)


def test_balanced_training_does_not_see_the_scale_of_the_loss():
    results = []
    for plugins in ([], [Scaled()]):
        module, balancer = make(Noted, optimizer="adam"), NTKBalancer(every_n_steps=2)
        monitor = NTKMonitor(every_n_steps=2)
        train(module, balancer, monitor, steps=5, plugins=plugins)
        results.append((module, balancer.weights, series(monitor, "ntk/effective_weight/bc")))
    (plain, weights, effective), (scaled, of_scaled, effective_scaled) = results
    assert same(plain, scaled)
    assert of_scaled == weights
    assert effective_scaled == pytest.approx(effective, rel=1e-12)
    assert effective[4] == pytest.approx(weights["bc"], rel=1e-12)


def test_double_precision_by_lightning_keeps_all_digits():
    module, monitor = make(Noted, dtype=torch.float32), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=3, batches=[batch(torch.float32)] * 3, precision="64-true")
    assert next(module.parameters()).dtype == torch.float64
    assert_traces(monitor, module, [0, 2])
    assert_series(monitor, "ntk/max_stable_lr", lambda s: 2 / curvature(module, s), [0, 2])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_measures_without_complaints_and_within_its_digits(dtype: str):
    half = {"precision": "bf16-mixed"}
    if dtype == "fp16":
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        half = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
    results = []
    for options in ({}, half):
        module, monitor = make(Noted, dtype=torch.float32), NTKMonitor(every_n_steps=1)
        train(module, monitor, steps=2, batches=[batch(torch.float32)] * 2, **options)
        results.append(monitor)
    whole, rounded = results
    for tag in ("ntk/trace/pde", "ntk/trace/bc", "ntk/lambda_max/bc", "ntk/max_stable_lr"):
        assert series(rounded, tag) == pytest.approx(series(whole, tag), rel=0.05), tag
        assert series(rounded, tag) != series(whole, tag)  # it was half precision
    assert_terms(rounded, "effective_weight", lambda _: {"pde": 1, "bc": 1}, [0, 1], rel=0.01)


# --- Losses that hold their weights: LossWeights


def by_closure(steps: int, every: int, optimizer: torch.optim.Optimizer, module: Pinn) -> Any:
    """A plain loop: weights of the first evaluation of a step act from the next one on.

    With new weights the loss is another one, of which L-BFGS remembers nothing.
    """
    weights = {"pde": 1.0, "bc": 1.0}
    history = []
    for step in range(steps):
        new = wang_weights(module.residuals(batch()), module)

        def closure(weights: dict[str, float] = weights) -> Tensor:
            losses = module.losses(module.residuals(batch()))
            loss = weights["pde"] * losses["pde"] + weights["bc"] * losses["bc"]
            optimizer.zero_grad()
            loss.backward()
            return loss

        optimizer.step(closure)
        if step % every == 0:
            weights = new
            if isinstance(optimizer, torch.optim.LBFGS):
                optimizer.state.clear()
        history.append(weights)
    return history


@pytest.mark.parametrize("optimizer", ["lbfgs", "wolfe", "adam"])
def test_explicit_weights_are_updated_after_the_batch(optimizer: str):
    hand = make(Pinn)
    expected = by_closure(5, 2, OPTIMIZERS[optimizer](hand.parameters()), hand)
    module = make(Explicit, optimizer=optimizer)
    balancer, seen = NTKBalancer(every_n_steps=2), []

    note = calling(on_train_batch_start=lambda *_: seen.append(module.loss_weights.as_dict()))
    train(module, balancer, note, steps=5)
    assert seen[0] == {"pde": 1.0, "bc": 1.0}
    for got, weights in zip([*seen[1:], balancer.weights], expected, strict=True):
        assert got == pytest.approx(weights, rel=1e-6)
    assert expected[0] == expected[1] != expected[2]
    assert_close(module, hand, rel=1e-6)


def test_explicit_weights_are_measured_once():
    """No hook multiplies the gradient by weights that the loss holds already."""
    module = make(Explicit, {"pde": 2.0, "bc": 5.0}, optimizer="adam")
    monitor, balancer = NTKMonitor(every_n_steps=1), NTKBalancer(every_n_steps=2)
    train(module, monitor, balancer, steps=4)
    assert_terms(monitor, "effective_weight", module.effective.get, range(4), rel=1e-12)
    assert module.effective[0] == {"pde": 2.0, "bc": 5.0}
    assert module.effective[1] == pytest.approx(module.rule(0), rel=1e-10)
    assert_traces(monitor, module, [0, 1, 2, 3])  # of the unweighted residuals


def mean(residual: Tensor) -> Tensor:
    return residual.square().mean()


BOTH = ["pde", "bc"]
HELD: dict[str, tuple[list[list[str]], Callable[[Any, Tensor, Tensor], Tensor]]] = {
    "in two": (
        [["pde"], ["bc"]],
        lambda held, r, b: held[0]({"pde": mean(r)}) + held[1]({"bc": mean(b)}),
    ),
    "of one name in two": (
        [BOTH, BOTH],
        lambda held, r, b: held[0]({"pde": mean(r)}) + held[1]({"bc": mean(b)}),
    ),
    "called twice": (
        [BOTH],
        lambda held, r, b: (
            held[0]({"pde": mean(r[:2]), "bc": mean(b)}) + held[0]({"pde": mean(r[2:])})
        ),
    ),
    "one a domain": (
        [BOTH, BOTH],
        lambda held, r, b: sum(
            weights({"pde": mean(r[half]), "bc": mean(b[half])})
            for weights, half in zip(held, (slice(2), slice(2, None)), strict=True)
        ),
    ),
}


class Held(Noted):
    """Holds weights in one or more places, and logs nothing."""

    def __init__(self, names: list[list[str]], weigh: Any, **options: Any) -> None:
        super().__init__(**options)
        self.held = nn.ModuleList([LossWeights(some).double() for some in names])
        self.weigh = weigh

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        self.note(residuals)
        return self.weigh(self.held, residuals["pde"], residuals["bc"])


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("kind", HELD)
def test_explicit_weights_of_one_name_are_one_wherever_they_stand(kind: str, optimizer: str):
    names, weigh = HELD[kind]
    module = make(Held, names=names, weigh=weigh, optimizer=optimizer)
    balancer = NTKBalancer(every_n_steps=2)
    train(module, balancer, steps=4)
    weights = module.rule(2)
    assert balancer.weights == pytest.approx(weights, rel=1e-10)
    for part in module.held:
        assert part.as_dict() == pytest.approx({n: weights[n] for n in part.names}, rel=1e-10)


def test_explicit_weights_are_in_the_checkpoint(tmp_path: Path):
    module, balancer = make(Explicit, optimizer="lbfgs"), NTKBalancer()
    run = train(module, balancer, steps=2)
    run.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    saved = state["loss_weights.values"]
    expected = [module.rule(0)[name] for name in module.loss_weights.names]
    assert saved.tolist() == pytest.approx(expected, rel=1e-10)
    assert saved.tolist() == [balancer.weights[name] for name in module.loss_weights.names]


def test_lbfgs_is_measured_at_the_first_evaluation_of_each_step():
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(Noted, monitor, fit={"steps": 4}, optimizer="lbfgs")
    assert_traces(monitor, module, [0, 2, 3])


# --- Several fits, short fits, fits that are cut off


def test_two_fits_count_on():
    module, monitor = make(Noted, optimizer="adam"), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=4)
    module.optimizer = "lbfgs"
    train(module, monitor, steps=4)
    assert_traces(monitor, module, [0, 2, 3, 4, 6, 7])
    assert_series(monitor, "ntk/drift/parameters", module.moved, [0, 2, 3, 4, 6, 7])


def test_the_same_trainer_goes_on():
    module, monitor = make(Noted, optimizer="adam"), NTKMonitor(every_n_steps=2)
    run = trainer(monitor, steps=-1, max_epochs=1)
    loader = torch.utils.data.DataLoader([batch()] * 4, batch_size=None)
    run.fit(module, loader)
    run.fit_loop.max_epochs = 2
    run.fit(module, loader)
    assert_traces(monitor, module, [0, 2, 3, 4, 6, 7])


LIMITS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "fast_dev_run": ({"steps": -1, "fast_dev_run": 4}, [0, 3]),
    "limited": ({"steps": -1, "max_epochs": 2, "limit_train_batches": 3}, [0, 3, 5]),
    "overfitted": ({"steps": -1, "max_epochs": 3, "overfit_batches": 2}, [0, 3, 5]),
    "out_of_time": ({"steps": -1, "max_time": timedelta(microseconds=1)}, [0]),
}


@pytest.mark.filterwarnings("ignore:You requested to overfit:UserWarning")
@pytest.mark.parametrize(("options", "steps"), LIMITS.values(), ids=list(LIMITS))
def test_short_fits(options: dict[str, Any], steps: list[int]):
    module, monitor = make(Noted, optimizer="adam"), NTKMonitor(every_n_steps=3)
    train(module, monitor, NTKBalancer(every_n_steps=2), **options)
    assert_traces(monitor, module, steps)
    assert steps_of(monitor, "ntk/trace/pde") == steps


@pytest.fixture
def _interrupts() -> Iterator[None]:
    """Lightning ignores the signal from the first Ctrl+C on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
@pytest.mark.parametrize(
    ("error", "seen"),
    [(KeyboardInterrupt(), SystemExit), (ZeroDivisionError("mine"), ZeroDivisionError)],
    ids=["ctrl_c", "exception"],
)
def test_a_fit_cut_off_leaves_nothing_behind(error: BaseException, seen: type[BaseException]):
    module = make(CutOff)
    module.error = error
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    with pytest.raises(seen):
        train(module, monitor, balancer, steps=6)
    assert_traces(monitor, module, [0, 2])
    assert "log" not in vars(module)
    before = copy.deepcopy(module.net)
    residual = module.residuals(batch())["pde"]
    tapped = tap(residual, "pde")
    assert tapped is residual
    assert not residual._backward_hooks
    (gradient,) = torch.autograd.grad(tapped.square().sum(), residual, retain_graph=True)
    assert torch.equal(gradient, 2 * residual)  # unweighted
    assert steps_of(monitor, "ntk/trace/pde") == [0, 2]
    assert same(before, module.net)
    assert np.isfinite(list(balancer.weights.values())).all()
