"""The NTK parametrisation: layers whose kernel has a limit as their width grows.

| symbol | meaning | shape |
| --- | --- | --- |
| n_in, n_out | inputs and outputs of a layer | |
| omega | trained weight of a layer, N(0, 1) at the start | (n_out, n_in) |
| beta | trained bias of a layer, N(0, 1) at the start | (n_out,) |
| sigma_w, sigma_b | ``weight_std`` and ``bias_std``, not trained | |
| W, b | weight and bias of the standard parametrisation | (n_out, n_in), (n_out,) |

A layer is x -> sigma_w / sqrt(n_in) omega x + sigma_b beta, so W = sigma_w / sqrt(n_in) omega and
b = sigma_b beta give the same function. The kernels differ by the chain rule:
K_ntk = sum over layers of sigma_w^2 / n_in K_W + sigma_b^2 K_b, with K_W and K_b the parts that
the weight and the bias of the standard parametrisation have in its kernel.

Source: Jacot, Gabriel, Hongler 2018, section 2 (their sigma_w is 1, their beta our sigma_b).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pinn_ntk.limit.own_weights import check_made, check_own_weights

Stds = float | Sequence[float] | Tensor
"""One standard deviation for all layers, or one a layer."""


class NTKLinear(nn.Module):
    """A linear layer in the NTK parametrisation, for inputs (..., n_in).

    ``in_features`` and ``out_features`` are n_in and n_out, ``weight_std`` is sigma_w, positive,
    ``bias_std`` sigma_b; 0 makes a layer without bias.

    Attributes:
        weight: omega, (n_out, n_in), drawn from N(0, 1).
        bias: beta, (n_out,), drawn from N(0, 1); None without one.

    Raises:
        ValueError: A size is below 1, ``weight_std`` is not positive or ``bias_std`` is negative.

    Example:
        >>> layer = NTKLinear(4, 1, weight_std=2.0, bias_std=0.5)
        >>> _ = nn.init.ones_(layer.weight), nn.init.ones_(layer.bias)
        >>> layer(torch.ones(3, 4)).flatten().tolist()  # 2 / sqrt(4) * 4 + 0.5
        [4.5, 4.5, 4.5]
    """

    def __init__(
        self, in_features: int, out_features: int, weight_std: float = 1.0, bias_std: float = 1.0
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(
                f"expected at least one input and one output, got {in_features} and {out_features}."
            )
        check_stds(weight_std, bias_std)
        self.in_features, self.out_features = in_features, out_features
        self.weight_std, self.bias_std = float(weight_std), float(bias_std)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias_std else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from N(0, 1)."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.normal_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """sigma_w / sqrt(n_in) omega x + sigma_b beta for x of shape (..., n_in)."""
        y = linear(x * (self.weight_std / math.sqrt(self.in_features)), self.weight)
        return y if self.bias is None else y + self.bias_std * self.bias

    def extra_repr(self) -> str:
        """Sizes and standard deviations, for ``repr``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"weight_std={self.weight_std:g}, bias_std={self.bias_std:g}"
        )


def ntk_mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] | nn.Module = nn.Tanh,
    weight_std: Stds = 1.0,
    bias_std: Stds = 1.0,
) -> nn.Sequential:
    """A multilayer perceptron in the NTK parametrisation.

    Args:
        sizes: Inputs, widths of the hidden layers, outputs.
        activation: Makes the activation that follows each layer but the last, such as the class
            ``nn.Tanh``; or a module, copied for each.
        weight_std: sigma_w, one number or one a layer (``len(sizes) - 1``).
        bias_std: sigma_b, likewise.

    Returns:
        `NTKLinear` layers and activations in turn.

    Raises:
        ValueError: Fewer than two sizes, a list of another length than the layers, or an
            activation that makes no module.

    Example:
        >>> [type(layer).__name__ for layer in ntk_mlp([2, 64, 1])]
        ['NTKLinear', 'Tanh', 'NTKLinear']
    """
    if len(sizes) < 2:
        raise ValueError(f"expected at least inputs and outputs in sizes, got {list(sizes)}.")
    weight_stds = one_per_layer(weight_std, len(sizes) - 1, "weight_std")
    bias_stds = one_per_layer(bias_std, len(sizes) - 1, "bias_std")
    layers: list[nn.Module] = []
    for (n_in, n_out), w, b in zip(pairwise(sizes), weight_stds, bias_stds, strict=True):
        layers += [NTKLinear(n_in, n_out, w, b), _made(activation)]
    return nn.Sequential(*layers[:-1])


def _made(activation: Callable[[], nn.Module] | nn.Module) -> nn.Module:
    if isinstance(activation, nn.Module):
        return copy.deepcopy(activation)
    made = activation() if callable(activation) else activation
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"expected a module or what makes one, such as nn.Tanh, as activation, got {made!r}."
        )
    return made


def to_ntk_parametrization(
    mlp: nn.Sequential, weight_std: Stds | None = None, bias_std: Stds | None = None
) -> nn.Sequential:
    """A copy in the NTK parametrisation that computes the same function.

    omega = W sqrt(n_in) / sigma_w and beta = b / sigma_b. The limit kernel is that of the standard
    deviations given here; they have to be those of the initialisation.

    sigma_b = 0 means no bias. Biases that start at zero, as is usual with Xavier weights, have
    sigma_b = 0 as found, so the copy has no biases and trains fewer parameters than ``mlp``. Give
    ``bias_std``, such as 1.0, to keep them: they start at zero then, though the limit kernel is
    that of biases drawn with this standard deviation.

    Args:
        mlp: ``nn.Linear`` or `NTKLinear` layers, and modules without parameters between them. A
            subclass of ``nn.Sequential`` keeps its ``forward``.
        weight_std: sigma_w, one number or one a layer; as `found_stds` when left out.
        bias_std: sigma_b, likewise.

    Returns:
        The copy, of the same class, dtype and device; gradients flow to the parameters that
        asked for them in ``mlp``.

    Raises:
        ValueError: A module with parameters is not linear, a list has not one entry a layer, or a
            layer has a bias where ``bias_std`` is 0.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> image, x = to_ntk_parametrization(mlp, weight_std=1.5, bias_std=0.1), torch.ones(3, 2)
        >>> torch.allclose(image(x), mlp(x), atol=1e-6)
        True
    """
    check_own_weights(linear_layers(mlp))
    stds = stds_of(mlp, weight_std, bias_std)
    image = copy.deepcopy(mlp)
    for (name, layer), w, b in zip(linear_layers(mlp).items(), *stds, strict=True):
        image._modules[name] = _image(name, layer, w, b)
    return image


def linear_layers(mlp: nn.Sequential) -> dict[str, nn.Linear | NTKLinear]:
    """Name -> layer, of those of a plain network that have parameters, in order.

    >>> list(linear_layers(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))))
    ['0', '2']
    """
    layers = {name: layer for name, layer in mlp._modules.items() if _is_linear(name, layer)}
    if not layers:
        raise ValueError(f"expected at least one linear layer, got {mlp}.")
    parameters = [parameter for layer in layers.values() for parameter in layer.parameters()]
    if len(set(parameters)) < len(parameters):
        raise ValueError(
            f"layers of {mlp} share parameters; expected parameters of its own for each. The "
            "infinite-width limit with tied weights is another one and is not known here."
        )
    return cast("dict[str, nn.Linear | NTKLinear]", layers)


def _is_linear(name: str, layer: nn.Module | None) -> bool:
    if isinstance(layer, (nn.Linear, NTKLinear)):
        return True
    if layer is not None and next(layer.parameters(), None) is not None:
        raise ValueError(
            f"module {name!r} is a {type(layer).__name__} with parameters; expected nn.Linear "
            "or NTKLinear layers and activations without parameters. The infinite-width limit "
            "of other layers is not known here."
        )
    return False


def found_stds(mlp: nn.Sequential) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """sigma_w and sigma_b of each layer, read off the parameters before they are trained.

    sigma_w = sqrt(n_in mean W^2) and sigma_b = sqrt(mean b^2); those an `NTKLinear` was made with.
    An estimate: of a layer with n entries it is off by about 1 / sqrt(2 n), relatively. Biases that
    start at zero have sigma_b = 0, which stands for no bias: what trains them is left out of
    kernels with these standard deviations.

    >>> layer = nn.Linear(4, 2, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 0.5)
    >>> found_stds(nn.Sequential(layer))  # sqrt(4 * 0.25)
    ((1.0,), (0.0,))
    """
    stds = [_stds(layer) for layer in linear_layers(mlp).values()]
    return tuple(w for w, _ in stds), tuple(b for _, b in stds)


def stds_of(
    mlp: nn.Sequential, weight_std: Stds | None, bias_std: Stds | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """sigma_w and sigma_b of each layer: as given, or as `found_stds` where left out."""
    layers = len(linear_layers(mlp))
    found = found_stds(mlp) if weight_std is None or bias_std is None else ((), ())
    return (
        one_per_layer(found[0] if weight_std is None else weight_std, layers, "weight_std"),
        one_per_layer(found[1] if bias_std is None else bias_std, layers, "bias_std"),
    )


def effective(layer: nn.Linear | NTKLinear) -> tuple[Tensor, Tensor | None]:
    """W (n_out, n_in) and b (n_out,) of the standard parametrisation, or None, detached."""
    weight, bias = layer.weight.detach(), layer.bias
    scale_w, scale_b = 1.0, 1.0
    if isinstance(layer, NTKLinear):
        scale_w, scale_b = layer.weight_std / math.sqrt(layer.in_features), layer.bias_std
    return scale_w * weight, None if bias is None else scale_b * bias.detach()


def one_per_layer(std: Stds, layers: int, name: str) -> tuple[float, ...]:
    """The standard deviation of each layer, (layers,); ``name`` is for the message.

    A tensor of shape () is one number for all layers, as a float is.
    """
    if isinstance(std, (int, float)) or (isinstance(std, Tensor) and std.ndim == 0):
        stds = (float(std),) * layers
    else:
        stds = tuple(map(float, std))
    if len(stds) != layers:
        raise ValueError(
            f"{name} has {len(stds)} entries, {list(stds)}, for {layers} linear "
            "layers; give one number, or one a linear layer, the last included."
        )
    return stds


def _stds(layer: nn.Linear | NTKLinear) -> tuple[float, float]:
    if isinstance(layer, NTKLinear):
        return layer.weight_std, layer.bias_std
    check_made(layer)
    weight = math.sqrt(layer.in_features * float(layer.weight.detach().double().square().mean()))
    bias = 0.0 if layer.bias is None else float(layer.bias.detach().double().square().mean())
    if not 0 < weight < math.inf:
        raise ValueError(
            f"the weights of {layer} have the root mean square {weight:g}; expected a positive "
            "finite number. A layer that starts at zero has no limit kernel: give weight_std."
        )
    return weight, math.sqrt(bias)


def _image(name: str, layer: nn.Linear | NTKLinear, w: float, b: float) -> NTKLinear:
    """The layer in the NTK parametrisation with the standard deviations w and b."""
    weight, bias = effective(layer)
    if b == 0 and bias is not None and bool(bias.any()):
        raise ValueError(
            f"layer {name!r} has a bias of norm {float(bias.norm()):g}, which bias_std = 0 cannot "
            "express; give the bias_std of the initialisation."
        )
    with torch.device("meta"):  # draws no random numbers
        image = NTKLinear(layer.in_features, layer.out_features, w, 0.0 if bias is None else b)
    omega = weight * (math.sqrt(layer.in_features) / w)
    image.weight = nn.Parameter(omega, requires_grad=layer.weight.requires_grad)
    if image.bias is not None and bias is not None and layer.bias is not None:
        image.bias = nn.Parameter(bias / b, requires_grad=layer.bias.requires_grad)
    return image.train(layer.training)


def check_stds(weight_std: float, bias_std: float) -> None:
    """Raise a ValueError unless ``weight_std`` > 0 and ``bias_std`` >= 0, both finite."""
    if not (0 < weight_std < math.inf and 0 <= bias_std < math.inf):
        raise ValueError(
            f"expected weight_std > 0 and bias_std >= 0, both finite, got {weight_std}, {bias_std}."
        )
