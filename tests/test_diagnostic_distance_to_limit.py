"""Distance of a trained network from its limit of infinite width, as the monitor logs it."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pinn_ntk import distance_to_limit, look
from pinn_ntk.callbacks import NTKMonitor
from pinn_ntk.diagnostics.distance_to_limit import POINTS, DistanceFromLimit, spread
from tests.by_hand import OWN_INPUTS, Plain
from tests.kernels import mlp
from tests.networks import Lambda
from tests.pinn import N_PDE, batch, trainer
from tests.zoo import Stream, compare, make, series, train

DISTANCE = "ntk/distance_to_limit"
HALF = torch.tensor(0.5, dtype=torch.float64)


def distances(monitor: NTKMonitor) -> dict[int, float]:
    return series(monitor, DISTANCE)


def run(module: pl.LightningModule, steps: int, ckpt: Path | None = None, **options: Any) -> Any:
    """Monitor and trainer of a fit on points that change."""
    monitor = NTKMonitor(**({"every_n_steps": 1} | options))
    fit = trainer(monitor, steps=steps)
    fit.fit(module, Stream(), ckpt_path=ckpt)
    return monitor, fit


def test_distances_are_those_of_the_network_at_the_points_it_first_saw():
    module, monitor = make(Plain), NTKMonitor(every_n_steps=3)
    train(module, monitor, steps=8)
    assert distances(monitor) == module.distances(0, 3, 6, 7)


def test_points_stay_though_those_of_the_training_change():
    module = make(Plain)
    monitor, _ = run(module, 5, every_n_steps=2)
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(N_PDE, 1, dtype=torch.float64, generator=generator) - 1
    assert distances(monitor) == module.distances(0, 2, 4, points=3 * x)


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


# --- Which points


class Reshaped(nn.Sequential):
    """Takes points of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, 1))


class Called(Plain):
    """Calls its network with something else first."""

    def __init__(
        self, first: Callable[[Any], Any], kind: type[nn.Sequential] = nn.Sequential
    ) -> None:
        super().__init__()
        self.first, self.net = first, kind(*self.net)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.first(self.net)
        return super().training_step(batch, batch_idx)


class Pair(nn.Sequential):
    """Of two arguments."""

    def forward(self, x: Tensor, *, t: Tensor) -> Tensor:
        return super().forward(torch.cat([x, t], -1))


class Timed(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.net = Pair(nn.Linear(2, 8, dtype=torch.float64), *list(self.net)[1:])

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.net(3 * batch[name], t=batch[name] - 1) for name in ("x", "ends")}


FIRST: dict[str, tuple[Callable[[], Plain], Tensor]] = {
    "a number": (lambda: Called(lambda net: net(HALF), Reshaped), HALF.reshape(1, 1)),
    "no number": (lambda: Called(lambda net: net(HALF.expand(0)), Reshaped), OWN_INPUTS),
    "no row": (lambda: Called(lambda net: net(HALF.expand(0, 1))), OWN_INPUTS),
    "one point": (lambda: Called(lambda net: net(HALF.expand(1))), OWN_INPUTS),
    "nan": (lambda: Called(lambda net: net(HALF.expand(2, 1) * torch.nan)), OWN_INPUTS),
    "vmap": (lambda: Called(lambda net: torch.vmap(net)(HALF.expand(2, 1))), OWN_INPUTS),
    "vmap of rows": (lambda: Called(lambda net: torch.vmap(net)(HALF.expand(2, 3, 1))), OWN_INPUTS),
    "a layer": (lambda: Called(lambda net: net[0](HALF.expand(2, 1))), OWN_INPUTS),
    "a call of its own": (Timed, torch.cat([OWN_INPUTS, batch()["x"] - 1], -1)),
}


@pytest.mark.parametrize("case", FIRST)
def test_points_are_those_of_the_first_usable_call(case: str):
    kind, points = FIRST[case]
    module, monitor = make(kind), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=2)
    assert distances(monitor) == module.distances(0, 1, points=points)


# --- Modules without a distance


class Walked(nn.Module):
    """Goes through the layers of a network one by one."""

    def __init__(self, whole: nn.Sequential) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.whole:
            x = layer(x)
        return x


class Mapped(Plain):
    """Its network sees one point at a time."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x, ends = (torch.vmap(self.net)(3 * batch[name]) for name in ("x", "ends"))
        return {"pde": x - torch.sin(3 * batch["x"]), "bc": ends}


class Other(Plain):
    """Changed in one respect."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        change(self)


def activated(kind: Callable[..., nn.Module], *arguments: Any) -> Plain:
    """A plain network with other activations."""
    module = Plain()
    for place in (1, 3):
        module.net[place] = kind(*arguments)
    return module


def two_dimensional(x: Tensor) -> Tensor:
    rows, _ = x.shape
    return torch.sin(x) * bool(rows)


def picky(x: Tensor) -> Tensor:
    assert x.ndim == 2
    return torch.sin(x)


def halves(x: Tensor) -> Tensor:
    return torch.cat([torch.sin(x[:, :4]), torch.cos(x[:, 4:])], 1)


OTHERS: dict[str, Callable[[], Plain]] = {
    "dropout": lambda: Other(lambda m: m.net.append(nn.Dropout(0.0))),
    "two networks": lambda: Other(lambda m: setattr(m, "other", mlp(1, 4, 1))),
    "layer by layer": lambda: Other(lambda m: setattr(m, "net", Walked(m.net))),
    "vmap": Mapped,
    "head of zeros": lambda: Other(lambda m: nn.init.zeros_(m.net[4].weight)),
    "too wide for the quadrature": lambda: Other(lambda m: nn.init.constant_(m.net[2].weight, 50)),
    "two-dimensional activation": lambda: activated(Lambda, two_dimensional),
    "activation of halves": lambda: activated(Lambda, halves),
    "activation that asserts": lambda: activated(Lambda, picky),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_modules_have_no_distance_and_no_warning(case: str):
    monitor, module = NTKMonitor(every_n_steps=1), make(OTHERS[case])
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


# --- Nothing is left behind


class Counting(nn.Sequential):
    """Counts its calls, and computes something else in each."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + 1e-3 * self.calls)


class CountingSine(nn.Module):
    """Likewise, in a buffer, with every generator that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
        return torch.sin(x * (1 + 1e-3 * self.calls + 1e-3 * noise))


class Hooked(Plain):
    """Notes the calls of an activation of its own, and of a network with its own ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        layers = [Lambda(torch.sin) if isinstance(layer, nn.Tanh) else layer for layer in self.net]
        self.shapes: list[tuple[int, ...]] = []
        self.net = Reshaped(*layers)
        for part in (layers[1], self.net):
            part.register_forward_hook(lambda _, __, y: self.shapes.append(tuple(y.shape)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Plain:
        raise RuntimeError("copied with its network")


def left_behind(module: Plain, *callbacks: pl.Callback) -> list[Any]:
    """Parameters, buffers, counters and generators after a fit."""
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    train(module, *callbacks, steps=4)
    state = {name: value.tolist() for name, value in module.state_dict().items()}
    calls = [vars(part).get("calls") for part in module.modules()]
    numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    generators = [torch.get_rng_state().tolist(), numpy, random.getstate()]
    return [state, calls, getattr(module, "shapes", None), generators]


@pytest.mark.parametrize(
    ("kind", "measured"),
    [
        (lambda: Other(lambda m: setattr(m, "net", Counting(*m.net))), True),
        (lambda: activated(CountingSine), False),
        (Hooked, True),
        (lambda: Plain("lbfgs"), True),
    ],
    ids=["network", "activation", "hooks", "lbfgs"],
)
def test_training_is_bit_identical_and_no_module_is_run_besides(
    kind: Callable[[], Plain], measured: bool
):
    monitor = NTKMonitor(every_n_steps=1)
    assert left_behind(make(kind), monitor) == left_behind(make(kind))
    assert (DISTANCE in monitor.history) == measured


def listening(module: Plain, *, due: bool = True) -> DistanceFromLimit:
    limit = DistanceFromLimit()
    limit.fit_starts(module, resumed=False)
    limit.batch_starts(due=due)
    return limit


def test_it_may_be_pickled_while_it_listens():
    module = make(Plain)
    limit = listening(module)
    step = look(module.net(OWN_INPUTS).square().mean(), module)
    assert pickle.loads(pickle.dumps(limit)).read(step) is None  # it is attached to nothing
    assert copy.deepcopy(limit).state_dict() == {}
    expected = distance_to_limit(module.net, OWN_INPUTS)
    values = limit.read(step).values
    assert values == {"distance_to_limit": pytest.approx(expected, rel=1e-12)}
    again = pickle.loads(pickle.dumps(limit))
    again.fit_starts(module, resumed=False)
    assert again.read(step).values == values == limit.read(step).values
    with torch.no_grad():
        module.net[0].weight.fill_(torch.nan)
    assert limit.read(step) is None


def test_a_compiled_network_is_compiled_to_the_same():
    def graphs(due: bool) -> list[str]:
        found: list[str] = []

        def note(graph: torch.fx.GraphModule, _: Any) -> Any:
            found.extend(str(node.target) for node in graph.graph.nodes if node.op != "placeholder")
            return graph.forward

        torch._dynamo.reset()
        module = make(Plain)
        limit = listening(module, due=due)
        torch.compile(module.net, backend=note, fullgraph=True)(OWN_INPUTS)
        step = look(None, module, residuals={"head": 2 * module.net[4].weight})
        assert limit.read(step) is None
        return found

    assert graphs(due=True) == graphs(due=False) != []


def hooks(module: Plain) -> int:
    return sum(len(part._forward_pre_hooks) for part in module.modules())


class Copied(Plain):
    """Copies and pickles its network behind the first call, while it is listened to."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().residuals(batch)
        self.hooks.append(hooks(self))
        for other in (copy.deepcopy(self.net), pickle.loads(pickle.dumps(self.net))):
            other(torch.ones(3, 1, dtype=torch.float64))
            for part in other.modules():
                assert all(hook.inputs is None for hook in part._forward_pre_hooks.values())
        return found


class Unheard(Mapped):
    """Gives no points at all, so that it is listened to again."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.hooks.append(hooks(self))
        return super().residuals(batch)


@pytest.mark.parametrize(
    ("kind", "steps", "expected"),
    [
        (Copied, range(6), [2, 0, 0, 0, 0, 0]),  # in the first batch only
        (Unheard, [2, 4], [2, 0, 2, 0, 2, 2]),  # in those that are due only
        (Unheard, [0, 1], [2, 2, 0, 0, 0, 2]),
    ],
)
def test_which_batches_are_listened_to(kind: type[Plain], steps: Any, expected: list[int]):
    module = make(kind)
    module.hooks = []
    train(module, NTKMonitor(steps=list(steps)), steps=6)
    assert module.hooks == expected
    assert hooks(module) == 0


def test_an_exception_takes_the_hook_off():
    class Interrupted(Plain):
        def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.append(hooks(self))
            raise ZeroDivisionError

    seen: list[int] = []
    module = make(Interrupted)
    with pytest.raises(ZeroDivisionError):
        train(module, NTKMonitor(), steps=3)
    assert (seen, hooks(module)) == ([2], 0)


# --- Fits that go on


class Late(Mapped):
    """Gives points from the fifth step on."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return (Mapped if self.global_step < 4 else Plain).residuals(self, batch)


@pytest.mark.parametrize(
    ("kind", "options", "first", "steps"),
    [
        (Plain, {"every_n_steps": 2, "save_start": True}, [0, 2], [0, 2, 4, 6]),
        (Plain, {"every_n_steps": 2, "save_start": False}, [0, 2], [0, 2, 4, 6]),
        (Late, {}, [], [4, 5, 6]),  # the start is kept before there are points
    ],
)
def test_a_resumed_run_measures_from_the_same_limit(
    tmp_path: Path, kind: type[Plain], options: dict[str, Any], first: list[int], steps: list[int]
):
    whole, _ = run(make(kind), 7, **options)
    begun, fit = run(make(kind), 3, **options)
    fit.save_checkpoint(tmp_path / "c.ckpt")
    second, _ = run(make(kind), 7, tmp_path / "c.ckpt", **options)
    assert (list(distances(begun)), list(distances(second))) == (first, steps)
    assert distances(second) == distances(whole)


def test_trained_weights_do_not_tell_how_they_started(tmp_path: Path):
    _, fit = run(make(Plain), 3)
    fit.save_checkpoint(tmp_path / "c.ckpt")
    checkpoint = torch.load(tmp_path / "c.ckpt", weights_only=False)
    (state,) = (v for k, v in checkpoint["callbacks"].items() if k.startswith("NTKMonitor"))
    kept = state["diagnostics"]["states"].pop("distance_to_limit")
    assert set(kept) == {"points", "limit", "weight_std", "bias_std"}
    torch.save(checkpoint, tmp_path / "c.ckpt")
    monitor, _ = run(make(Plain), 6, tmp_path / "c.ckpt")
    assert list(distances(monitor)) == [0, 1, 2]
    assert len(monitor.history["ntk/trace/pde"]) == 6


def test_another_module_has_a_limit_of_its_own():
    monitor = NTKMonitor(every_n_steps=1)
    train(make(Plain), monitor, steps=2)
    module = make(Plain)
    with torch.no_grad():
        module.net[0].weight.mul_(2)
    train(module, monitor, steps=2)
    assert distances(monitor) == module.distances(0, 1)


class Checkpointed(Plain):
    """Its network is run again in the backward pass, hooks included."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        u, ends = (checkpoint(self.net, batch[x], use_reentrant=False) for x in ("x", "ends"))
        return {"pde": u - torch.sin(3 * batch["x"]), "bc": ends}


def test_a_network_that_is_checkpointed_trains_as_without():
    compare(Checkpointed, NTKMonitor(every_n_steps=1), fit={"steps": 3})
