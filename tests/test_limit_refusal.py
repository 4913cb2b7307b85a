"""Why a network has no limit kernel here, in words: the part that is in the way is named."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pinn_ntk import distance_to_limit, to_ntk_parametrization
from pinn_ntk.limit.refusal import refusal


def net(activation: nn.Module, *more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, 8), activation, *more, nn.Linear(8, 1))


def old(norm: str) -> nn.Sequential:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(getattr(nn.utils, norm)(nn.Linear(1, 8)), *net(nn.Tanh())[1:])


def tied() -> nn.Sequential:
    layer = nn.Linear(8, 8)
    return net(nn.Tanh(), layer, nn.Tanh(), layer, nn.Tanh())


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "elu": (lambda: net(nn.ELU()), "ELU(alpha=1.0) is not a smooth elementwise function"),
    "hardtanh": (lambda: net(nn.Hardtanh()), "Hardtanh(min_val=-1.0, max_val=1.0) is not a smooth"),
    "prelu": (lambda: net(nn.PReLU()), "module '1' is a PReLU with parameters"),
    "softmax": (lambda: net(nn.Softmax(0)), "Softmax(dim=0) is not a smooth elementwise function"),
    "two kinds": (
        lambda: net(nn.Tanh(), nn.Linear(8, 8), nn.ReLU()),
        "its activations differ: Tanh(), ReLU().",
    ),
    "dropout": (lambda: net(nn.Tanh(), nn.Dropout()), "module 2 is a Dropout, in the place of a"),
    "ends in one": (lambda: net(nn.Tanh())[:2], "it ends in Tanh(); expected a linear layer."),
    "one layer": (lambda: nn.Sequential(nn.Linear(1, 1)), "it has a single layer"),
    "no Sequential": (lambda: nn.Linear(1, 1), "it holds no nn.Sequential of linear layers"),
    "convolution": (lambda: nn.Sequential(nn.Conv1d(1, 8, 1)), "it holds no nn.Sequential of"),
    "two networks": (
        lambda: nn.ModuleList([net(nn.Tanh()), net(nn.Tanh())]),
        "it holds 2 such networks; give one of them.",
    ),
    "weight norm": (
        lambda: net(nn.Tanh(), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Tanh()),
        "layer 2 has a reparametrised weight: parametrizations.weight.original0, ",
    ),
    "old weight norm": (
        lambda: old("weight_norm"),
        "layer 0 has a reparametrised weight: weight_g",
    ),
    "spectral norm": (
        lambda: old("spectral_norm"),
        "layer 0 has a reparametrised weight: weight_o",
    ),
    "tied": (tied, "layers of Sequential("),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_in_the_way_is_named(name: str):
    make, said = REFUSED[name]
    module = make()
    assert refusal(module).startswith(said)
    with pytest.raises(
        ValueError, match=r"^expected one nn\.Sequential of linear layers"
    ) as raised:
        distance_to_limit(module, torch.rand(3, 1))
    assert f"got {type(module).__name__}: {said}" in str(raised.value)


def test_a_plain_network_is_not_refused():
    assert refusal(nn.ModuleDict({"u": net(nn.SiLU())})) == ""


@pytest.mark.parametrize("name", ["weight norm", "old weight norm", "spectral norm"])
def test_no_image_of_a_weight_that_is_computed(name: str):
    with pytest.raises(ValueError, match=r"layer '\d' computes its weight from .*weight_norm\.$"):
        to_ntk_parametrization(REFUSED[name][0]())


@pytest.mark.parametrize(
    "use", [to_ntk_parametrization, lambda n: distance_to_limit(n, torch.rand(3, 1))]
)
def test_a_lazy_network_is_to_be_called_first(use: Callable[[nn.Module], object]):
    lazy = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(1))
    with pytest.raises(
        ValueError, match=r"LazyLinear.* has no parameters yet; .* Call the network"
    ):
        use(lazy)
    lazy(torch.rand(3, 1))
    assert use(lazy) is not None
