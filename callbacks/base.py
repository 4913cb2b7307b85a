"""The base class of our callbacks: a Callback of every Lightning that is installed.

Lightning comes under two names, ``pytorch_lightning`` and ``lightning.pytorch``, each with a
Callback class of its own, and a Trainer of one takes a callback of the other only in a list.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytorch_lightning as pl

__all__ = ["Callback", "callback_class"]


def callback_class() -> type:
    """``pytorch_lightning.Callback``, and that of ``lightning.pytorch`` where it is installed."""
    try:
        other = import_module("lightning.pytorch").Callback
    except ImportError:
        return pl.Callback
    return type("Callback", (pl.Callback, other), {"__module__": __name__})


if TYPE_CHECKING:
    from pytorch_lightning import Callback
else:
    Callback = callback_class()
