"""Random weight factorisation: linear layers in other parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class RandomWeightFactorization(nn.Module):
    """A linear layer as W = diag(exp(s)) V (Wang, Wang, Seidman, Perdikaris 2022).

    It starts from the weight of ``layer``: s is drawn, and V = diag(exp(-s)) W.

    Args:
        layer: The layer that it replaces.
        mean: Mean of s.
        std: Standard deviation of s.
    """

    def __init__(self, layer: nn.Linear, mean: float = 1.0, std: float = 0.1) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.s = nn.Parameter(mean + std * torch.randn(len(weight), 1).to(weight))
        self.v = nn.Parameter(weight / self.s.detach().exp())
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """diag(exp(s)) V x + b, (N, n_out), for x of shape (N, n_in)."""
        return linear(x, self.s.exp() * self.v, self.bias)


def factorized(net: nn.Module, mean: float = 1.0, std: float = 0.1) -> nn.Module:
    """``net`` with a random weight factorisation in place of each linear layer."""
    for name, child in net.named_children():
        if isinstance(child, nn.Linear):
            setattr(net, name, RandomWeightFactorization(child, mean, std))
        else:
            factorized(child, mean, std)
    return net
