"""The cases that every path to the kernel is held against: network x operator x style x layout.

A case is built anew at each call of `build`, the same each time, with a live graph in float64.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tests.networks import NETWORKS
from tests.operators import LAYOUTS, N_BC, N_PDE, OPERATORS, SECOND, points

Built: TypeAlias = tuple[dict[str, Tensor], nn.Module | list[tuple[str, Tensor]]]

NO_RULE = {"batch_norm", "conv_transposed"}
"""Networks beyond the fast path: points interact, or an operation has no rule."""


@dataclass(frozen=True)
class Case:
    """Residuals by name (the PDE's first, then another term) and the parameters behind them.

    `path` says how the first term's Jacobian is to be found: "fast" (factors read off the graph),
    "generic" (fallback for at least one parameter), or "any" of the two.
    """

    id: str
    build: Callable[[], Built]
    path: str = "any"

    def __str__(self) -> str:
        return self.id


def coefficients(operator: str) -> dict[str, nn.Parameter]:
    """Trained numbers of an inverse problem; empty for the other operators."""
    shapes = OPERATORS[operator].coefficients
    return {
        name: nn.Parameter(torch.full(n, 0.5, dtype=torch.float64)) for name, n in shapes.items()
    }


def build_operator(network: str, operator: str, style: str) -> Built:
    """The operator's residual beside boundary values at other points.

    Parameters are the module, or named pairs where some live outside it (inverse problems).
    """
    op, trained = OPERATORS[operator], coefficients(operator)
    net = NETWORKS[network](op.in_dim, op.out_dim)
    residuals = {
        "pde": op.residual(net, points(N_PDE, op.in_dim), style, **trained),
        "bc": net(points(N_BC, op.in_dim, seed=1)),
    }
    return residuals, [*net.named_parameters(), *trained.items()] if trained else net


def build_layout(network: str, layout: str) -> Built:
    """The layout's terms; parameters as named pairs."""
    chosen = LAYOUTS[layout]
    net = NETWORKS[network](chosen.in_dim, chosen.out_dim)
    return chosen.residuals(net), list(net.named_parameters())


def operator_case(network: str, operator: str, style: str, path: str) -> Case:
    build = partial(build_operator, network, operator, style)
    return Case(f"{network}-{operator}-{style}", build, path)


def layout_case(network: str, layout: str, path: str) -> Case:
    return Case(f"{network}-{layout}", partial(build_layout, network, layout), path)


def network_cases() -> list[Case]:
    """Every network under u_xx, but for batch normalisation.

    Its output does not change when all points move together, so u_xx of the summed output is 0.
    """
    path = {name: "generic" if name in NO_RULE else "fast" for name in NETWORKS}
    second = [
        operator_case(name, "u_xx", "sum", path[name]) for name in NETWORKS if name != "batch_norm"
    ]
    norms = ("batch_norm", "layer_norm")
    return second + [operator_case(name, "grad_u", "sum", path[name]) for name in norms]


def operator_cases() -> list[Case]:
    return [
        operator_case("mlp", name, style, "fast")
        for name in OPERATORS
        for style in ("sum", "ones_like")
        if name != "u_xx"
    ]


def style_cases() -> list[Case]:
    """Every way to write u_xx; "sum" stands among `network_cases`."""
    networks = ("mlp", "siren", "weight_factorised", "layer_norm_by_hand")
    fast = {(name, "ones_like") for name in networks} | {("mlp", "vmap_jacrev_jacrev")}
    return [
        operator_case(name, "u_xx", style, "fast" if (name, style) in fast else "any")
        for name in networks
        for style in SECOND
        if style != "sum"
    ]


def layout_cases() -> list[Case]:
    columns = [layout_case("points_in_columns", name, "any") for name in ("one_call", "masked")]
    return [layout_case("mlp", name, layout.path) for name, layout in LAYOUTS.items()] + columns


CASES: list[Case] = [*network_cases(), *operator_cases(), *style_cases(), *layout_cases()]


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
"""Ways to hand over three parameters, or all of a network, and the names that they get."""
