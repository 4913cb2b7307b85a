"""Taps: the tensor comes back as it was, and whoever listens hears of it in order."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from pinn_ntk import tap
from pinn_ntk.taps import listen, tell_weighted, unlisten


class Notes:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.taps: list[tuple[str, Tensor]] = []
        self.losses: list[tuple[str, Tensor]] = []

    def tapped(self, name: str, residual: Tensor) -> None:
        self.taps.append((name, residual))

    def weighted(self, name: str, loss: Tensor) -> None:
        self.losses.append((name, loss))

    def __eq__(self, other: object) -> bool:  # listeners are told apart by identity
        return True

    __hash__ = None


@pytest.fixture
def notes():
    listener = Notes()
    listen(listener)
    yield listener
    unlisten(listener)


def residual() -> Tensor:
    return torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True) * 3.0


def test_without_listeners_the_very_tensor_comes_back():
    r = residual()
    node, version = r.grad_fn, r._version
    assert tap(r, "pde") is r
    assert r.grad_fn is node
    assert (r._version, r._backward_hooks, r.retains_grad) == (version, None, False)


def test_a_listener_hears_of_every_tap_in_order(notes: Notes):
    first, second = residual(), torch.zeros(0)
    assert tap(first, "pde") is first
    assert tap(second, "bc") is second
    tap(first, "pde")
    assert [name for name, _ in notes.taps] == ["pde", "bc", "pde"]
    loss = residual().square().mean()
    tell_weighted("bc", loss)
    ((name, heard),) = notes.losses
    assert (name, heard is loss) == ("bc", True)
    given = [first, second, first]
    assert all(heard is r for (_, heard), r in zip(notes.taps, given, strict=True))


def test_the_gradient_is_that_without_a_tap(notes: Notes):
    weight = torch.tensor([2.0, -3.0], dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad((weight**2).pow(2).sum(), weight)
    loss = tap(weight**2, "pde").pow(2).sum()
    (tapped,) = torch.autograd.grad(loss, weight, retain_graph=True)
    assert torch.equal(tapped, plain)
    assert torch.equal(plain, 4 * weight.detach() ** 3)
    ((_, heard),) = notes.taps
    (upstream,) = torch.autograd.grad(heard.sum(), weight)
    assert torch.equal(upstream, 2 * weight.detach())


def test_several_listeners_each_hear_once():
    first, second = Notes(), Notes()
    for listener in (first, second, first):
        listen(listener)
    tap(residual(), "pde")
    unlisten(first)
    tap(residual(), "bc")
    unlisten(second)
    tap(residual(), "ic")
    unlisten(second)
    assert [name for name, _ in first.taps] == ["pde"]
    assert [name for name, _ in second.taps] == ["pde", "bc"]


def test_a_listener_may_leave_while_it_hears(notes: Notes):
    class Once(Notes):
        def tapped(self, name: str, residual: Tensor) -> None:
            super().tapped(name, residual)
            unlisten(self)

    once, later = Once(), Notes()
    listen(once)
    listen(later)
    tap(residual(), "pde")
    tap(residual(), "bc")
    unlisten(later)
    assert [len(listener.taps) for listener in (once, later, notes)] == [1, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        (("pde", torch.zeros(2)), "a str and a Tensor"),
        ((1.0, "pde"), "a float and a str"),
        ((torch.zeros(2), 3), "a Tensor and a int"),
    ],
)
def test_swapped_or_wrong_arguments_are_refused(arguments: tuple, got: str):
    with pytest.raises(TypeError, match=f"it got {got}. Were they swapped"):
        tap(*arguments)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_tap_can_be_copied_with_what_holds_it(duplicate):
    assert duplicate({"tap": tap})["tap"] is tap


# torch's own, where compiled code takes a tensor with a history.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_step_runs_through_without_listeners_and_breaks_where_one_listens():
    def loss(x: Tensor) -> Tensor:
        return tap(3 * x, "pde").square().sum()

    x = torch.tensor([1.0, 2.0], requires_grad=True)
    whole = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert whole(x).item() == 45.0
    broken = torch.compile(loss, backend="aot_eager")
    assert broken(x).item() == 45.0
    notes = Notes()
    listen(notes)
    try:
        value = broken(x)
    finally:
        unlisten(notes)
    ((name, heard),) = notes.taps
    assert (name, heard.tolist()) == ("pde", [3.0, 6.0])
    (gradient,) = torch.autograd.grad(value, heard, retain_graph=True)  # it is a step of the graph
    assert gradient.tolist() == [6.0, 12.0]
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.tolist() == [18.0, 36.0]
