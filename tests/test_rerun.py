"""A step run again on a copy of the module: what is changed, and what stays untouched."""

from __future__ import annotations

import copy
import random
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from pinn_ntk.looks.copies import copied
from pinn_ntk.looks.digest import RandomStates
from pinn_ntk.looks.held import bytes_held, held
from pinn_ntk.looks.in_double import InDouble
from pinn_ntk.looks.networks import zero
from pinn_ntk.looks.outside import iterators
from pinn_ntk.looks.plain import is_plain
from pinn_ntk.looks.rerun import Change, Rerun

Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Sampler:
    """Draws points, and knows how often it did."""

    grid: Tensor
    count: int = 0

    def draw(self) -> Tensor:
        self.count += 1
        numbers = np.random.rand(), random.random()  # noqa: NPY002
        return self.grid + torch.rand(1) + float(sum(numbers))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.points = torch.linspace(0, 1, 5)[:, None].requires_grad_()
        self.register_buffer("shift", torch.ones(1))
        self.sampler = Sampler(torch.zeros(5, 1))
        self.held = {"a": [torch.ones(2)], "pair": Pair(torch.zeros(3), 2.0)}
        self.seen: Tensor | None = None
        self.calls = 0


def residuals(module: Net, batch: Any) -> Mapping[str, Tensor]:
    module.calls += 1
    u = module.net(module.points + module.sampler.draw())
    module.seen = u.sum()
    print("a line of the user's")
    return {"data": u - batch["y"] - module.shift, "bc": module.net(torch.zeros(2, 1))}


def made(module: Net | None = None) -> Rerun:
    return Rerun(module or Net(), {"y": torch.ones(5, 1)}, residuals)


def once(module: Net) -> dict[str, Tensor]:
    return dict(residuals(module, {"y": torch.ones(5, 1)}))


def test_a_run_gives_what_the_step_gives_and_touches_nothing(capsys: pytest.CaptureFixture[str]):
    module = Net()
    rerun = made(module)
    states = {k: v.clone() for k, v in module.state_dict().items()}
    before = RandomStates.now(torch.device("cpu"))
    first, second = rerun(), rerun()
    assert not RandomStates.now(torch.device("cpu")).drawn_since(before)
    assert (module.calls, module.sampler.count, module.seen) == (0, 0, None)
    assert all(torch.equal(value, states[k]) for k, value in module.state_dict().items())
    assert capsys.readouterr().out == ""
    step = once(module)
    for name, residual in step.items():
        assert torch.equal(first.residuals[name], residual)
        assert torch.equal(second.residuals[name], residual)
    assert capsys.readouterr().out != ""


def test_the_batch_and_the_points_that_the_step_changes_in_place_are_as_they_were():
    batch = {"y": torch.ones(3)}
    rerun = Rerun(nn.Linear(1, 1), batch, lambda _, b: {"r": b["y"].add_(1.0)})
    batch["y"].zero_()
    assert [rerun().residuals["r"].tolist() for _ in range(2)] == [[2.0] * 3] * 2


def test_a_run_to_spare_is_given_once():
    rerun = made()
    spare = rerun.plain()
    changed = rerun(Change(output=zero))
    assert rerun() is spare
    assert rerun() is not spare
    assert not torch.equal(changed.residuals["data"], spare.residuals["data"])
    rerun.plain()
    assert rerun.with_parameters({}) is not rerun
    assert torch.equal(rerun.with_parameters({})().residuals["data"], spare.residuals["data"])


def test_a_network_that_gives_zero():
    ran = made()(Change(output=zero))
    assert torch.equal(ran.residuals["data"], torch.full((5, 1), -2.0))
    assert torch.equal(ran.residuals["bc"], torch.zeros(2, 1))
    ran.residuals["data"].sum().backward()  # it is still a function of the parameters
    assert all(p.grad is not None for p in ran.params.values())


def test_all_tensors_that_a_step_holds_are_shown_by_name_and_can_be_replaced():
    seen = {}

    def moved(name: str, tensor: Tensor) -> Tensor:
        seen[name] = tensor.shape
        return tensor + 1 if name == "points" else tensor

    rerun = made()
    ran = rerun(Change(tensors=moved))
    assert set(seen) >= {"points", "shift", "sampler.grid", "held.a.0", "held.pair.0", "batch.y"}
    assert not any("weight" in name or "bias" in name for name in seen)
    assert torch.equal(ran.tensors["points"], rerun.module.points + 1)
    assert ran.tensors["points"].requires_grad
    assert not torch.equal(ran.residuals["data"], rerun().residuals["data"])
    assert torch.equal(
        rerun(Change(tensors=lambda _, t: t)).residuals["data"], rerun().residuals["data"]
    )


def test_a_tensor_that_stands_at_two_places_is_one():
    class Two(nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.points = torch.zeros(2, 1)
            self.also = [self.points]

    def both(module: Two, batch: Any) -> dict[str, Tensor]:
        assert module.also[0] is module.points is batch
        return {"r": module(batch)}

    module = Two()
    rerun = Rerun(module, module.points, both)
    ran = rerun(Change(tensors=lambda _, t: t + torch.rand(2, 1)))
    assert ran.tensors.keys() == {"points", "also.0", "batch"}


def test_other_parameters_and_a_direction_in_their_space():
    rerun = made()
    moved = rerun(Change(parameters=lambda _, p: p + 0.1))
    later = rerun.with_parameters({n: p + 0.1 for n, p in rerun.module.named_parameters()})
    assert torch.equal(moved.residuals["data"], later().residuals["data"])
    assert not torch.equal(moved.residuals["data"], rerun().residuals["data"])


def test_in_float64_the_points_are_the_same():
    torch.manual_seed(0)
    rerun = made()
    single, double = rerun(), rerun(Change(double=True))
    for name, residual in double.residuals.items():
        assert residual.dtype == torch.float64
        torch.testing.assert_close(residual.float(), single.residuals[name], rtol=1e-4, atol=1e-5)
    assert not torch.equal(double.residuals["data"].float(), single.residuals["data"])


def test_casts_and_what_is_made_within_are_of_float64():
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    with InDouble():
        assert torch.zeros(2, requires_grad=True).requires_grad
        made = [torch.rand(1), w.float(), w.to(torch.float32), (0.1 * w).float(), torch.arange(2.0)]
        assert {t.dtype for t in made} == {torch.float64}
        assert (0.1 * w).float().item() == 0.1
        assert torch.arange(2).dtype == torch.int64
    assert torch.zeros(1).dtype == torch.float32


def test_what_no_module_holds_is_of_float64_beside_what_is():
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    points = torch.tensor([0.1, 0.2])
    with InDouble():
        added, stacked = w + points, torch.cat([w, points])
        layered = nn.functional.linear(points[:, None], w[:, None])
        slope = torch.autograd.grad((w * points).sum(), w)[0]
        points.add_(1)
    assert {t.dtype for t in (added, stacked, layered, slope)} == {torch.float64}
    assert torch.equal(stacked[1:], torch.tensor([0.1, 0.2]).double())
    assert torch.equal(points, torch.tensor([1.1, 1.2]))


def test_random_states_go_through_plain_values():
    def numbers() -> tuple[float, ...]:
        return (
            torch.rand(1).item(), float(np.random.randn()), random.gauss(0, 1), random.random()  # noqa: NPY002
        )  # fmt: skip

    numbers()  # a second normal number is in store
    states = RandomStates.now(torch.device("cpu"))
    state = states.state_dict()
    assert is_plain(state)
    drawn = numbers()
    RandomStates.of_state(state).restore(torch.device("cpu"))
    assert numbers() == drawn != numbers()


def test_a_seed_draws_other_numbers():
    rerun = made()
    other = rerun(Change(seed=1)).residuals["data"]
    assert not torch.equal(other, rerun().residuals["data"])


class Counter:
    def __init__(self) -> None:
        self.n = 0


def test_functions_with_what_they_enclose_are_copied():
    count, counter = 0, Counter()

    def drawn() -> int:
        nonlocal count
        count += 1
        counter.n += 1
        return count

    module = nn.Linear(1, 1)
    module.also, module.sample, module.lib = [partial(drawn)], drawn, np
    other = copied(module)
    alone = nn.Linear(1, 1)
    alone.sample = partial(drawn)
    assert (copied(alone).sample(), count) == (1, 0)
    assert (other.sample(), other.also[0](), count, counter.n) == (1, 2, 0, 0)
    assert other.lib is np
    assert (module.sample(), counter.n) == (1, 1)


class Labelled(Tensor):
    """Points with labels, which copy themselves as some libraries write it."""

    def __deepcopy__(self, memo: Any) -> Labelled:
        return copy.deepcopy(self.as_subclass(Tensor)).as_subclass(Labelled)


def test_subclasses_of_tensors_are_copied_whatever_they_say_of_it():
    module = nn.Linear(1, 1)
    module.points = torch.rand(3, 1).as_subclass(Labelled).requires_grad_()
    module.points.labels = ["x"]
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(module.points)
    other = copied(module)
    assert type(other.points) is Labelled
    assert other.points.labels == ["x"]
    assert other.points.requires_grad
    assert torch.equal(other.points, module.points)
    assert other.points.data_ptr() != module.points.data_ptr()


def test_tensors_of_a_graph_are_copied_as_leaves():
    module = Net()
    once(module)
    assert module.seen.grad_fn is not None
    assert torch.equal(copied(module).seen, module.seen)


def test_what_has_no_copy_raises():
    module = nn.Linear(1, 1)
    module.points = (x for x in range(3))
    with pytest.raises(TypeError, match="generator"):
        Rerun(module, None, residuals)


def test_calls_of_networks_are_seen_from_outside():
    calls = made()().calls
    assert [(call.name, call.leaf) for call in calls] == [("net", False)] * 2
    assert [tuple(call.inputs[0].shape) for call in calls] == [(5, 1), (2, 1)]


def test_behind_vmap_the_points_of_all_rows_are_seen():
    def forward(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
        def slope(one: Tensor) -> Tensor:
            return jvp(lambda z: module(z[None])[0], (one,), (torch.ones_like(one),))[1]

        return {"r": vmap(slope)(x)}

    net = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
    ran = Rerun(net, torch.rand(6, 1), forward)()
    (call,) = ran.calls
    assert call.inputs[0].numel() == 6
    assert float(call.inputs[0].max()) <= 1.0


def test_a_run_that_fails_leaves_nothing_behind():
    def fails(module: nn.Module, _: Any) -> dict[str, Tensor]:
        torch.rand(1)
        raise ZeroDivisionError

    module = nn.Linear(1, 1)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        Rerun(module, None, fails)()
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_held_is_counted_and_long_lists_are_data():
    module = nn.Linear(2, 1)
    module.data = list(range(20_000))
    module.x = torch.zeros(3, dtype=torch.float64)
    module.again = module.x
    module.array = np.zeros(5)
    assert bytes_held(module, {"y": torch.zeros(1)}) == 3 * 4 + 3 * 8 + 4 + 5 * 8
    tensors = [place.path for place in held(module) if isinstance(place.value, Tensor)]
    assert tensors == ["x", "again"]


DRAWN: list[int] = []


class Tallied:
    """An object outside of the module."""

    def __init__(self) -> None:
        self.count, self.seen, self.generator = 0, [0], np.random.default_rng(0)


TALLY, NUMBER = Tallied(), 0


class Outward(nn.Linear):
    calls = 0


def outward(module: Outward, _: Any) -> dict[str, Tensor]:
    global NUMBER  # noqa: PLW0603
    NUMBER += 1
    type(module).calls += 1
    DRAWN.append(NUMBER)
    TALLY.count += 1
    TALLY.seen.append(NUMBER)
    return {"r": module(torch.full((1, 1), float(TALLY.generator.random())))}


def test_globals_and_attributes_of_classes_are_put_back():
    lists = DRAWN, TALLY.seen
    rerun = Rerun(Outward(1, 1), None, outward)
    first, second = rerun().residuals["r"], rerun().residuals["r"]
    assert torch.equal(first, second)
    assert (NUMBER, Outward.calls, DRAWN, TALLY.count, TALLY.seen) == (0, 0, [], 0, [0])
    assert lists[0] is DRAWN
    assert lists[1] is TALLY.seen
    outward(rerun.module, None)
    assert (NUMBER, Outward.calls, DRAWN, TALLY.count, TALLY.seen) == (1, 1, [1], 1, [0, 1])


STREAM = iter(range(9))
BOTH = {"points": iter(range(9))}


def streamed() -> int:
    return next(STREAM)


def test_iterators_that_a_module_reads_are_named():
    class Plain(nn.Linear):
        pass

    class Reads(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + sum(streamed() for _ in range(2)))

    class Picks(Plain):
        @property
        def points(self) -> int:
            return next(BOTH["points"])

    assert iterators(Plain(1, 1)) == []
    assert iterators(Reads(1, 1)) == ["STREAM"]
    assert iterators(nn.Sequential(Picks(1, 1))) == ["BOTH"]
