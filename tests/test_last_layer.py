"""The parameters that make the output of a network zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from pinn_ntk.looks.last_layer import last_parameters


class Factored(nn.Module):
    """Random weight factorisation (Wang et al. 2022): a weight V diag(exp(s))."""

    def __init__(self) -> None:
        super().__init__()
        self.V, self.s = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(2))
        self.bias = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.V * torch.exp(self.s)[:, None]).T + self.bias


class LowRank(Factored):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.V.T @ self.V)[:, :2] * torch.exp(self.s)


def with_norm(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return norm(nn.Linear(4, 2))


LAST: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "linear": (lambda: nn.Linear(4, 2), {"2.weight", "2.bias"}),
    "no bias": (lambda: nn.Linear(4, 2, bias=False), {"2.weight"}),
    "weight norm": (
        lambda: with_norm(parametrizations.weight_norm),
        {"2.parametrizations.weight.original0", "2.bias"},
    ),
    "factored": (Factored, {"2.V", "2.bias"}),
    "low rank": (LowRank, {"2.V"}),
    "spectral norm": (lambda: with_norm(parametrizations.spectral_norm), set()),
}


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("live", [True, False])
def test_the_last_parameters_make_the_output_zero(name: str, live: bool):
    torch.manual_seed(0)
    last, expected = LAST[name]
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), last())
    x = torch.linspace(0, 1, 5)[:, None].requires_grad_(live)
    params = dict(net.named_parameters())
    found = last_parameters(1 + x * net(x), params)
    assert found == expected
    with torch.no_grad():
        for one in found:
            params[one].zero_()
    assert not found or torch.equal(net(x), torch.zeros(5, 2))
