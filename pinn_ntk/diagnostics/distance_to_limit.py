"""How far the network of a module is from its limit of infinite width, at points of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.hooks import RemovableHandle

from pinn_ntk.diagnostics.base import Diagnostic, Reading, Tag, finite
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.limit.distance import DistanceToLimit
from pinn_ntk.limit.layers import PlainMLP, find_plain
from pinn_ntk.limit.parametrization import found_stds, linear_layers
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.untouched import untouched

StartStds = tuple[tuple[float, ...], tuple[float, ...]]
"""sigma_w and sigma_b of each layer, as the weights started."""

POINTS = 64
"""Inputs of its first layer that are kept at most, evenly spread over those of a call."""


class DistanceFromLimit(Diagnostic):
    """Watches the one plain multilayer perceptron of a module, if it holds exactly one.

    The points are what its first layer gets in the first usable call of a batch, so that the
    distance can be compared over training; no module is run besides. A network without a limit is
    left out, and so are compiled networks, and one that was trained before, since its weights do
    not tell how they started.
    """

    name = "distance_to_limit"
    title = "the distance to the limit"
    tags = (
        Tag(
            "distance_to_limit",
            "of the network's kernel, from that of infinite width",
            advice=(
                "Only for a module with one plain MLP. Large: the infinite-width theory says "
                "little about this network."
            ),
        ),
    )

    def __init__(self) -> None:
        self._plain: PlainMLP | None = None
        self._listener: Listener | None = None
        self._handles: list[RemovableHandle] = []
        self.reset()

    def reset(self) -> None:
        self.fit_ends()
        self._distance: DistanceToLimit | None = None
        self._start: StartStds | None = None
        self._left_out = False

    def fit_starts(self, module: nn.Module, *, resumed: bool) -> None:
        if resumed and self._start is None:
            self._left_out = True
        self._plain = None if self._left_out else find_plain(module)

    def batch_starts(self, *, due: bool) -> None:
        self.batch_ends()
        if due and self._plain is not None and self._distance is None:
            network = self._plain.network
            first = next(iter(linear_layers(network).values()))
            self._listener = Listener(first.in_features)
            hear = self._listener
            self._handles = [part.register_forward_pre_hook(hear) for part in (network, first)]

    def read(self, look: Look) -> Reading | None:
        """||K - Theta|| / ||Theta||; nothing without a plain network that has been called."""
        plain = self._plain
        if plain is None or look.module is None:
            return None
        if all(part is not plain.network for part in look.module.modules()):
            return None
        with untouched(look.module, draws=False), torch.no_grad():
            distance = self._measured(plain)
        values = {} if distance is None else finite({self.name: distance})
        return Reading(look.step, values) if values else None

    def _measured(self, plain: PlainMLP) -> float | None:
        try:
            if self._start is None:
                self._start = found_stds(plain.network)
            inputs = None if self._listener is None else self._listener.inputs
            if self._distance is None and inputs is not None:
                self._distance = DistanceToLimit.from_inputs(plain, inputs, *self._start)
                self.batch_ends()
        except ValueError:  # how the limit says that there is none
            self._left_out, self._plain = True, None
            self.batch_ends()
        return None if self._distance is None else self._distance(plain)

    def batch_ends(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._listener = [], None

    def fit_ends(self) -> None:
        self.batch_ends()
        self._plain = None

    def state_dict(self) -> dict[str, Any]:
        if self._distance is not None:
            return {name: tensor.cpu() for name, tensor in self._distance.state_dict().items()}
        if self._start is None:
            return {}
        names = ("weight_std", "bias_std")
        stds = (torch.tensor(std, dtype=torch.float64) for std in self._start)
        return dict(zip(names, stds, strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.reset()
        if "weight_std" in state:
            weight_std, bias_std = (state[name].tolist() for name in ("weight_std", "bias_std"))
            self._start = tuple(weight_std), tuple(bias_std)
        if "points" in state:
            self._distance = DistanceToLimit.from_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_plain": None, "_listener": None, "_handles": []}


class Listener:
    """Keeps the first usable input of a layer since its network was called; a copy keeps none.

    Compiled networks are not listened to: that would compile another function.
    """

    def __init__(self, features: int) -> None:
        self.features = features
        self.called = False
        self.inputs: Tensor | None = None

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Keep them, whatever the user calls the network with."""
        if torch.compiler.is_compiling() or self.inputs is not None or not self.features:
            return
        with suppress(Exception), torch.no_grad():  # training goes on, whatever comes
            if isinstance(module, nn.Sequential):
                self.called = True
            elif self.called and isinstance(arguments[0], Tensor):
                inputs = plain(arguments[0]).detach()
                if is_usable(inputs, self.features):
                    self.inputs = spread(inputs, POINTS)

    def __getstate__(self) -> dict[str, Any]:
        return {"features": 0, "called": False, "inputs": None}


def is_usable(inputs: Any, features: int) -> bool:
    """Whether points can be made of what a layer got.

    Example:
        >>> [is_usable(x, 2) for x in (torch.ones(3, 2), torch.ones(0, 2), torch.ones(2), None)]
        [True, False, False, False]
    """
    return (
        type(inputs) is Tensor
        and not is_functorch_wrapped_tensor(inputs)
        and inputs.ndim >= 2
        and inputs.numel() > 0
        and inputs.shape[-1] == features
        and inputs.is_floating_point()
        and bool(inputs.isfinite().all())
    )


def spread(inputs: Tensor, most: int) -> Tensor:
    """At most so many rows of a tensor, evenly spread.

    Example:
        >>> spread(torch.arange(5.0)[:, None], 3).flatten().tolist()
        [0.0, 2.0, 4.0]
    """
    rows = inputs.reshape(-1, inputs.shape[-1])
    places = torch.linspace(0, len(rows) - 1, min(len(rows), most)).round().long()
    return rows[places.to(rows.device)].clone()
