"""Distance of a trained network from its limit of infinite width, as the monitor logs it."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pinn_ntk.callbacks import NTKMonitor
from pinn_ntk.callbacks.width import POINTS, InfiniteWidth, spread
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


class Reshaped(nn.Sequential):
    """Takes points of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, 1))


class Called(Plain):
    """Calls its network with something else first."""

    def __init__(self, first: Callable[[Any], Any], kind: type[nn.Sequential]) -> None:
        super().__init__()
        self.first, self.net = first, kind(*self.net)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.first(self.net)
        return super().training_step(batch, batch_idx)


HALF, OWN = torch.tensor(0.5, dtype=torch.float64), 3 * batch()["x"]
FIRST: dict[str, tuple[Callable[[Any], Any], type[nn.Sequential], Tensor]] = {
    "a number": (lambda net: net(HALF), Reshaped, HALF.reshape(1, 1)),
    "no number": (lambda net: net(HALF.expand(0)), Reshaped, OWN),
    "no row": (lambda net: net(HALF.expand(0, 1)), nn.Sequential, OWN),
    "one point": (lambda net: net(HALF.expand(1)), nn.Sequential, OWN),
    "nan": (lambda net: net(HALF.expand(2, 1) * torch.nan), nn.Sequential, OWN),
    "vmap": (lambda net: torch.vmap(net)(HALF.expand(2, 1)), nn.Sequential, OWN),
    "vmap of rows": (lambda net: torch.vmap(net)(HALF.expand(2, 3, 1)), nn.Sequential, OWN),
    "a layer": (lambda net: net[0](HALF.expand(2, 1)), nn.Sequential, OWN),
}


@pytest.mark.parametrize("case", FIRST)
def test_points_are_those_of_the_first_usable_call(case: str):
    first, kind, points = FIRST[case]
    module, monitor = make(Called, first=first, kind=kind), NTKMonitor(every_n_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NTKWarning)
        train(module, monitor, steps=2)
    module.net = nn.Sequential(*module.net)
    expected = {step: module.distance(step, points) for step in (0, 1)}
    assert distances(monitor) == pytest.approx(expected, rel=1e-12)


class Pair(nn.Sequential):
    """Of two arguments."""

    def forward(self, x: Tensor, *, t: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat([x, t], -1))


class Timed(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.net = Pair(nn.Linear(2, 8, dtype=torch.float64), *list(self.net)[1:])

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.net(3 * batch[name], t=batch[name] - 1) for name in ("x", "ends")}


def test_a_network_may_have_a_call_of_its_own():
    module, monitor = make(Timed), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=2)
    module.net = nn.Sequential(*module.net)
    points = torch.cat([OWN, batch()["x"] - 1], -1)
    expected = {step: module.distance(step, points) for step in (0, 1)}
    assert distances(monitor) == pytest.approx(expected, rel=1e-12)


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


class Mapped(Plain):
    """Its network sees one point at a time."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x, ends = (torch.vmap(self.net)(3 * batch[name]) for name in ("x", "ends"))
        return {"pde": x - torch.sin(3 * batch["x"]), "bc": ends}


class Zero(Plain):
    """Its head starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.net[4].weight)


class Wide(Plain):
    """Too wide a start for the quadrature of the limit."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.net[2].weight, 50.0)


class TwoDimensional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows, _ = x.shape
        return torch.sin(x) * bool(rows)


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.sin(x[:, :4]), torch.cos(x[:, 4:])], 1)


class Picky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 2
        return torch.sin(x)


class Activated(Plain):
    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        for place in (1, 3):
            self.net[place] = activation()


OTHERS: dict[str, Callable[[], Plain]] = {
    "dropout": Dropped,
    "two networks": Two,
    "layer by layer": Uncalled,
    "vmap": Mapped,
    "head of zeros": Zero,
    "too wide": Wide,
    "two-dimensional activation": lambda: Activated(TwoDimensional),
    "activation of halves": lambda: Activated(Halves),
    "activation that asserts": lambda: Activated(Picky),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_modules_have_no_distance_and_no_warning(case: str):
    monitor, module = NTKMonitor(every_n_steps=1), make(OTHERS[case])
    with warnings.catch_warnings():
        warnings.simplefilter("error", NTKWarning)
        for _ in range(2):  # of trained weights no more than of new ones
            train(module, monitor, steps=2)
    assert DISTANCE not in monitor.history
    assert len(monitor.history["ntk/lr"]) == 4


def test_a_network_that_is_replaced_is_not_measured_on():
    class Replaced(Plain):
        def on_train_batch_end(self, *_: Any) -> None:
            if self.global_step == 2:
                self.net = nn.Sequential(*(copy.deepcopy(layer) for layer in self.net))
                self.optimizers().param_groups[0]["params"] = list(self.parameters())

    monitor = NTKMonitor(every_n_steps=1)
    train(make(Replaced), monitor, steps=4)
    assert list(distances(monitor)) == [0, 1]


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


class Counting(nn.Sequential):
    """Counts its calls, and computes something else in each."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + 1e-3 * self.calls)


class CountingSine(nn.Module):
    """Likewise, in a buffer, with every generator that there is."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
        return torch.sin(x * (1 + 1e-3 * self.calls + 1e-3 * noise))


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Hooked(Plain):
    """Notes the calls of an activation of its own, and of a network with its own ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        layers = [Sine() if isinstance(layer, nn.Tanh) else layer for layer in self.net]
        self.shapes: list[tuple[int, ...]] = []
        self.net = Reshaped(*layers)
        for part in (layers[1], self.net):
            part.register_forward_hook(self.note)

    def note(self, _: nn.Module, __: Any, y: Tensor) -> None:
        self.shapes.append(tuple(y.shape))

    def __deepcopy__(self, memo: dict[int, Any]) -> Plain:
        raise RuntimeError("copied with its network")


class OfItsOwn(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.net = Counting(*self.net)


def left_behind(module: Plain, *callbacks: pl.Callback) -> list[Any]:
    """Parameters, buffers, counters and generators after a fit."""
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    train(module, *callbacks, steps=4)
    state = {name: value.tolist() for name, value in module.state_dict().items()}
    calls = [vars(part).get("calls") for part in module.modules()]
    numpy = np.random.get_state()[1].tolist()  # type: ignore[union-attr] # noqa: NPY002
    generators = [torch.get_rng_state().tolist(), numpy, random.getstate()]
    return [state, calls, getattr(module, "shapes", None), generators]


@pytest.mark.parametrize(
    ("make_module", "measured"),
    [(OfItsOwn, True), (lambda: Activated(CountingSine), False), (Hooked, True)],
    ids=["network", "activation", "hooks"],
)
def test_no_module_is_run_besides(make_module: Callable[[], Plain], measured: bool):
    monitor = NTKMonitor(every_n_steps=1)
    assert left_behind(make(make_module), monitor) == left_behind(make(make_module))
    assert (DISTANCE in monitor.history) == measured


def test_it_may_be_pickled_while_it_listens():
    module, limit = make(Plain), InfiniteWidth()
    limit.attach(module)
    limit.begin()
    module.net(OWN)
    other = pickle.loads(pickle.dumps(limit))
    assert other.measure(module) is None  # it is attached to nothing
    assert copy.deepcopy(limit).state_dict() == {}
    expected = distance_to_limit(module.net, OWN)
    assert limit.measure(module) == pytest.approx(expected, rel=1e-12)
    again = pickle.loads(pickle.dumps(limit))
    again.attach(module)
    assert again.measure(module) == limit.measure(module)


def test_a_compiled_network_is_compiled_to_the_same():
    def graphs(listen: bool) -> list[str]:
        found: list[str] = []

        def note(graph: torch.fx.GraphModule, _: Any) -> Any:
            found.extend(str(node.target) for node in graph.graph.nodes if node.op != "placeholder")
            return graph.forward

        torch._dynamo.reset()
        module, limit = make(Plain), InfiniteWidth()
        limit.attach(module)
        limit.begin(listen=listen)
        torch.compile(module.net, backend=note, fullgraph=True)(OWN)
        assert limit.measure(module) is None
        return found

    assert graphs(listen=True) == graphs(listen=False) != []


class Copied(Plain):
    """Copies and pickles its network behind the first call, while it is listened to."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().residuals(batch)
        self.hooks.append(sum(len(part._forward_pre_hooks) for part in self.net.modules()))
        for other in (copy.deepcopy(self.net), pickle.loads(pickle.dumps(self.net))):
            other(torch.ones(3, 1, dtype=torch.float64))
            for part in other.modules():
                assert all(hook.inputs is None for hook in part._forward_pre_hooks.values())
        return found

    hooks: list[int]


def test_a_network_is_listened_to_in_the_first_batch_only():
    module, monitor = make(Copied), NTKMonitor(every_n_steps=1)
    module.hooks = []
    train(module, monitor, steps=3)
    assert module.hooks == [2, 0, 0]
    assert not any(part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("steps", [[2, 4], [0, 1]])
def test_only_batches_that_are_due_are_listened_to(steps: list[int]):
    class Unheard(Mapped):
        def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.heard.append(bool(self.net._forward_pre_hooks))
            return super().residuals(batch)

        heard: list[bool]

    module = make(Unheard)
    module.heard = []
    train(module, NTKMonitor(steps=steps), steps=6)
    assert module.heard == [step in {0, *steps, 5} for step in range(6)]


def test_an_exception_takes_the_hook_off():
    class Interrupted(Plain):
        def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            raise ZeroDivisionError

    module = make(Interrupted)
    with pytest.raises(ZeroDivisionError):
        train(module, NTKMonitor(), steps=3)
    assert not any(part._forward_pre_hooks for part in module.modules())


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
    assert list(distances(second)) == [0, 2, 4, 6]
    assert distances(second) == distances(whole)


def test_the_start_is_kept_before_there_are_points(tmp_path: Path):
    class Late(Plain):
        def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if self.global_step < 4:
                return Mapped.residuals(self, batch)  # type: ignore[arg-type]
            return super().residuals(batch)

    def go_on(steps: int, ckpt: Path | None = None) -> tuple[NTKMonitor, pl.Trainer]:
        monitor = NTKMonitor(every_n_steps=1)
        run = trainer(monitor, steps=steps)
        run.fit(make(Late), Stream(), ckpt_path=ckpt)  # type: ignore[arg-type]
        return monitor, run

    whole, _ = go_on(7)
    first, run = go_on(3)
    run.save_checkpoint(tmp_path / "c.ckpt")
    second, _ = go_on(7, tmp_path / "c.ckpt")
    assert DISTANCE not in first.history
    assert list(distances(second)) == [4, 5, 6]
    assert distances(second) == distances(whole)


def test_trained_weights_do_not_tell_how_they_started(tmp_path: Path):
    run = trainer(NTKMonitor(every_n_steps=1), steps=3)
    run.fit(make(Plain), Stream())  # type: ignore[arg-type]
    run.save_checkpoint(tmp_path / "c.ckpt")
    checkpoint = torch.load(tmp_path / "c.ckpt", weights_only=False)
    (state,) = (v for k, v in checkpoint["callbacks"].items() if k.startswith("NTKMonitor"))
    assert set(state.pop("limit")) == {"points", "limit", "weight_std", "bias_std"}
    torch.save(checkpoint, tmp_path / "c.ckpt")
    monitor = NTKMonitor(every_n_steps=1)
    run = trainer(monitor, steps=6)
    run.fit(make(Plain), Stream(), ckpt_path=tmp_path / "c.ckpt")  # type: ignore[arg-type]
    assert list(distances(monitor)) == [0, 1, 2]
    assert len(monitor.history["ntk/trace/pde"]) == 6


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
