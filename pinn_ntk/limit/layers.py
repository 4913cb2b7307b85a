"""Plain multilayer perceptrons: found in a module, and their kernel layer by layer.

Between outputs and points, (C, N, C, N), the kernel in the NTK parametrisation is the sum over
layers of sigma_w^2 / n_l (h_l h_l^T) d_l d_l^T + sigma_b^2 d_l d_l^T, entry by entry over the
points, with h_l (N, n_l) the input of layer l and d_l (C, N, n_(l+1)) the derivative of each output
in what the layer returns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pinn_ntk.limit.activations import Activation, activation
from pinn_ntk.limit.own_weights import check_made
from pinn_ntk.limit.parametrization import (
    NTKLinear,
    Stds,
    effective,
    linear_layers,
    one_per_layer,
)


@dataclass(frozen=True)
class PlainMLP:
    """A plain network with the activation between any two layers; no module is run again."""

    network: nn.Sequential
    activation: Activation


def plain_mlp(module: nn.Module) -> nn.Sequential | None:
    """The multilayer perceptron in a module, if there is exactly one.

    Args:
        module: Itself an ``nn.Sequential``, or with one inside, of linear layers (``nn.Linear``
            or `NTKLinear`) with the same elementwise activation between any two. Subclasses with
            a ``forward`` of their own count, for what their layers compute.

    Returns:
        The network; None when there is none or more than one.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> plain_mlp(nn.ModuleDict({"u": mlp})) is mlp
        True
        >>> plain_mlp(nn.ModuleDict({"u": mlp, "v": nn.Sequential(*mlp)})) is None
        True
    """
    found = find_plain(module)
    return None if found is None else found.network


def find_plain(module: nn.Module) -> PlainMLP | None:
    """`plain_mlp` with its activation; None when there is none or more than one.

    Copies of activations that are not known here are run on a few numbers, nothing else is.

    >>> find_plain(nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 1))).activation.name
    'silu'
    """
    found = [p for m in module.modules() if isinstance(m, nn.Sequential) and (p := as_plain(m))]
    return found[0] if len(found) == 1 else None


def layer_inputs(mlp: nn.Sequential, points: Tensor) -> Tensor:
    """What the first layer gets when the network is called with the points (N, inputs).

    (N, n_0) in float64; the points themselves for an ordinary ``nn.Sequential``. A network with a
    ``forward`` of its own is called once.

    >>> layer_inputs(nn.Sequential(nn.Linear(1, 2)), torch.ones(2, 1)).flatten().tolist()
    [1.0, 1.0]
    """
    first = next(iter(linear_layers(mlp).values()))
    check_made(first)
    points = points.detach().to(first.weight)
    seen = [points]
    if type(mlp).forward is not nn.Sequential.forward:
        seen.clear()
        handle = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        try:
            with torch.no_grad():
                mlp(points)
        finally:
            handle.remove()
    shapes = [tuple(x.shape) for x in seen]
    if len(seen) != 1 or shapes[0] != (len(points), first.in_features):
        raise ValueError(
            f"the first layer, {first}, gets tensors of shapes {shapes} for points of shape "
            f"{tuple(points.shape)}; expected one of shape (N, {first.in_features}). Give the "
            "points that the network itself is called with."
        )
    return seen[0].double()


@torch.no_grad()
def layer_kernel(mlp: PlainMLP, inputs: Tensor, weight_std: Stds, bias_std: Stds) -> Tensor:
    """Kernel of the image of a network in the NTK parametrisation, without making the image.

    K between outputs and points, (C, N, C, N) in float64, for inputs (N, n_0) of the first layer of
    a plain network in any parametrisation; sigma_w and sigma_b are one number, or one a layer.

    >>> layer = PlainMLP(nn.Sequential(NTKLinear(2, 1)), activation("identity"))
    >>> layer_kernel(layer, torch.ones(1, 2).double(), 1.0, 1.0).item()
    2.0
    """
    layers = list(linear_layers(mlp.network).values())
    if inputs.ndim != 2 or inputs.shape[1] != layers[0].in_features:
        raise ValueError(
            f"the first layer is {layers[0]}, and its inputs have shape {tuple(inputs.shape)}; "
            f"expected (N, {layers[0].in_features}), of a network of the same sizes."
        )
    parameters = [(w.double(), b if b is None else b.double()) for w, b in map(effective, layers)]
    weights = one_per_layer(weight_std, len(layers), "weight_std")
    biases = one_per_layer(bias_std, len(layers), "bias_std")
    values, slopes = [inputs.double()], []
    for weight, bias in parameters[:-1]:
        value, slope = mlp.activation.derivatives(linear(values[-1], weight, bias), 2)
        values.append(value)
        slopes.append(slope)
    outputs, points = len(parameters[-1][0]), len(inputs)
    delta = torch.eye(outputs, dtype=torch.float64, device=inputs.device)
    delta = delta[:, None].expand(outputs, points, outputs)  # (C, N, n_(l+1))
    kernel = inputs.new_zeros(outputs, points, outputs, points, dtype=torch.float64)
    for place in reversed(range(len(layers))):
        (weight, bias), value = parameters[place], values[place]
        scale = weights[place] ** 2 / weight.shape[1] * (value @ value.mT)
        if bias is not None:
            scale = scale + biases[place] ** 2
        kernel += torch.einsum("cnk,dmk->cndm", delta, delta) * scale[:, None]
        if place:
            delta = (delta @ weight) * slopes[place - 1]
    return kernel


def as_plain(module: nn.Sequential) -> PlainMLP | None:
    """The network with its activation; None unless linear layers take turns with one activation."""
    try:
        if not _takes_turns(module):
            return None
        linear_layers(module)
        return PlainMLP(module, activation(module[1]))
    except Exception:  # noqa: BLE001 - a module that is no activation may raise anything
        return None


def _takes_turns(module: nn.Sequential) -> bool:
    linear, between = list(module)[::2], list(module)[1::2]
    if len(linear) != len(between) + 1 or not between:
        return False
    return all(map(_is_ordinary, linear)) and len(set(map(_settings, between))) == 1


def _is_ordinary(layer: nn.Module) -> bool:
    """Whether a layer multiplies with the parameters that it is trained by, and no others."""
    if not isinstance(layer, (nn.Linear, NTKLinear)):
        return False
    own = type(layer).forward in (nn.Linear.forward, NTKLinear.forward)
    usual = not layer._modules and {"weight"} <= set(layer._parameters) <= {"weight", "bias"}
    return own and usual and layer.weight.is_floating_point()


def _settings(layer: nn.Module) -> tuple[type[nn.Module], str, str]:
    """What tells one activation from another of its kind."""
    own = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    own.pop("training", None)
    return type(layer), repr(layer), repr((own, list(layer.named_buffers())))
