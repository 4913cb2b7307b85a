"""The table of operations: each activation of torch takes one backward pass, and no more.

Activations are those modules of ``torch.nn.modules.activation`` that make each number from one
number, found by trying, so that what a new torch brings is tested from its first day.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import activation as activations

from pinn_ntk import empirical_ntk, reference_ntk
from pinn_ntk.graph import operations
from pinn_ntk.graph.operations import Operation, operation
from tests.asserts import assert_near, backward_passes
from tests.networks import own_function, plain
from tests.operators import grad, points

pytestmark = pytest.mark.usefixtures("float64")

ARGUMENTS: dict[str, tuple[object, ...]] = {"Threshold": (0.1, 0.2), "MultiheadAttention": (3, 1)}
VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "GELU(tanh)": lambda: nn.GELU(approximate="tanh"),
    "RReLU.train": nn.RReLU,
    "Softplus(3)": lambda: nn.Softplus(beta=3),
}
OTHERS = {"GLU", "LogSoftmax", "MultiheadAttention", "Softmax", "Softmax2d", "Softmin"}
"""Modules that mix the entries of a point, or halve them."""

NO_DERIVATIVE = {"Hardsigmoid"}
"""Modules whose backward pass torch cannot differentiate: a residual holds their values alone."""


def named_modules() -> dict[str, Callable[[], nn.Module]]:
    made = {name: getattr(activations, name) for name in activations.__all__}
    return {
        name: lambda name=name, make=make: make(*ARGUMENTS.get(name, ())).eval()
        for name, make in made.items()
    }


def is_pointwise(module: nn.Module) -> bool:
    """Whether one entry of the input changes that entry of the output, and no other."""
    x = torch.linspace(-2, 2, 12).view(4, 3)
    try:
        before, after = module(x), module(x + 3 * torch.eye(4, 3))
    except (TypeError, ValueError, RuntimeError):
        return False
    return before.shape == x.shape and bool(((before == after) | (torch.eye(4, 3) > 0)).all())


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
def test_every_activation_of_torch_is_found() -> None:
    made = named_modules()
    assert {name for name in made if not is_pointwise(made[name]())} == OTHERS


ACTIVATIONS = {n: m for n, m in named_modules().items() if n not in OTHERS} | VARIANTS


def residual_of(net: nn.Module, x: Tensor, name: str) -> Tensor:
    """u + u_x + u_xx: many a second derivative is zero."""
    u = net(x)
    if name in NO_DERIVATIVE:
        return u
    u_x = grad(u, x)
    return u + u_x + grad(u_x, x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_backward_pass_for_every_activation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = plain(1, 1, activation=ACTIVATIONS[name]), points(7, 1)
    residual = residual_of(net, x, name)
    expected = reference_ntk(residual, net)["residual", "residual"]
    passes = backward_passes(monkeypatch)
    kernel = empirical_ntk(residual, net, certify=False)
    assert kernel.jacobian("residual").fallbacks == {}
    assert len(passes) == 1
    assert_near(kernel["residual"], expected, 1e-12, "K")


def made_by(make: Callable[[Tensor], Tensor]) -> Operation:
    return operation(make(torch.rand(3, 2, requires_grad=True)).grad_fn)


NAMES: dict[str, tuple[Callable[[Tensor], Tensor], set[str]]] = {
    # name -> operation, and some of the properties that it has or lacks
    "Tanh": (torch.tanh, {"pointwise", "of_leaves", "bends"}),
    "GeluBackward": (lambda x: grad(nn.functional.gelu(x), x), {"pointwise"}),
    "SliceBackward": (lambda x: grad(x[:, :1].square(), x), {"keeps_axis"}),
    "TanhBackward": (own_function("Tanh", lambda _, x: x.flip(0), lambda _, g: g.flip(0)), set()),
    "Flip": (lambda x: x.flip(0), set()),
    "Sub": (lambda x: x - x, {"pointwise", "of_leaves", "weighs"}),
    "Squeeze": (
        lambda x: x.squeeze(1),
        {"view", "keeps_numbers", "keeps_axis", "weighs", "rescales", "of_leaves"},
    ),
    "T": (torch.t, {"view", "weighs", "rescales", "of_leaves"}),
    "MseLoss": (lambda x: nn.functional.mse_loss(x, torch.ones(3, 2)), {"subtracts"}),
}


@pytest.mark.parametrize("name", NAMES)
def test_name_and_properties(name: str) -> None:
    make, properties = NAMES[name]
    found = made_by(make)
    assert found.name == name
    assert {p for p, value in vars(found).items() if value is True} == properties


@pytest.mark.parametrize(
    ("make", "partners"),
    [
        (lambda x: x * x, {0: "other", 1: "self"}),
        (lambda x: x @ x.T, {0: "mat2", 1: "self"}),
        (lambda x: torch.addmm(x, x, x[:2]), {1: "mat2", 2: "mat1"}),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), {}),  # DivBackward3 is not read
    ],
)
def test_partners_are_what_is_saved(make: Callable, partners: dict[int, str]) -> None:
    assert made_by(make).partners == partners


def test_no_name_is_misspelt() -> None:
    known = {name.partition("Backward")[0] for name in dir(torch._C._functions)}
    assert set(operations._TABLE) - known == {"CopyBackwards"}
