"""Distance of a trained network from its limit of infinite width, as the monitor logs it."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pinn_ntk.callbacks import NTKMonitor
from pinn_ntk.callbacks.infinite_width import POINTS, InfiniteWidth, spread
from pinn_ntk.errors import NTKWarning
from pinn_ntk.limit.distance import distance_to_limit
from pinn_ntk.limit.parametrization import found_stds
from tests.pinn import N_PDE, Pinn, batch, same, trainer
from tests.zoo import Stream, make, train

DISTANCE = "ntk/distance_to_limit"


class Plain(Pinn):
    """A plain network, which keeps copies of itself of each step."""

    def __init__(self, optimizer: str = "adam") -> None:
        super().__init__(optimizer=optimizer)
        layers = [nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)]
        self.net = nn.Sequential(*layers).double()
        self.copies: list[dict[str, Tensor]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.copies.append(copy.deepcopy(self.net.state_dict()))
        return super().training_step(batch, batch_idx)

    def distance(self, step: int, points: Tensor) -> float:
        net = copy.deepcopy(self.net)
        net.load_state_dict(self.copies[0])
        weight_std, bias_std = found_stds(net)
        net.load_state_dict(self.copies[step])
        return distance_to_limit(net, points, weight_std, bias_std)


def distances(monitor: NTKMonitor) -> dict[int, float]:
    return {int(step): float(value) for step, value in monitor.history.get(DISTANCE, [])}


def test_distances_are_those_of_the_network_at_the_points_it_first_saw():
    module, monitor = make(Plain), NTKMonitor(every_n_steps=3)
    train(module, monitor, steps=8)
    points = 3 * batch()["x"]  # what the module calls its network with
    expected = {step: module.distance(step, points) for step in (0, 3, 6, 7)}
    assert distances(monitor) == pytest.approx(expected, rel=1e-12)
    assert len({round(value, 6) for value in expected.values()}) == 4  # it moves


def test_points_stay_though_those_of_the_training_change():
    module, monitor = make(Plain), NTKMonitor(every_n_steps=2)
    run = trainer(monitor, steps=5)
    run.fit(module, Stream())  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(N_PDE, 1, dtype=torch.float64, generator=generator) - 1
    expected = {step: module.distance(step, 3 * x) for step in (0, 2, 4)}
    assert distances(monitor) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("rows", "kept"), [(5, 5), (64, 64), (65, 64), (1000, 64)])
def test_points_are_spread_evenly(rows: int, kept: int):
    x = torch.arange(2.0 * rows).reshape(rows, 2)
    found = spread(x, POINTS)
    assert found.shape == (kept, 2)
    assert torch.equal(found[[0, -1]], x[[0, -1]])
    gaps = found[:, 0].diff()
    assert gaps.min() >= 2 * (rows // kept)
    assert gaps.max() <= 2 * -(-(rows - 1) // max(kept - 1, 1))
    assert torch.equal(spread(x.reshape(rows, 1, 2), POINTS), found)
    assert found.data_ptr() != x.data_ptr()


class Dropped(Plain):
    """Not plain: nothing is known of its limit."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*self.net, nn.Dropout(0.0))


class Two(Plain):
    """Two networks, of which it is not known which one is meant."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()


class Uncalled(Plain):
    """Goes through its layers one by one."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        whole = self.net

        class Layers(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                for layer in whole:
                    x = layer(x)
                return x

        del self._modules["net"]
        self.__dict__["net"] = Layers()
        try:
            return super().residuals(batch)
        finally:
            del self.__dict__["net"]
            self._modules["net"] = whole


@pytest.mark.parametrize("kind", [Dropped, Two, Uncalled])
def test_other_modules_have_no_distance_and_no_warning(kind: type[Plain]):
    monitor = NTKMonitor(every_n_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NTKWarning)
        train(make(kind), monitor, steps=2)  # type: ignore[type-var]
    assert DISTANCE not in monitor.history
    assert "ntk/trace/pde" in monitor.history


def test_it_may_be_switched_off():
    monitor = NTKMonitor(every_n_steps=1, limit=False)
    train(make(Plain), monitor, steps=2)
    assert DISTANCE not in monitor.history


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_training_is_bit_identical(optimizer: str):
    finals = []
    for callbacks in ([], [NTKMonitor(every_n_steps=2)]):
        module = make(Plain, optimizer=optimizer)
        train(module, *callbacks, steps=10)
        finals.append((module, torch.get_rng_state(), np.random.get_state()[1]))  # noqa: NPY002
    (plain, state, numpy), (watched, state_after, numpy_after) = finals
    assert same(plain, watched)
    assert torch.equal(state, state_after)
    assert np.array_equal(numpy, numpy_after)


class Copied(Plain):
    """Copies and pickles its network behind the first call, while it is listened to."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().residuals(batch)
        self.hooks.append(len(self.net._forward_pre_hooks))
        for other in (copy.deepcopy(self.net), pickle.loads(pickle.dumps(self.net))):
            assert all(not hook.inputs for hook in other._forward_pre_hooks.values())
        return found

    hooks: list[int]


def test_a_network_is_listened_to_in_the_first_batch_only():
    module, monitor = make(Copied), NTKMonitor(every_n_steps=1)
    module.hooks = []
    train(module, monitor, steps=3)
    assert module.hooks == [1, 0, 0]
    assert not module.net._forward_pre_hooks


def test_an_exception_takes_the_hook_off():
    class Interrupted(Plain):
        def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            raise ZeroDivisionError

    module = make(Interrupted)
    with pytest.raises(ZeroDivisionError):
        train(module, NTKMonitor(), steps=3)
    assert not module.net._forward_pre_hooks


@pytest.mark.parametrize("save_start", [True, False])
def test_a_resumed_run_measures_from_the_same_limit(tmp_path: Path, save_start: bool):
    def go_on(steps: int, ckpt: Path | None = None) -> tuple[NTKMonitor, pl.Trainer]:
        monitor = NTKMonitor(every_n_steps=2, save_start=save_start)
        run = trainer(monitor, steps=steps)
        run.fit(make(Plain), Stream(), ckpt_path=ckpt)  # type: ignore[arg-type]
        return monitor, run

    whole, _ = go_on(7)
    _, run = go_on(3)
    run.save_checkpoint(tmp_path / "c.ckpt")
    second, _ = go_on(7, tmp_path / "c.ckpt")
    same_limit = distances(second) == distances(whole)
    assert list(distances(second)) == [0, 2, 4, 6]
    assert same_limit == save_start  # else points and limit are those of the second start


def test_another_module_has_a_limit_of_its_own():
    monitor = NTKMonitor(every_n_steps=1)
    train(make(Plain), monitor, steps=2)
    module = make(Plain)
    with torch.no_grad():
        module.net[0].weight.mul_(2)
    train(module, monitor, steps=2)
    expected = {step: module.distance(step, 3 * batch()["x"]) for step in (0, 1)}
    assert distances(monitor) == pytest.approx(expected, rel=1e-12)


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no such luck.")


@pytest.mark.parametrize("place", ["attach", "begin", "measure"])
def test_a_failure_is_told_once_and_leaves_the_rest(place: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(InfiniteWidth, place, broken)
    monitor = NTKMonitor(every_n_steps=1)
    with pytest.warns(NTKWarning, match="the distance to the limit failed with Runt") as warned:
        train(make(Plain), monitor, steps=3)
    assert len([w for w in warned if issubclass(w.category, NTKWarning)]) == 1
    assert DISTANCE not in monitor.history
    assert len(monitor.history["ntk/lr"]) == 3
