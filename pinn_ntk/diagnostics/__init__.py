"""One question about training a file: its formula, tags, sentences, figure and state.

Subclass `Diagnostic` to ask one of your own, and give it to ``NTKMonitor(diagnostics=[...])``.

May import: verdict, weights, looks, limit, analysis, graph, graph.terms, kernel, tensorboard,
errors, lazy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinn_ntk.lazy import publish

if TYPE_CHECKING:
    from pinn_ntk.diagnostics.base import Diagnostic, Reading, Tag
    from pinn_ntk.diagnostics.panel import Panel

__all__ = ["Diagnostic", "Panel", "Reading", "Tag"]

_MODULES = publish(
    globals(), {"diagnostics.base": "Diagnostic Reading Tag", "diagnostics.panel": "Panel"}
)
