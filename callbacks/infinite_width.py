"""How far the network of a module is from its limit of infinite width, at points of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pinn_ntk.callbacks.routes import untouched

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from pinn_ntk.limit.distance import DistanceToLimit

POINTS = 64
"""Inputs of the network that are kept at most, evenly spread over those of its first call."""


class InfiniteWidth:
    """Watches the one plain multilayer perceptron of a module, if it holds exactly one.

    The points are what the network was first called with in a batch, so that the distance can be
    compared over training; nothing is run besides. `forget` and `end` take all hooks off again.
    """

    def __init__(self) -> None:
        """No network seen."""
        self._distance: DistanceToLimit | None = None
        self._network: nn.Sequential | None = None
        self._inputs: list[Tensor] = []
        self._handle: RemovableHandle | None = None

    def forget(self) -> None:
        """Another module is trained."""
        self.end()
        self._distance = None

    def attach(self, module: nn.Module) -> None:
        """A fit starts: find the network."""
        from pinn_ntk.limit.distance import plain_mlp

        self._network = plain_mlp(module)

    def begin(self) -> None:
        """A batch starts: listen for the first inputs, unless there are points already."""
        self._stop()
        if self._network is not None and self._distance is None:
            self._handle = self._network.register_forward_pre_hook(Listener(self._inputs))

    def measure(self, module: pl.LightningModule) -> float | None:
        """The distance now, before the step.

        Args:
            module: Owner of the network.

        Returns:
            ||K - Theta|| / ||Theta||, see `pinn_ntk.limit.distance`; None without a plain network
            that has been called.
        """
        if self._network is None:
            return None
        with untouched(module), torch.no_grad():
            if self._distance is None and self._inputs:
                self._distance = _made(self._network, self._inputs[0])
            self._stop()
            return None if self._distance is None else self._distance(self._network)

    def end_batch(self) -> None:
        """The batch is over: listen no more."""
        self._stop()

    def end(self) -> None:
        """The fit is over: let go of the network."""
        self._stop()
        self._network = None

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        self._inputs.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Points and limit, on the CPU; empty where there are none."""
        state = {} if self._distance is None else self._distance.state_dict()
        return {name: tensor.cpu() for name, tensor in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the points and the limit of another run."""
        from pinn_ntk.limit.distance import DistanceToLimit

        self._distance = DistanceToLimit.from_state_dict(state) if state else None


class Listener:
    """Keeps the first input of a network; a copy of the network takes none of it along."""

    def __init__(self, inputs: list[Tensor]) -> None:
        self.inputs = inputs

    def __call__(self, network: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not self.inputs and arguments and isinstance(arguments[0], Tensor):
            self.inputs.append(spread(arguments[0].detach(), POINTS))

    def __getstate__(self) -> dict[str, Any]:
        return {"inputs": []}


def spread(inputs: Tensor, most: int) -> Tensor:
    """At most so many rows of a tensor, evenly spread.

    Args:
        inputs: (..., features).
        most: Rows to keep at most.

    Returns:
        A copy, (min(rows, most), features).

    Example:
        >>> spread(torch.arange(5.0)[:, None], 3).flatten().tolist()
        [0.0, 2.0, 4.0]
    """
    rows = inputs.reshape(-1, inputs.shape[-1])
    places = torch.linspace(0, len(rows) - 1, min(len(rows), most)).round().long()
    return rows[places.to(rows.device)].clone()


def _made(network: nn.Sequential, points: Tensor) -> DistanceToLimit:
    from pinn_ntk.limit.distance import DistanceToLimit

    return DistanceToLimit(network, points)
