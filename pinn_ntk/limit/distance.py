"""How far the kernel of a network is from its limit of infinite width.

| symbol | meaning | shape |
| --- | --- | --- |
| K | kernel of the network in the NTK parametrisation, between outputs and points | (C, N, C, N) |
| Theta | limit kernel, the same for every output, 0 between different ones | (N, N) |

At the start the distance falls like one over the square root of the width; in training it grows
as the kernel moves. The limit is that of Gaussian weights: with few inputs and weights that start
uniform, as those of ``nn.Linear`` do by default, a part of the distance stays at any width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pinn_ntk.limit.kernel import LimitKernel
from pinn_ntk.limit.layers import PlainMLP, as_plain, find_plain, layer_inputs, layer_kernel
from pinn_ntk.limit.parametrization import Stds, linear_layers, stds_of
from pinn_ntk.limit.refusal import refusal


def limit_of(
    mlp: nn.Sequential, weight_std: Stds | None = None, bias_std: Stds | None = None
) -> LimitKernel:
    """The limit kernel that belongs to the initialisation of a network.

    Args:
        mlp: What `plain_mlp` returns.
        weight_std: sigma_w, one number or one a layer; read off the weights when left out
            (`found_stds`), which is right before training only.
        bias_std: sigma_b, likewise; 0 for layers without a bias, and as found for biases that
            start at zero.

    Returns:
        The kernel with as many hidden layers, the same activation and these standard deviations.

    Raises:
        ValueError: The network is not plain, or the standard deviations do not fit it.

    Example:
        >>> from pinn_ntk.limit.parametrization import ntk_mlp
        >>> limit_of(ntk_mlp([1, 8, 1]))
        LimitKernel(hidden=1, activation='tanh', weight_std=(1.0, 1.0), bias_std=(1.0, 1.0))
    """
    plain = as_plain(mlp)
    if plain is None:
        raise ValueError(
            f"expected linear layers with one elementwise activation between them: {refusal(mlp)} "
            "plain_mlp(module) finds such a network inside a module."
        )
    return _limit_of(plain, weight_std, bias_std)


def _limit_of(plain: PlainMLP, weight_std: Stds | None, bias_std: Stds | None) -> LimitKernel:
    layers = linear_layers(plain.network).values()
    weights, biases = stds_of(plain.network, weight_std, bias_std)
    pairs = zip(layers, biases, strict=True)
    used = [0.0 if layer.bias is None else std for layer, std in pairs]
    return LimitKernel(len(layers) - 1, plain.activation, weights, used)


def distance_to_limit(
    network: nn.Module, points: Tensor, weight_std: Stds | None = None, bias_std: Stds | None = None
) -> float:
    """||K - Theta|| / ||Theta|| in the Frobenius norm, K in the NTK parametrisation.

    K counts all weights and biases as trained, frozen layers (``requires_grad=False``) included,
    as Theta does. Biases with sigma_b = 0 are in neither: so are those that start at zero, as is
    usual with Xavier weights, unless ``bias_std`` is given. Then K has them, and Theta is that of
    biases drawn with this standard deviation.

    Args:
        network: A plain network, or a module with one inside; see `plain_mlp`.
        points: What the plain network is called with, (N, inputs).
        weight_std: sigma_w of the initialisation, one number or one a layer; read off the weights
            when left out, which is right before training only.
        bias_std: sigma_b, likewise.

    Returns:
        The relative distance.

    Raises:
        ValueError: There is no plain network, or the points do not fit it.

    Example:
        >>> from pinn_ntk.limit.parametrization import ntk_mlp
        >>> _ = torch.manual_seed(0)
        >>> x = torch.linspace(-1, 1, 5)[:, None]
        >>> [round(distance_to_limit(ntk_mlp([1, width, width, 1]), x), 2) for width in (16, 4096)]
        [0.14, 0.01]
    """
    return DistanceToLimit(network, points, weight_std, bias_std)(network)


class DistanceToLimit:
    """`distance_to_limit` during training: the limit is computed once, the kernel at each call.

    Make it before training starts, because the standard deviations of the initialisation are read
    off the weights as found.

    Arguments and errors are those of `distance_to_limit`; 64 points take milliseconds a call.

    Attributes:
        points: What the first layer gets, (N, n_0) in float64.
        limit: Theta at the points, (N, N) in float64.
        weight_std: sigma_w of each layer.
        bias_std: sigma_b of each layer.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 1))
        >>> distance = DistanceToLimit(mlp, torch.linspace(-1, 1, 5)[:, None])
        >>> distance(mlp) == distance_to_limit(mlp, distance.points)
        True
    """

    def __init__(
        self,
        network: nn.Module,
        points: Tensor,
        weight_std: Stds | None = None,
        bias_std: Stds | None = None,
    ) -> None:
        plain = _found(network)
        self._set(plain, layer_inputs(plain.network, points), weight_std, bias_std)

    @classmethod
    def from_inputs(
        cls, network: nn.Module | PlainMLP, inputs: Tensor, weight_std: Stds, bias_std: Stds
    ) -> DistanceToLimit:
        """An object for known inputs (N, n_0) of the first layer; the network is not run.

        ``network`` may also be what `find_plain` returned; sigma_w and sigma_b are one number or
        one a layer. ValueError where there is no plain network, or none with such a limit.
        """
        distance = cls.__new__(cls)
        distance._set(_found(network), inputs.detach().double(), weight_std, bias_std)
        return distance

    def _set(
        self, plain: PlainMLP, inputs: Tensor, weight_std: Stds | None, bias_std: Stds | None
    ) -> None:
        kernel = _limit_of(plain, weight_std, bias_std)
        self.points = inputs.clone()
        self.limit = kernel.ntk(self.points)
        self.weight_std, self.bias_std = kernel.weight_std, kernel.bias_std

    def __call__(self, network: nn.Module | PlainMLP) -> float:
        """||K - Theta|| / ||Theta|| of a network with the layers of the one given at first.

        NaN or inf where the weights are. The network is as for `distance_to_limit`, or what
        `find_plain` returned; ValueError where it is not plain, or has other layers or inputs.
        """
        plain = _found(network)
        device = next(plain.network.parameters()).device
        kernel = layer_kernel(plain, self.points.to(device), self.weight_std, self.bias_std)
        limit = self.limit.to(device)
        squares = kernel.square().sum()
        own = kernel.diagonal(dim1=0, dim2=2)  # (N, N, C)
        change = (own - limit[..., None]).square().sum() - own.square().sum()
        norm = limit.norm() * kernel.shape[0] ** 0.5
        return float((squares + change).clamp(min=0).sqrt() / norm)

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` needs, as tensors."""
        return {
            "points": self.points,
            "limit": self.limit,
            "weight_std": torch.tensor(self.weight_std, dtype=torch.float64),
            "bias_std": torch.tensor(self.bias_std, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over points, limit and standard deviations of another object's `state_dict`."""
        self.points, self.limit = state["points"], state["limit"]
        self.weight_std = tuple(state["weight_std"].tolist())
        self.bias_std = tuple(state["bias_std"].tolist())

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> DistanceToLimit:
        """An object from its `state_dict`, with no network and nothing computed anew."""
        distance = cls.__new__(cls)
        distance.load_state_dict(state)
        return distance


def _found(network: nn.Module | PlainMLP) -> PlainMLP:
    if isinstance(network, PlainMLP):
        return network
    plain = find_plain(network)
    if plain is None:
        raise ValueError(
            "expected one nn.Sequential of linear layers with the same elementwise activation "
            f"between any two, got {type(network).__name__}: {refusal(network)}"
        )
    return plain
