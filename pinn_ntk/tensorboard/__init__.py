"""Kernel spectra in TensorBoard: written as tensor summaries of an own plugin name.

Nothing here imports torch, so that reading a log directory stays quick.

May import: nothing of this package.
"""

from __future__ import annotations

from pinn_ntk.tensorboard.summary import PLUGIN_NAME, add_spectrum

__all__ = ["PLUGIN_NAME", "add_spectrum"]
