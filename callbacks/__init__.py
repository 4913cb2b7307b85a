"""Lightning callbacks that measure and use the kernel while a PINN trains.

Add `NTKMonitor` to see the kernel of every loss term in the logger, and `NTKBalancer` to weight
the terms by it; neither needs an edit of the LightningModule. For a kernel outside a Trainer, use
`pinn_ntk.empirical_ntk`.

May import: the engine, callbacks.step, callbacks.weighting, callbacks.trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinn_ntk.lazy import publish

if TYPE_CHECKING:
    from pinn_ntk.callbacks.balancer import NTKBalancer
    from pinn_ntk.callbacks.monitor import NTKMonitor

__all__ = ["NTKBalancer", "NTKMonitor"]

_MODULES = publish(
    globals(), {"callbacks.balancer": "NTKBalancer", "callbacks.monitor": "NTKMonitor"}
)
