"""Routes that are callables without a name: partials and objects, of which repr gives an address.

A run that goes on in another process has other addresses. Within one process that is imitated by
making each callable anew while the others are alive.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.records import FOLDER, built, differences, fit, recorded, short

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
"""Lightning looks at keys before a callback can adopt a state."""

SAVED_AT, STEPS = 5, [0, 2, 4, 6, 8]


class Scaled:
    def __init__(self, scale: float = 2.0) -> None:
        self.scale = scale

    def __call__(self, module: Any, batch: Any) -> dict[str, Tensor]:
        return {name: self.scale * r for name, r in module.residuals(batch).items()}


def partial_of_its_own(scale: float = 2.0) -> Callable[..., Mapping[str, Tensor]]:
    """A partial whose function has an address of its own, as it has in another process."""

    def scaled(module: Any, batch: Any, *, scale: float) -> dict[str, Tensor]:
        return Scaled(scale)(module, batch)

    return functools.partial(scaled, scale=scale)


KINDS = {"partial": partial_of_its_own, "object": Scaled}
ADDRESSES = {
    "partial": "functools.partial(<function scaled at 0x7f3a5c2d1e40>, scale=2.0)",
    "object": "<__main__.Scaled object at 0x7f3a5c2d1e40>",
}
"""What stands for such routes in the keys of old checkpoints."""

USES = {
    "monitor_residuals": (NTKMonitor, "residuals"),
    "monitor_probe": (NTKMonitor, "probe"),
    "balancer_residuals": (NTKBalancer, "residuals"),
}


def saved(path: Path, *callbacks: pl.Callback) -> Path:
    fit(built("poisson", "loss"), callbacks, SAVED_AT).save_checkpoint(path / "half.ckpt")
    return path / "half.ckpt"


def go_on(checkpoint: Path | None, *callbacks: pl.Callback) -> None:
    fit(built("poisson", "loss"), callbacks, STEPS[-1] + 1, checkpoint)


def series(callback: Any) -> dict[str, Any]:
    return {
        tag: points.tolist()
        for tag, points in callback.history.items()
        if not tag.endswith("overhead_fraction")
    }


def steps_of(callback: Any) -> list[int]:
    return [int(step) for step, _ in next(iter(callback.history.values()))]


def renamed(checkpoint: Path, key: str) -> Path:
    """The same checkpoint with its one state under another key."""
    contents = torch.load(checkpoint, weights_only=True)
    (state,) = contents["callbacks"].values()
    contents["callbacks"] = {key: state}
    torch.save(contents, checkpoint)
    return checkpoint


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_key_of_a_state_holds_no_address(kind: str, use: str):
    callback, argument = USES[use]
    first, second = (callback(**{argument: route}) for route in (KINDS[kind](), KINDS[kind]()))
    assert first.state_key == second.state_key
    assert "0x" not in first.state_key


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("address", [False, True], ids=["key of its own", "key with an address"])
def test_a_run_goes_on_where_it_was(tmp_path: Path, kind: str, use: str, address: bool):
    """Where the key of an old checkpoint holds an address, its state is adopted."""
    callback, argument = USES[use]
    routes = [KINDS[kind]() for _ in range(3)]  # all alive until the end
    whole, half, resumed = (callback(every_n_steps=2, **{argument: r}) for r in routes)
    go_on(None, whole)
    checkpoint = saved(tmp_path, half)
    if address:
        key = f"{callback.__name__}{{'every_n_steps': 2, '{argument}': {ADDRESSES[kind]}}}"
        renamed(checkpoint, key)
    go_on(checkpoint, resumed)
    assert steps_of(resumed) == steps_of(whole) == STEPS
    assert series(resumed) == series(whole)


@pytest.mark.parametrize("callback", ["monitor", "balancer"])
def test_an_old_checkpoint_with_addresses_is_gone_on_from(callback: str):
    resumed = short("partial", FOLDER / "checkpoint_partial.pt")
    expected = recorded()["uninterrupted"]["partial"][callback]
    assert differences(resumed[callback], expected)[:20] == []


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=list(ADDRESSES))
def test_a_state_of_a_callable_is_not_that_of_a_callback_without(tmp_path: Path, address: str):
    half, other = NTKMonitor(every_n_steps=2), NTKMonitor(every_n_steps=2)
    key = f"NTKMonitor{{'every_n_steps': 2, 'residuals': {address}}}"
    go_on(renamed(saved(tmp_path, half), key), other)
    assert steps_of(other) == [5, 6, 8]


@pytest.mark.parametrize("kind", KINDS)
def test_two_monitors_keep_their_states_apart(tmp_path: Path, kind: str):
    def monitors() -> list[NTKMonitor]:
        one = NTKMonitor(every_n_steps=2, residuals=KINDS[kind](1.0))
        return [one, NTKMonitor(every_n_steps=2, residuals=KINDS[kind](3.0), prefix="three")]

    whole, half, resumed = monitors(), monitors(), monitors()
    go_on(None, *whole)
    go_on(saved(tmp_path, *half), *resumed[::-1])
    assert [series(monitor) for monitor in resumed] == [series(monitor) for monitor in whole]


@pytest.mark.parametrize("kind", KINDS)
def test_two_monitors_that_differ_in_their_callables_alone_stand_in_one_trainer(kind: str):
    """Lightning refuses two callbacks of one key."""
    monitors = [NTKMonitor(every_n_steps=2, residuals=KINDS[kind](scale)) for scale in (1.0, 3.0)]
    go_on(None, *monitors)
    one, three = (
        monitor.history[f"{prefix}/trace/bc"][:, 1]
        for monitor, prefix in zip(monitors, ("ntk", "ntk_2"), strict=True)
    )
    torch.testing.assert_close(torch.as_tensor(three), torch.as_tensor(9 * one))


class Knot:
    """Holds itself, arrays and a dict."""

    def __init__(self, scale: float) -> None:
        self.me, self.scale, self.options = self, np.array([scale]), {"scale": scale}

    def __call__(self, module: Any, batch: Any) -> Any:
        return module.residuals(batch)


def test_keys_tell_arrays_and_dicts_apart_and_follow_no_circle():
    keys = [NTKMonitor(residuals=Knot(scale)).state_key for scale in (1.0, 1.0, 2.0)]
    assert keys[0] == keys[1] != keys[2]
    assert "me=Knot" in keys[0]
