"""Whether a layer trains the weight that it multiplies with, and has one already."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.parameter import is_lazy


def reparametrised(layer: nn.Module) -> list[str]:
    """Parameters that the weight of a layer is computed from; empty for ordinary layers.

    >>> reparametrised(nn.Linear(1, 1)), reparametrised(nn.utils.spectral_norm(nn.Linear(1, 1)))
    ([], ['weight_orig'])
    """
    if "weight" in layer._parameters:
        return []
    return [name for name, _ in layer.named_parameters() if name != "bias"]


def check_own_weights(layers: Mapping[str, nn.Module]) -> None:
    """ValueError for a layer whose weight is computed from other parameters, or not made yet."""
    for name, layer in layers.items():
        check_made(layer)
        if reparametrised(layer):
            raise ValueError(
                f"layer {name!r} computes its weight from {reparametrised(layer)}; expected one "
                "that trains it as it is. Take weight or spectral norm off first, such as by "
                "torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm."
            )


def check_made(layer: nn.Module) -> None:
    """ValueError for a lazy layer that was not called yet."""
    if any(is_lazy(parameter) for parameter in layer.parameters()):
        raise ValueError(
            f"{layer} has no parameters yet; expected a layer with its number of inputs. Call the "
            "network once on some points before."
        )
