"""Residuals pointed out by the user, for losses whose terms the graph does not show.

Where a loss is a custom ``autograd.Function``, compiled, or sent backward by hand, `tap` in the
``training_step`` says which tensors are residuals and what they are called. Nothing else changes:
a tap returns the tensor that it was given.

Whoever wants to hear of taps is a `Listener`, of those of its own thread: two fits may run in two
threads. The table of listeners is global to the process because a ``training_step`` has nothing but
the import to call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Listener", "listen", "tap", "tell_weighted", "unlisten"]


class Listener(Protocol):
    """What wants to hear of residuals and of loss terms while a step runs."""

    def tapped(self, name: str, residual: Tensor) -> None:
        """Take note of an unsquared residual of any shape, alive in the graph."""

    def weighted(self, name: str, loss: Tensor) -> None:
        """Take note of a loss term (one number) before its weight is multiplied on."""


_listeners: dict[int, tuple[int, Listener]] = {}
"""Identity of a listener -> the thread that it listens to, and itself."""


def tap(residual: Tensor, name: str) -> Tensor:
    """Name a residual of the running step; the loss may then do with it what it likes.

    Costs nothing where nobody listens. Inside ``torch.compile`` a tap that is listened to ends the
    compiled graph there and begins another one behind it, which ``fullgraph=True`` does not allow.

    Args:
        residual: Unsquared residual, any shape, one row an entry.
        name: Name of the loss term.

    Returns:
        The very tensor that was given.

    Raises:
        TypeError: The arguments are no tensor and name.

    Example:
        >>> r = torch.tensor([0.5, -1.0], requires_grad=True)
        >>> tap(r, "pde") is r
        True
        >>> loss = tap(r, "pde").pow(4).mean()
    """
    if not isinstance(residual, Tensor) or not isinstance(name, str):
        raise TypeError(
            f"tap expects a residual tensor and a name, as in tap(residual, 'pde'); it got a "
            f"{type(residual).__name__} and a {type(name).__name__}. Were they swapped?"
        )
    if _listeners:
        _tell("tapped", name, residual)
    return residual


def listen(listener: Listener) -> None:
    """Let a listener hear of all in this thread from now on; who listens already hears it once."""
    _listeners.setdefault(id(listener), (threading.get_ident(), listener))


def unlisten(listener: Listener) -> None:
    """Let a listener hear of nothing any more; one that never listened is fine."""
    _listeners.pop(id(listener), None)


def tell_weighted(name: str, loss: Tensor) -> None:
    """Tell all listeners of a loss term (one number, not yet weighted)."""
    if _listeners:
        _tell("weighted", name, loss)


def _each(hears: str, name: str, tensor: Tensor) -> None:
    here = threading.get_ident()
    for thread, listener in tuple(_listeners.values()):
        if thread == here:
            getattr(listener, hears)(name, tensor)


# Inside of a compiled graph a residual would be a by-product that the loss does not depend on.
_tell: Callable[[str, str, Tensor], None] = torch.compiler.disable(_each)
