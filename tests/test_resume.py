"""Runs that are killed or go on from a checkpoint equal those that were left alone, bit for bit."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import ONE_BATCH, batch, same, trainer
from tests.scripts import python
from tests.zoo import (
    Explicit,
    Noted,
    Points,
    Residuals,
    Stream,
    assert_traces,
    make,
    series,
    steps_of,
)

KILLED = '''
"""Train in child processes that kill themselves, then once more without; save what comes out."""

import logging, os, random, signal, sys, warnings
from pathlib import Path

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import calling, trainer
from tests.zoo import Explicit, Manual, Noted, Stream, make

STEPS = 30
HOOKS = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")


def killer(step, hook):
    def kill(trainer, *_):
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return calling(**{hook: kill})


def fit(kind, folder, kill=None):
    module = {
        "adam": lambda: make(Noted, optimizer="adam", log="sparse"),
        "explicit": lambda: make(Explicit, optimizer="lbfgs"),
        "manual": lambda: make(Manual, optimizer="adam", raw=True, taps=True),
    }[kind]()
    module.note = lambda residuals: None
    monitors = [
        NTKMonitor(every_n_steps=4, probe="residuals", max_points=4),
        NTKMonitor(per_decade=3, prefix="live"),
    ]
    balancer = NTKBalancer(every_n_steps=3, ema=0.5)
    keep = ModelCheckpoint(folder, every_n_train_steps=3, save_last=True)
    callbacks = [*monitors, balancer, keep, *([] if kill is None else [killer(*kill)])]
    run = trainer(*callbacks, steps=STEPS, enable_checkpointing=True)
    run.fit(module, Stream(), ckpt_path="last")
    result = {
        "parameters": dict(module.state_dict()),
        "weights": balancer.weights,
        "steps": run.global_step,
        "history": {
            f"{i}:{tag}": torch.as_tensor(callback.history[tag])
            for i, callback in enumerate([*monitors, balancer])
            for tag in callback.history
            if "overhead" not in tag
        },
    }
    torch.save(result, folder / "result.pt")


def child(*arguments):
    """Signal that ended the fit, 0 for none."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fit(*arguments)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"{arguments} failed")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    kind, folder, number, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    draw = random.Random(seed)
    kills = sorted(draw.sample(range(1, STEPS - 1), number))
    for step in kills:
        assert child(kind, folder / "killed", (step, draw.choice(HOOKS))) == signal.SIGKILL
    assert child(kind, folder / "killed") == child(kind, folder / "whole") == 0
    print("KILLED AT", *kills)
'''


CASES = [
    ("adam", 2, 0),
    *(pytest.param(kind, 5, seed, marks=pytest.mark.slow)
      for kind in ("adam", "explicit", "manual") for seed in (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "kills", "seed"), CASES)
def test_a_run_killed_at_random_steps_equals_one_left_alone(
    tmp_path: Path, kind: str, kills: int, seed: int
):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    assert "KILLED AT" in python(script, kind, tmp_path, kills, seed).stdout
    killed, whole = (torch.load(tmp_path / name / "result.pt") for name in ("killed", "whole"))
    history = whole["history"]
    assert killed["steps"] == whole["steps"] == 30
    assert killed["history"].keys() == history.keys()
    for tag, values in history.items():
        np.testing.assert_array_equal(killed["history"][tag], values, err_msg=tag)
    assert killed["weights"] == whole["weights"]
    for name, parameter in whole["parameters"].items():
        assert torch.equal(killed["parameters"][name], parameter), name
    probe = [0, 4, 8, 12, 16, 20, 24, 28, 29]
    assert history["0:ntk/drift/kernel"][:, 0].tolist() == probe
    assert history["1:live/trace/pde"][:, 0].tolist() == [0, 1, 2, 5, 10, 22, 29]
    assert history["2:ntk/weight/bc"][:, 0].tolist() == list(range(0, 30, 3))
    assert whole["weights"]["bc"] > 1.1


# --- In one process


def fit(
    steps: int, *callbacks: pl.Callback, ckpt: Path | None = None, kind: type[Noted] = Noted
) -> tuple[pl.Trainer, Noted]:
    module = make(kind, optimizer="adam")
    run = trainer(*callbacks, steps=steps, **ONE_BATCH)
    run.fit(module, DataLoader([batch()], batch_size=None), ckpt_path=ckpt)
    return run, module


def saved(path: Path, steps: int, *callbacks: pl.Callback, kind: type[Noted] = Noted) -> Path:
    run, _ = fit(steps, *callbacks, kind=kind)
    run.save_checkpoint(path / "half.ckpt")
    return path / "half.ckpt"


def assert_same_history(got: Any, expected: Any) -> None:
    assert set(got.history) == set(expected.history)
    for tag in set(expected.history) - {"ntk/overhead_fraction", "coarse/overhead_fraction"}:
        np.testing.assert_array_equal(got.history[tag], expected.history[tag], err_msg=tag)


class Handed(NTKMonitor):
    """Hands what it is given on, and has a default and an argument of its own."""

    def __init__(self, note: str = "", limit: bool = False, **options: Any) -> None:
        super().__init__(limit=limit, **options)
        self.note = note


@pytest.mark.parametrize("kind", [NTKMonitor, Handed])
def test_states_of_two_monitors_are_kept_apart(tmp_path: Path, kind: type[NTKMonitor]):
    def monitors() -> list[NTKMonitor]:
        coarse = kind(every_n_steps=3, max_points=3, probe="residuals", prefix="coarse")
        return [kind(every_n_steps=2), coarse]

    whole, resumed = monitors(), monitors()
    _, expected = fit(9, *whole)
    half = saved(tmp_path, 4, *monitors())
    _, module = fit(9, *resumed[::-1], ckpt=half)  # in another order, too
    assert same(expected, module)
    # The last step of the first half is measured as well: it was the last one of its fit.
    for got, reference in zip(resumed, whole, strict=True):
        trace, drift = (f"{reference.prefix}/{of}" for of in ("trace/bc", "drift/kernel"))
        only = {3} - set(steps_of(reference, trace))
        for tag in (trace, drift):
            pairs = {s: v for s, v in series(got, tag).items() if s not in only}
            assert pairs == series(reference, tag)
    assert steps_of(whole[0]) == [0, 2, 4, 6, 8]
    assert steps_of(whole[1], "coarse/trace/bc") == [0, 3, 6, 8]


def test_what_a_subclass_hands_on_is_among_its_settings():
    assert repr(Handed("a", every_n_steps=3)) == "Handed(every_n_steps=3)"
    assert Handed(limit=True).state_key == "Handed{'limit': True}"


ROUNDED = partial(Explicit, weights_dtype=torch.float32)  # as LossWeights are made


@pytest.mark.parametrize("kind", [Noted, Explicit, ROUNDED], ids=["noted", "explicit", "rounded"])
def test_both_callbacks_go_on_where_they_were(tmp_path: Path, kind: Any):
    def callbacks() -> tuple[NTKMonitor, NTKBalancer]:
        return NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=3, ema=0.5)

    whole, resumed = callbacks(), callbacks()
    _, expected = fit(9, *whole, kind=kind)
    half = saved(tmp_path, 5, *callbacks(), kind=kind)
    _, module = fit(9, *resumed, ckpt=half, kind=kind)
    assert same(expected, module)
    assert resumed[1].weights == whole[1].weights
    for got, reference in zip(resumed, whole, strict=True):
        assert_same_history(got, reference)


def test_the_second_of_two_fits_goes_on_where_it_was(tmp_path: Path):
    """Its steps count on behind those of the first one, before and after the restart."""

    def two_fits(steps: int) -> tuple[pl.Trainer, Noted, list[Any]]:
        callbacks = [NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)]
        module = make(Noted, optimizer="adam")
        data = DataLoader([batch()], batch_size=None)
        trainer(*callbacks, steps=4, **ONE_BATCH).fit(module, data)
        second = trainer(*callbacks, steps=steps, **ONE_BATCH)
        second.fit(module, data)
        return second, module, callbacks

    _, expected, whole = two_fits(9)
    half, _, _ = two_fits(3)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = [NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)]
    _, module = fit(9, *resumed, ckpt=tmp_path / "half.ckpt")
    assert same(expected, module)
    for got, reference in zip(resumed, whole, strict=True):
        assert_same_history(got, reference)
    assert steps_of(whole[0]) == [0, 2, 3, 4, 6, 8, 10, 12]


def test_a_checkpoint_holds_tensors_and_plain_values_only(tmp_path: Path):
    callbacks = NTKMonitor(probe="residuals"), NTKBalancer(every_n_steps=4, ema=0.5)
    states = torch.load(saved(tmp_path, 3, *callbacks), weights_only=True)["callbacks"]
    of_balancer = "NTKBalancer{'every_n_steps': 4, 'ema': 0.5}"
    assert sorted(states) == [of_balancer, "NTKMonitor{'probe': 'residuals'}"]
    assert {type(weight) for weight in states[of_balancer]["weights"].values()} == {float}


def test_a_checkpoint_of_a_run_without_us_loads(tmp_path: Path):
    half = saved(tmp_path, 4)
    monitor, balancer = NTKMonitor(every_n_steps=3), NTKBalancer(every_n_steps=3)
    _, module = fit(8, monitor, balancer, ckpt=half)
    assert steps_of(monitor, "ntk/trace/pde") == [4, 6, 7]
    for step, value in series(monitor, "ntk/trace/pde").items():  # the module counts from 0
        assert value == pytest.approx(module.traces(step - 4)["pde"], rel=1e-10)
    assert series(monitor, "ntk/drift/parameters")[4] == 0.0
    assert series(balancer, "ntk/weight/bc")[6] == pytest.approx(module.rule(2)["bc"], rel=1e-10)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_a_checkpoint_of_other_settings_loads(tmp_path: Path):
    half = saved(tmp_path, 5, NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2))
    monitor, balancer = NTKMonitor(every_n_steps=3, max_points=5), NTKBalancer(every_n_steps=5)
    fit(11, monitor, balancer, ckpt=half)
    assert steps_of(monitor, "ntk/trace/pde") == [0, 2, 4, 6, 9, 10]
    assert list(series(balancer, "ntk/weight/bc")) == [0, 2, 4, 5, 10]
    whole = NTKMonitor(every_n_steps=2)
    _, reference = fit(1, whole)
    assert_traces(whole, reference, [0])
    assert series(monitor, "ntk/trace/pde")[0] == series(whole, "ntk/trace/pde")[0]
    assert series(monitor, "ntk/drift/parameters")[6] > series(monitor, "ntk/drift/parameters")[2]


class OfPoints(Noted):
    def residuals(self, batch: Points) -> Residuals:
        return super().residuals({"x": batch.x, "ends": batch.ends})


def test_a_probe_that_the_checkpoint_cannot_hold_gives_no_wrong_drift(tmp_path: Path):
    """Loading with weights_only refuses users' classes: the probe of the second half is another."""

    def run(steps: int, ckpt: Path | None = None) -> tuple[pl.Trainer, NTKMonitor]:
        monitor = NTKMonitor(every_n_steps=2, probe="residuals")
        trained = trainer(monitor, steps=steps)
        loader = Stream(pack=lambda points: Points(**points))
        trained.fit(make(OfPoints, optimizer="adam"), loader, ckpt_path=ckpt)  # type: ignore[arg-type]
        return trained, monitor

    half, _ = run(4)
    half.save_checkpoint(tmp_path / "half.ckpt")
    expected = series(run(8)[1], "ntk/drift/kernel")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        got = series(run(8, tmp_path / "half.ckpt")[1], "ntk/drift/kernel")
    for step in (4, 6, 7):
        same_probe = got[step] == expected[step]
        anew = got[4] == 0.0 and any("probe" in str(w.message) for w in warned)
        assert same_probe or anew, step
