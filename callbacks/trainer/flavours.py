"""What our callbacks take from Lightning, whichever of its two packages is installed.

Lightning comes under two names, ``pytorch_lightning`` and ``lightning.pytorch``, each with a
Callback class of its own, and a Trainer of one takes a callback of the other only in a list. Our
classes inherit from those of every package that is installed, so that both take them for theirs.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["Callback", "MisconfigurationException", "callback_class", "rank_zero_info"]

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def installed(path: str) -> list[Any]:
    """The same attribute, as in ``"callbacks.Callback"``, of every Lightning that is installed."""
    module, _, attribute = path.rpartition(".")
    tried = [_imported(f"{package}.{module}") for package in PACKAGES]
    found = [getattr(result, attribute) for result in tried if not isinstance(result, ImportError)]
    if not found:
        raise ModuleNotFoundError(
            "pinn_ntk.callbacks needs Lightning, and neither of its packages can be imported "
            f"({'; '.join(map(str, tried))}): pip install pytorch-lightning, or lightning."
        )
    return found


def _imported(module: str) -> ModuleType | ImportError:
    try:
        return import_module(module)
    except ImportError as error:
        return error


def callback_class() -> type:
    """The Callback of the one Lightning that is installed, or a subclass of both."""
    return _union("Callback", "callbacks.Callback")


def _union(name: str, path: str) -> type:
    classes: tuple[type, ...] = tuple(dict.fromkeys(installed(path)))
    return classes[0] if len(classes) == 1 else type(name, classes, {"__module__": __name__})


if TYPE_CHECKING:
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from lightning_utilities.core.rank_zero import rank_zero_info
    from pytorch_lightning import Callback
else:
    Callback = callback_class()
    MisconfigurationException = _union(
        "MisconfigurationException", "utilities.exceptions.MisconfigurationException"
    )
    rank_zero_info = installed("utilities.rank_zero.rank_zero_info")[0]
