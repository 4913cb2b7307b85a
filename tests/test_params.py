"""Every form in which parameters may be given, and what is said of those that cannot be used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk.graph.params import named_leaves


class Tied(nn.Module):
    """Two layers that own one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(2, 2), nn.Linear(2, 2)
        self.other.weight = self.one.weight


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1, bias=False))


BY_NAME = ["0.weight", "0.bias", "1.weight"]
BY_NUMBER = ["param_0", "param_1", "param_2"]
FORMS: dict[str, tuple[Callable[[nn.Module], object], list[str]]] = {
    "module": (lambda net: net, BY_NAME),
    "pairs": (lambda net: list(net.named_parameters()), BY_NAME),
    "iterator_of_pairs": (lambda net: net.named_parameters(), BY_NAME),
    "dict": (lambda net: dict(net.named_parameters()), BY_NAME),
    "ordered_dict": (lambda net: OrderedDict(net.named_parameters()), BY_NAME),
    "iterator": (lambda net: net.parameters(), BY_NUMBER),
    "tuple": (lambda net: tuple(net.parameters()), BY_NUMBER),
    "parameter_list": (lambda net: nn.ParameterList(net.parameters()), ["0", "1", "2"]),
    "optimizer": (lambda net: torch.optim.Adam(net.parameters()), BY_NUMBER),
    "groups": (
        lambda net: torch.optim.SGD([{"params": [p]} for p in net.parameters()], lr=1.0),
        BY_NUMBER,
    ),
    "each_twice": (lambda net: [*net.parameters(), *net.parameters()], BY_NUMBER),
    "some_named": (
        lambda net: [net[0].weight, ("b", net[0].bias), net[1].weight],
        ["param_0", "b", "param_2"],
    ),
    "names_that_are_no_strings": (lambda net: dict(enumerate(net.parameters())), ["0", "1", "2"]),
}


@pytest.mark.parametrize(("form", "names"), FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_leaves_in_order(
    net: nn.Module, form: Callable[[nn.Module], object], names: list[str]
) -> None:
    leaves = named_leaves(form(net))
    assert list(leaves) == names
    assert [id(leaf) for leaf in leaves.values()] == [id(p) for p in net.parameters()]


def test_one_bare_tensor() -> None:
    leaf = torch.ones(3, requires_grad=True)
    assert named_leaves(leaf) == {"param_0": leaf}


def test_shared_weights_count_once() -> None:
    assert list(named_leaves(Tied())) == ["one.weight", "one.bias", "other.bias"]


def test_frozen_ones_are_left_out_and_numbers_stay(net: nn.Sequential) -> None:
    net[0].bias.requires_grad_(False)
    assert list(named_leaves(net)) == ["0.weight", "1.weight"]
    assert list(named_leaves(net.parameters())) == ["param_0", "param_2"]


def test_frozen_tensors_need_not_be_leaves_nor_have_names_of_their_own() -> None:
    leaf, data = torch.ones(2, requires_grad=True), torch.ones(2) * 2
    assert named_leaves([("a", data), ("a", leaf)]) == {"a": leaf}


def leaf() -> Tensor:
    return torch.ones(2, requires_grad=True)


EMPTY = r"params holds no trainable tensor: expected at least one.*can be read once"
UNUSABLE: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "empty": (list, ValueError, EMPTY),
    "exhausted": (lambda: iter(()), ValueError, EMPTY),
    "frozen": (lambda: nn.Linear(1, 1).requires_grad_(False), ValueError, EMPTY),
    "no_parameters": (nn.Tanh, ValueError, EMPTY),
    "name_twice": (
        lambda: [("w", leaf()), ("w", leaf())],
        ValueError,
        "two different tensors in params are called 'w'",
    ),
    "no_leaf": (
        lambda: {"w": leaf() * 2},
        ValueError,
        r"params\['w'\] is not a leaf \(made by <MulBackward0",
    ),
    "complex": (
        lambda: [torch.ones(2, dtype=torch.cfloat, requires_grad=True)],
        ValueError,
        r"params\['param_0'\] is complex \(torch.complex64\)",
    ),
    "number": (lambda: [1.0], TypeError, r"params\[0\] is a float; expected a tensor"),
    "module_in_list": (lambda: [leaf(), nn.Linear(1, 1)], TypeError, r"params\[1\] is a Linear"),
    "text": (lambda: "weights", TypeError, r"params\[0\] is a str"),
    "names_only": (lambda: [("w", "b")], TypeError, r"params\[0\] is a tuple"),
}


@pytest.mark.parametrize(("params", "error", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_named(
    params: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        named_leaves(params())
