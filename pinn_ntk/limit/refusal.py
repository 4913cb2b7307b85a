"""Why a module holds no network whose limit kernel is known, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pinn_ntk.limit.activations import activation
from pinn_ntk.limit.layers import as_plain
from pinn_ntk.limit.own_weights import reparametrised
from pinn_ntk.limit.parametrization import NTKLinear, linear_layers

LINEAR = (nn.Linear, NTKLinear)


def refusal(module: nn.Module) -> str:
    """What a module would have to be otherwise; empty where it holds just one plain network.

    >>> refusal(nn.Sequential(nn.Linear(1, 8), nn.Tanh()))
    'it ends in Tanh(); expected a linear layer.'
    """
    networks = [part for part in module.modules() if isinstance(part, nn.Sequential)]
    plain = [network for network in networks if as_plain(network) is not None]
    if len(plain) == 1:
        return ""
    if plain:
        return f"it holds {len(plain)} such networks; give one of them."
    meant = [n for n in networks if any(isinstance(part, LINEAR) for part in n)]
    if not meant:
        return "it holds no nn.Sequential of linear layers; likely its forward is written by hand."
    return _of_network(meant[0])


def _of_network(network: nn.Sequential) -> str:
    layers, between = list(network)[::2], list(network)[1::2]
    wrong = filter(None, (_of_layer(2 * i, layer) for i, layer in enumerate(layers)))
    said = next(wrong, "")
    if said:
        return said
    if not between:
        return "it has a single layer, and no limit other than itself."
    if len(layers) == len(between):
        return f"it ends in {between[-1]}; expected a linear layer."
    return _of_activations(network, between)


def _of_layer(place: int, layer: nn.Module) -> str:
    if not isinstance(layer, LINEAR):
        return f"module {place} is a {type(layer).__name__}, in the place of a linear layer."
    if reparametrised(layer):
        return f"layer {place} has a reparametrised weight: {', '.join(reparametrised(layer))}."
    if not layer.weight.is_floating_point():
        return f"layer {place} has the dtype {layer.weight.dtype}; expected a real one."
    return ""


def _of_activations(network: nn.Sequential, between: Sequence[nn.Module]) -> str:
    kinds = list(dict.fromkeys(map(repr, between)))
    if kinds[1:]:
        return f"its activations differ: {', '.join(kinds)}."
    try:
        linear_layers(network)
        activation(between[0])
    except Exception as error:  # noqa: BLE001 - a module that is no activation may raise anything
        return str(error)
    return "its layers have a forward of their own, or activations of different settings."
