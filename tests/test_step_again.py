"""A running step run again: when it can be, what it is told, and that training does not notice."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from pinn_ntk import tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.step.computes import OfStep
from pinn_ntk.callbacks.step.kept_step import restored, state_of
from pinn_ntk.callbacks.step.measuring import fit_begins, fit_is_over, trains_alone
from pinn_ntk.callbacks.step.stand_in import StandIn
from pinn_ntk.diagnostics import Diagnostic, Reading
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.networks import zero
from pinn_ntk.looks.rerun import Change, Rerun
from tests.pinn import Pinn, batch, calling, fit, same, trainer
from tests.zoo import Manual, Noted, Residuals, SelfAdaptive, Stream, make

OF_STEP = OfStep({}, StandIn(pl.Trainer(logger=False)), None, 0, nullcontext)


class Asks(Diagnostic):
    """Runs each step measured again, as it was and at u = 0."""

    name = "asks"

    def __init__(self, twice: bool = True) -> None:
        self.why: list[str] = []
        self.at_zero: list[dict[str, float]] = []
        self.earlier: list[int] = []
        self.untrained = ""
        self.twice = twice

    def read(self, look: Look) -> Reading | None:
        self.why.append(look.no_rerun)
        self.earlier.append(len(look.earlier))
        self.untrained = look.untrained
        if look.rerun is None:
            return None
        ran = look.rerun()
        assert ran.residuals.keys() == look.residuals.keys()
        for name, residual in look.residuals.items():
            assert torch.equal(ran.residuals[name], residual)
        at_zero = look.rerun(Change(output=zero)).residuals
        self.at_zero.append({n: float(r.detach().square().mean()) for n, r in at_zero.items()})
        for old in look.earlier:
            old.with_parameters(dict(look.module.named_parameters()))()
        with torch.enable_grad():  # which is off in a raw backward pass
            total = sum(r.square().sum() for r in ran.residuals.values())
        torch.autograd.grad(
            total,
            list(ran.params.values()),
            allow_unused=True,
        )
        return None


def monitored(module: Any, every: int = 2, **options: Any) -> Asks:
    """What is said of each step of a fit beside a monitor that runs steps again."""
    asks = Asks()
    of_fit = {"steps": 6, **options.pop("fit", {})}
    monitor = NTKMonitor(every_n_steps=every, diagnostics=["verdict", asks], **options)
    fit(module, monitor, **of_fit)
    return asks


# --- Modules that draw, count, write and look around


class Resamples(Pinn):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        points = 2 * torch.rand(6, 1, dtype=torch.float64) - 1
        return super().training_step(batch | {"x": points}, batch_idx)


class Counts(Pinn):
    """Points of a sampler of its own that moves on, and a count of the calls."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.generator, self.numbers = torch.Generator().manual_seed(3), np.random.default_rng(3)
        self.calls, self.seen = 0, []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.calls += 1
        x = torch.rand(6, 1, dtype=torch.float64, generator=self.generator)
        x = x + 0.1 * float(self.numbers.random())
        self.seen.append(float(x.sum()))
        return super().training_step(batch | {"x": x}, batch_idx)


class Global(Pinn):
    """Numbers of numpy and Python's own."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        shift = 0.1 * random.random() + 0.1 * float(np.random.rand())  # noqa: NPY002
        return super().training_step(batch | {"x": batch["x"] + shift}, batch_idx)


class Normed(Pinn):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.norm = nn.BatchNorm1d(1, affine=False).double()

    def residuals(self, batch: Any) -> Residuals:
        return super().residuals(batch | {"ends": self.norm(batch["ends"])})


class Keeps(Pinn):
    """Tensors of the last step's graph in attributes, and a batch changed in place."""

    last: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch["x"].mul_(0.99)
        loss = super().training_step(batch, batch_idx)
        self.last = {"loss": loss, "history": [loss]}
        return loss


class Closure(Pinn):
    """A sampler made of a function that counts in what it encloses."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        count = 0

        def sample() -> Tensor:
            nonlocal count
            count += 1
            return torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None] * 0.9**count

        self.sample = sample

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch | {"x": self.sample()}, batch_idx)


class AtStart(Pinn):
    """Draws its points in a hook before the step."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self.points = torch.rand(6, 1, dtype=torch.float64)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch | {"x": self.points}, batch_idx)


class LooksAround(Pinn):
    """Reads the trainer, writes to its logger, prints."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.trainer.logger.experiment.add_scalar("mine", 1.0, self.global_step)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("rate", self.optimizers().param_groups[0]["lr"])
        print("step", self.global_step, self.trainer.max_steps, self.current_epoch)
        self.print("printed by rank zero")
        scale = 1 + self.global_step / self.trainer.max_steps
        return scale * super().training_step(batch, batch_idx)


class Layer(pl.LightningModule):
    """A LightningModule within another one, which reads the trainer."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.utils.parametrizations.weight_norm(nn.Linear(4, 1))
        self.layer = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), last).double()

    def forward(self, x: Tensor) -> Tensor:
        assert self.trainer.global_step >= 0
        return self.layer(x)  # type: ignore[no-any-return]


class Nested(Pinn):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = Layer()
        self.average = copy.deepcopy(self.net)

    def configure_optimizers(self) -> Any:
        self.optimizer_of_mine = torch.optim.Adam(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(self.optimizer_of_mine, 1)
        return [self.optimizer_of_mine], [schedule]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("lr", self.lr_schedulers().get_last_lr()[0])
        assert self.trainer.callback_metrics.get("nothing") is None
        return super().training_step(batch, batch_idx)


class OneArgument(Pinn):
    def training_step(self, batch: Any) -> dict[str, Any]:  # type: ignore[override]
        return {"loss": super().training_step(batch, 0), "other": 1}


LOSSES: list[float] = []
CALLS = 0
POINTS = torch.Generator()


class Sampled:
    drawn = 0
    kept: ClassVar[dict[str, float]] = {}


SAMPLED = Sampled()


class Globals(Pinn):
    """Writes down what it did outside of itself, and draws there."""

    count = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        global CALLS  # noqa: PLW0603
        CALLS += 1
        type(self).count += 1
        SAMPLED.drawn += 1
        Sampled.kept[str(CALLS)] = 1.0
        x = torch.rand(6, 1, dtype=torch.float64, generator=POINTS) * 0.9**CALLS
        loss = super().training_step(batch | {"x": x}, batch_idx)
        LOSSES.append(loss.item())
        return loss


def globals_now() -> tuple[Any, ...]:
    """What the module wrote down; begun anew."""
    global CALLS  # noqa: PLW0603
    found = CALLS, Globals.count, SAMPLED.drawn, [*Sampled.kept], [*LOSSES]
    CALLS = Globals.count = SAMPLED.drawn = 0
    Sampled.kept.clear()
    LOSSES.clear()
    POINTS.manual_seed(1)
    return found


class Tapped(Pinn):
    def residuals(self, batch: Any) -> Residuals:
        return {n: tap(r, n) for n, r in super().residuals(batch).items()}


MODULES: dict[str, Callable[[], Any]] = {
    "plain": lambda: make(Pinn, optimizer="adam"),
    "dropout": lambda: make(Pinn, optimizer="adam", dropout=0.3),
    "resamples": lambda: make(Resamples),
    "counts": lambda: make(Counts),
    "global": lambda: make(Global),
    "normed": lambda: make(Normed),
    "keeps": lambda: make(Keeps),
    "closure": lambda: make(Closure),
    "at_start": lambda: make(AtStart),
    "one_argument": lambda: make(OneArgument),
    "tapped": lambda: make(Tapped),
    "lbfgs": lambda: make(Pinn, optimizer="lbfgs"),
    "wolfe": lambda: make(Resamples, optimizer="wolfe"),
    "nested": lambda: make(Nested),
    "globals": lambda: make(Globals),
    "noted": lambda: make(Noted),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "once": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "mixed": {"precision": "bf16-mixed"},
    "clipped": {"gradient_clip_val": 0.1},
}


def drawn() -> tuple[Any, ...]:
    return torch.rand(1).item(), random.random(), float(np.random.rand())  # noqa: NPY002


def seeded(module: Any, *callbacks: pl.Callback, **options: Any) -> tuple[Any, ...]:
    """What is left of a fit: state, gradients, what would be drawn next, and logged values."""
    globals_now()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    run = fit(module, *callbacks, **({"steps": 6} | options))
    logged = {k: float(v) for k, v in run.callback_metrics.items() if not k.startswith("ntk")}
    return drawn(), logged, torch.is_grad_enabled(), globals_now()


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_training_does_not_notice(name: str, options: dict[str, Any]):
    module, plain = MODULES[name](), MODULES[name]()
    asks = Asks()
    monitor = NTKMonitor(every_n_steps=2, diagnostics=["verdict", asks])
    assert seeded(module, monitor, NTKMonitor(every_n_steps=3), **options) == seeded(
        plain, **options
    )
    known = name != "globals"  # what stands outside has moved on when the step is run again
    assert all(not why if known else "gives other residuals" in why for why in asks.why)
    assert same(module, plain)
    states = module.state_dict(), plain.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(a, states[1][key]) for key, a in states[0].items())
    assert vars(module).keys() == vars(plain).keys()
    for key in ("calls", "seen"):
        assert getattr(module, key, None) == getattr(plain, key, None)


@pytest.mark.parametrize("name", ["plain", "dropout", "counts"])
def test_several_fits_and_a_balancer(name: str):
    def two(*callbacks: Any) -> Any:
        module = MODULES[name]()
        torch.manual_seed(7)
        for _ in range(2):
            fit(module, NTKBalancer(every_n_steps=2), *callbacks, steps=4)
        return module

    asks = Asks()
    monitor = NTKMonitor(every_n_steps=2, diagnostics=["verdict", asks])
    assert same(two(monitor), two())
    assert asks.why == [""] * 6
    assert asks.earlier == [0, 1, 2, 2, 2, 2]


def test_the_trainer_is_read_and_not_used(tmp_path: Any, capsys: pytest.CaptureFixture[str]):
    def run(*callbacks: Any, folder: str) -> str:
        fit(make(LooksAround), *callbacks, logger=TensorBoardLogger(tmp_path / folder), steps=6)
        return capsys.readouterr().out

    asks = Asks()
    monitor = NTKMonitor(every_n_steps=2, diagnostics=["verdict", asks])
    assert run(monitor, folder="a") == run(folder="b")
    assert set(asks.why) == {""}


class OwnTrainer(pl.Trainer):
    """With settings of its own, as libraries have that make a Trainer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.logging_kwargs, self._hidden, self.net = {"sync": [1]}, 2, torch.nn.Linear(1, 1)


def test_plain_attributes_of_a_trainer_of_ones_own_are_there():
    trainer = OwnTrainer(logger=False)
    stand_in = StandIn(trainer)
    assert stand_in.logging_kwargs == {"sync": [1]}
    stand_in.logging_kwargs["sync"].append(2)  # what a step changes stays with the copy
    assert trainer.logging_kwargs == {"sync": [1]}
    assert stand_in.max_steps == trainer.max_steps
    for name in ("net", "_hidden"):
        with pytest.raises(AttributeError, match="is not there when a step is run again"):
            getattr(stand_in, name)


def test_at_zero_the_source_is_left():
    source = torch.sin(3 * batch()["x"]).square().mean()
    asks = monitored(make(Pinn))
    for at_zero in asks.at_zero:
        assert at_zero == {"pde": pytest.approx(float(source)), "bc": 0.0}


# --- After a restart


class Old(Diagnostic):
    """What is left at the points of steps measured before, as the network is now."""

    name = "old"

    def __init__(self) -> None:
        self.left: dict[int, list[float]] = {}

    def read(self, look: Look) -> None:
        now = {name: p.detach() for name, p in look.module.named_parameters()}
        ran = [old.with_parameters(now)().residuals["pde"] for old in look.earlier]
        self.left[look.step] = [float(r.detach().square().mean()) for r in ran]


class Scheduled(Counts):
    """Points and a factor that the step itself moves on, in attributes and a buffer."""

    def __init__(self, **options: Any) -> None:
        Pinn.__init__(self, **options)
        self.register_buffer("shift", torch.zeros(1, dtype=torch.float64))
        self.calls, self.grid = 0, {"x": torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.calls += 1
        self.shift += 0.01
        x = (self.grid["x"] + self.shift) * 0.99**self.calls + 0.01 * self.global_step
        return Pinn.training_step(self, batch | {"x": x}, batch_idx)


RESUMED: dict[str, tuple[type[Pinn], dict[str, Any], bool]] = {
    "batches": (Pinn, {}, True),
    "function": (Pinn, {"residuals": "residuals"}, True),
    "attributes": (Scheduled, {}, True),
    "generators": (Counts, {}, False),
}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
@pytest.mark.parametrize(("kind", "options", "known"), RESUMED.values(), ids=list(RESUMED))
def test_old_points_are_known_after_a_restart_where_that_is_certain(
    kind: type[Pinn], options: dict[str, Any], known: bool, tmp_path: Any
):
    def run(steps: int, ckpt: Any = None) -> tuple[Old, pl.Trainer]:
        torch.manual_seed(4)
        old, module = Old(), make(kind, optimizer="adam")
        monitor = NTKMonitor(steps=[0, 4, 8, 12], diagnostics=["verdict", old], **options)
        fitted = trainer(monitor, steps=steps, max_epochs=-1)
        module.calls = 0 if ckpt is None else 6
        fitted.fit(module, Stream(), ckpt_path=ckpt)
        return old, fitted

    whole, _ = run(14)
    _, half = run(6)
    half.save_checkpoint(tmp_path / "half.ckpt")
    states = torch.load(tmp_path / "half.ckpt", weights_only=True)["callbacks"].values()
    (progress,) = (state["progress"] for state in states)
    resumed, _ = run(14, tmp_path / "half.ckpt")
    assert [bool(state) for state in progress["earlier"]] == [known, known]
    # the run that was cut off measured its last step, 5, so that the step before differs at 8
    assert resumed.left[8][:1] == (whole.left[8][:1] if known else [])
    assert resumed.left[12] == (whole.left[12] if known else resumed.left[12][:1])
    assert len(set(whole.left[12])) == 2


def test_what_does_not_fit_is_left_out():
    rerun = Rerun(nn.Linear(1, 1), torch.zeros(1), OF_STEP)
    state = state_of(rerun)
    assert restored(state, rerun) is not None
    other = nn.Linear(1, 1)
    other.more = 1.0
    assert restored(state, Rerun(other, torch.zeros(1), OF_STEP)) is None


@pytest.mark.parametrize("held", [np.zeros(2), torch.Generator(), None, iter([1])])
def test_a_module_that_holds_more_than_values_is_not_kept(held: Any):
    module, rows = nn.Linear(1, 1), 3
    module.more = (lambda: rows) if held is None else held
    assert state_of(Rerun(module, torch.zeros(1), OF_STEP)) == {}


def test_a_large_batch_is_not_kept():
    assert state_of(Rerun(nn.Linear(1, 1), torch.zeros(2**22 + 9), OF_STEP)) == {}


# --- Where it cannot be


class Iterates(Pinn):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stream = (batch()["x"] for _ in range(100))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch | {"x": next(self.stream)}, batch_idx)


class UsesLoops(Pinn):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert self.trainer.fit_loop is not None
        return super().training_step(batch, batch_idx)


POOL: Iterator[int] = iter(range(10**6))


class Outside(Pinn):
    """Points of an iterator that stands outside of the module."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch | {"x": batch["x"] * 0.99 ** next(POOL)}, batch_idx)


class ByCallback(Pinn):
    """Its points are drawn by a callback, when ours have had their turn."""

    points = torch.zeros(6, 1, dtype=torch.float64)

    def configure_callbacks(self) -> list[pl.Callback]:
        def draw(trainer: Any, module: Any, *_: Any) -> None:
            module.points = torch.full((6, 1), 0.1 * trainer.global_step, dtype=torch.float64)

        return [calling(on_train_batch_start=draw)]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch | {"x": self.points}, batch_idx)


class Closing(Manual):
    """Moves the parameters by closures, of L-BFGS, behind a toggle."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=2)

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()

        def closure() -> Tensor:
            losses = self.losses(self.residuals(batch))
            loss = self.total(losses)
            optimizer.zero_grad()
            self.manual_backward(loss)
            return loss

        self.toggle_optimizer(optimizer)
        optimizer.step(closure)
        self.untoggle_optimizer(optimizer)


MANUAL: list[Callable[[], Any]] = [
    lambda: make(Manual),
    lambda: make(Manual, raw=True, taps=True),
    lambda: make(SelfAdaptive),
    lambda: make(Closing),
]


@pytest.mark.parametrize("new", MANUAL)
def test_a_step_that_moves_the_parameters_itself_is_run_to_its_first_backward_pass(new: Any):
    module, plain = new(), new()
    assert monitored(module).why[0] == ""
    fit(plain, steps=6)
    assert same(module, plain)


OTHERS = "other residuals.*residuals='method'"
REASONS: dict[str, tuple[Callable[[], Any], str]] = {
    "generator": (lambda: make(Iterates), "no copy.*generator.*residuals='method'"),
    "trainer": (lambda: make(UsesLoops), "trainer.fit_loop is not there.*residuals='method'"),
    "outside": (lambda: make(Outside), "POOL is an iterator outside.*residuals='method'"),
    "other callback": (lambda: make(ByCallback), OTHERS),
}


@pytest.mark.parametrize(("new", "reason"), REASONS.values(), ids=list(REASONS))
def test_where_a_step_cannot_be_run_again_it_is_said_why(
    new: Callable[[], Any], reason: str, monkeypatch: pytest.MonkeyPatch
):
    module = new()
    monkeypatch.setitem(globals(), "POOL", iter(range(10**6)))
    asks = monitored(module)
    assert len(asks.why) == 4
    for why in asks.why if reason != OTHERS else asks.why[1:]:
        assert re.search(reason, why), why
        assert why.count(". ") == 0
    monkeypatch.setitem(globals(), "POOL", iter(range(10**6)))
    plain = new()
    fit(plain, steps=6)
    assert same(module, plain)


@pytest.mark.parametrize("new", [lambda: make(Manual), lambda: make(Iterates)])
@pytest.mark.parametrize("route", ["residuals", "probe"])
def test_a_function_of_the_user_is_run_again_where_the_step_cannot_be(new: Any, route: str):
    module = new()
    asks = monitored(module, **{route: "residuals"})
    if isinstance(module, Iterates):
        assert "generator" in asks.why[0]
        return
    assert asks.why == [""] * 4
    assert asks.at_zero[0]["bc"] == 0.0
    assert asks.earlier == ([0, 0, 0, 0] if route == "probe" else [0, 1, 2, 2])
    plain = new()
    fit(plain, steps=6)
    assert same(module, plain)


def test_a_function_that_draws_is_run_from_the_same_states():
    def drawn_points(module: Any, batch: Any) -> Residuals:
        x = 2 * torch.rand(6, 1, dtype=torch.float64) - 1
        return Pinn.residuals(module, batch | {"x": x})

    assert monitored(make(Pinn, dropout=0.2), residuals=drawn_points).why == [""] * 4


def test_what_is_too_large_is_not_copied():
    (why, *_) = monitored(make(Pinn), memory_budget=1000).why
    assert "MiB" in why
    assert "raise memory_budget" in why


def test_beside_another_training_of_the_process_nothing_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("pinn_ntk.callbacks.step.step_again.trains_alone", lambda: False)
    assert "another training runs in this process" in monitored(make(Pinn)).why[0]


def test_what_trains_beside_is_known():
    here = object.__new__(type("Here", (), {}))
    fit_begins(here)
    assert trains_alone()
    fit_is_over(here)


def test_untrained_terms_are_told_in_words():
    class Detached(Pinn):
        def losses(self, residuals: Any) -> Any:
            return super().losses({n: r.detach() if n == "bc" else r for n, r in residuals.items()})

    asks = Asks()
    monitor = NTKMonitor(diagnostics=["verdict", asks])
    with pytest.warns(UserWarning, match="'bc' has no gradient") as warned:
        fit(make(Detached), monitor, steps=2)
    assert asks.untrained.startswith("'bc' has no gradient")
    assert len([w for w in warned if "no gradient" in str(w.message)]) == 1


def test_without_the_verdict_nothing_is_copied(monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("pinn_ntk.callbacks.step.step_again.Rerun", fails)
    monkeypatch.setattr("pinn_ntk.looks.progress.Progress.loss", fails)
    asks = Asks()
    fit(make(Pinn), NTKMonitor(diagnostics=["traces", asks]), calling(), steps=3)
    assert asks.why == ["", ""]
