"""One question about training a file: its formula, tags, sentences, figure and state.

Subclass `Diagnostic` to ask one of your own, and give it to ``NTKMonitor(diagnostics=[...])``.

May import: weights, looks, limit, analysis, graph, graph.terms, kernel, tensorboard, errors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinn_ntk.diagnostics.base import Diagnostic, Reading, Tag
    from pinn_ntk.diagnostics.panel import Panel

__all__ = ["Diagnostic", "Panel", "Reading", "Tag"]

_MODULES = {
    "Diagnostic": "pinn_ntk.diagnostics.base",
    "Panel": "pinn_ntk.diagnostics.panel",
    "Reading": "pinn_ntk.diagnostics.base",
    "Tag": "pinn_ntk.diagnostics.base",
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ lets every misspelt name pass

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
