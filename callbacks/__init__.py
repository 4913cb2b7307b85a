"""Lightning callbacks that measure and use the kernel while a PINN trains.

Add `NTKMonitor` to see the kernel of every loss term in the logger, and `NTKBalancer` to weight
the terms by it; neither needs an edit of the LightningModule. For a kernel outside a Trainer, use
`pinn_ntk.empirical_ntk`.

May import: the engine, callbacks.step, callbacks.weighting, callbacks.trainer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinn_ntk.callbacks.balancer import NTKBalancer
    from pinn_ntk.callbacks.monitor import NTKMonitor

__all__ = ["NTKBalancer", "NTKMonitor"]

_MODULES = {
    "NTKBalancer": "pinn_ntk.callbacks.balancer",
    "NTKMonitor": "pinn_ntk.callbacks.monitor",
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ lets every misspelt name pass

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
