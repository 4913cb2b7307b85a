"""Networks of the examples.

`network` puts together what the scripts can be asked for; the parts are for use on their own, too.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from gallery.embeddings import FourierFeatures, Number, numbers
from gallery.factorization import factorized


def network(
    n_in: int,
    n_out: int,
    width: int,
    depth: int,
    mean: Number,
    std: Number,
    frequencies: int = 0,
    scale: Number = 1.0,
    modified: bool = False,
    factorize: bool = False,
) -> nn.Module:
    """A network as the arguments of a script ask for it.

    Args:
        n_in: Inputs.
        n_out: Outputs.
        width: Neurons a layer.
        depth: Hidden layers.
        mean: Mean of the inputs; Fourier features are those of the raw inputs.
        std: Their standard deviation.
        frequencies: Random Fourier features in front of the first layer; 0 for none.
        scale: Standard deviation of their angular frequencies.
        modified: Take the modified MLP.
        factorize: Factorise the weights of its layers.
    """
    kind = ModifiedMLP if modified else MLP
    if frequencies:
        features = FourierFeatures(n_in, frequencies, scale)
        net = nn.Sequential(features, kind(frequencies, n_out, width, depth))
    else:
        net = kind(n_in, n_out, width, depth, mean, std)
    return factorized(net) if factorize else net


class MLP(nn.Module):
    """Tanh layers on standardised inputs; Glorot normal weights, zero biases.

    The standardisation is part of the network: derivatives come out in physical units.

    Args:
        n_in: Inputs.
        n_out: Outputs.
        width: Neurons a layer.
        depth: Hidden layers.
        mean: Subtracted from the inputs.
        std: The inputs are divided by it, behind the subtraction.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        width: int = 50,
        depth: int = 3,
        mean: Number = 0.0,
        std: Number = 1.0,
    ) -> None:
        super().__init__()
        self.mean, self.factor = numbers(mean, n_in), [1 / s for s in numbers(std, n_in)]
        sizes = [n_in, *[width] * depth, n_out]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))
        glorot(self.layers)

    def standardised(self, points: Tensor) -> Tensor:
        """The points (N, n_in), each input with mean 0 and variance 1."""
        return (points - points.new_tensor(self.mean)) * points.new_tensor(self.factor)

    def forward(self, points: Tensor) -> Tensor:
        """u, (N, n_out), at points (N, n_in)."""
        h = self.standardised(points)
        for layer in self.layers[:-1]:
            h = torch.tanh(layer(h))
        return self.layers[-1](h)


class ModifiedMLP(MLP):
    """The MLP of Wang, Teng, Perdikaris 2021: each hidden layer mixes two encoders of the input.

    U = tanh(W_u x + b_u),    V = tanh(W_v x + b_v),    h' = (1 - z) U + z V,    z = tanh(W h + b)

    As in ``MLP``, the first of the ``layers`` reads the inputs; it is followed by no mixture.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        width: int = 50,
        depth: int = 3,
        mean: Number = 0.0,
        std: Number = 1.0,
    ) -> None:
        super().__init__(n_in, n_out, width, depth, mean, std)
        self.encoders = nn.ModuleList(nn.Linear(n_in, width) for _ in range(2))
        glorot(self.encoders)

    def forward(self, points: Tensor) -> Tensor:
        """u, (N, n_out), at points (N, n_in)."""
        x = self.standardised(points)
        u, v = (torch.tanh(encoder(x)) for encoder in self.encoders)
        h = torch.tanh(self.layers[0](x))
        for layer in self.layers[1:-1]:
            z = torch.tanh(layer(h))
            h = (1 - z) * u + z * v
        return self.layers[-1](h)


def glorot(layers: nn.ModuleList) -> None:
    """Glorot normal weights and zero biases."""
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
