"""Residuals that a user's own function computes, evaluated without leaving a trace in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pinn_ntk.callbacks.trainer.naming import named
from pinn_ntk.graph.subclasses import own_functions, plain
from pinn_ntk.looks.untouched import untouched

if TYPE_CHECKING:
    import pytorch_lightning as pl

Route = str | Callable[..., Any] | None
"""Name of a method ``m(batch)`` of the module, or a function ``f(module, batch)`` or its path."""


def residuals_of(
    route: Route, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, said: str = ""
) -> dict[str, Tensor]:
    """Residuals that a route gives on a batch; random states, buffers and logs stay as they are.

    ``said`` is the route in words, for messages. What is no dict of residuals is a TypeError or a
    ValueError.
    """
    function = resolved(route, module)
    with (
        torch.enable_grad(),
        own_functions(),
        untouched(module),
        trainer.precision_plugin.forward_context(),
    ):
        residuals = function(batch)
    said = said or named(route)
    if not isinstance(residuals, Mapping):
        raise TypeError(
            f"{said} returned a {type(residuals).__name__}; expected a dict of residual "
            'tensors before they are squared, such as {"pde": r, "bc": b}.'
        )
    if not residuals:
        raise ValueError(f"{said} returned an empty dict; expected at least one residual.")
    return {n: plain(r) if isinstance(r, Tensor) else r for n, r in residuals.items()}


def resolved(route: Route, module: pl.LightningModule) -> Callable[[Any], Any]:
    """The route as a function of the batch alone."""
    if callable(route):
        return lambda batch: route(module, batch)
    name = str(route)
    if hasattr(module, name):
        return getattr(module, name)  # type: ignore[no-any-return]
    path, _, last = name.rpartition(".")
    try:
        function = getattr(import_module(path), last)
    except (ImportError, ValueError, AttributeError) as error:
        raise AttributeError(
            f"{name!r} is neither a method of {type(module).__name__} nor the importable path of a "
            "function f(module, batch). Write a method that returns {'pde': r, ...}, name it here."
        ) from error
    return lambda batch: function(module, batch)
