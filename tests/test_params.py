"""Every form in which parameters may be given, and what is said of those that cannot be used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk.graph.params import named_leaves
from tests.cases import FORMS


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1, bias=False))


@pytest.mark.parametrize(("form", "names"), FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_leaves_in_order(net, form: Callable, names: list[str]):
    leaves = named_leaves(form(net))
    assert list(leaves) == names
    assert [id(leaf) for leaf in leaves.values()] == [id(p) for p in net.parameters()]


def test_frozen_ones_are_left_out_numbers_stay_and_shared_ones_count_once(net: nn.Sequential):
    net[0].bias.requires_grad_(False)
    assert list(named_leaves(net)) == ["0.weight", "1.weight"]
    assert list(named_leaves(net.parameters())) == ["param_0", "param_2"]
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert list(named_leaves(tied)) == ["0.weight", "0.bias", "1.bias"]


def test_frozen_tensors_need_not_be_leaves_nor_have_names_of_their_own_nor_one_a_list():
    leaf, data = torch.ones(2, requires_grad=True), torch.ones(2) * 2
    assert named_leaves([("a", data), ("a", leaf)]) == {"a": leaf}
    assert named_leaves(leaf) == {"param_0": leaf}


def leaf() -> Tensor:
    return torch.ones(2, requires_grad=True)


EMPTY = r"params holds no trainable tensor: expected at least one.*can be read once"
UNUSABLE = {
    "empty": (list, EMPTY),
    "exhausted": (lambda: iter(()), EMPTY),
    "frozen": (lambda: nn.Linear(1, 1).requires_grad_(False), EMPTY),
    "no_parameters": (nn.Tanh, EMPTY),
    "name_twice": (
        lambda: [("w", leaf()), ("w", leaf())],
        "two different tensors in params are called 'w'",
    ),
    "no_leaf": (lambda: {"w": leaf() * 2}, r"params\['w'\] is not a leaf \(made by <MulBackward0"),
    "complex": (
        lambda: [leaf().detach().cfloat().requires_grad_()],
        r"params\['param_0'\] is complex \(torch.complex64\)",
    ),
}
OF_NO_KIND = {
    "number": (lambda: [1.0], r"params\[0\] is a float; expected a tensor"),
    "module_in_list": (lambda: [leaf(), nn.Linear(1, 1)], r"params\[1\] is a Linear"),
    "text": (lambda: "weights", r"params\[0\] is a str"),
    "names_only": (lambda: [("w", "b")], r"params\[0\] is a tuple"),
}


@pytest.mark.parametrize("name", UNUSABLE | OF_NO_KIND)
def test_what_cannot_be_used_is_named(name: str):
    params, message = (UNUSABLE | OF_NO_KIND)[name]
    with pytest.raises(TypeError if name in OF_NO_KIND else ValueError, match=message):
        named_leaves(params())
