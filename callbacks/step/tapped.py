"""Residuals that are tapped within a block, by name, numbered as `Recorder` numbers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from pinn_ntk.callbacks.step.recorder import unused
from pinn_ntk.taps import listen, unlisten


class _Taps:
    def __init__(self) -> None:
        self.residuals: dict[str, Tensor] = {}

    def tapped(self, name: str, residual: Tensor) -> None:
        if residual.requires_grad:
            self.residuals[unused(name, self.residuals)] = residual

    def weighted(self, name: str, loss: Tensor) -> None: ...


@contextmanager
def taps_of_block() -> Iterator[dict[str, Tensor]]:
    """What is tapped within, in this thread."""
    listener = _Taps()
    listen(listener)
    try:
        yield listener.residuals
    finally:
        unlisten(listener)
