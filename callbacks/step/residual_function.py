"""Residuals that a user's own function computes, evaluated without leaving a trace in training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pinn_ntk.callbacks.trainer.naming import named
from pinn_ntk.errors import ArgumentError
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

    ``said`` is the route in words, for messages. What is no dict of tensors is an ArgumentError.
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
        raise ArgumentError(
            f"{said} returned a {type(residuals).__name__}; expected a dict of residual "
            'tensors before they are squared, such as {"pde": r, "bc": b}.'
        )
    if not residuals:
        raise ArgumentError(f"{said} returned an empty dict; expected at least one residual.")
    for name, residual in residuals.items():
        if not isinstance(residual, Tensor):
            raise ArgumentError(
                f"{said} returned a {type(residual).__name__} as {name!r}; expected the live "
                "tensor that the loss squares, not .item() and not an array."
            )
    return {name: plain(residual) for name, residual in residuals.items()}


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
    except (ImportError, ValueError, AttributeError):
        raise ArgumentError(
            f"{name!r} is neither a method of {type(module).__name__} nor the importable path of a "
            "function f(module, batch). Write a method that returns {'pde': r, ...}, name it here."
        ) from None
    return lambda batch: function(module, batch)


def check_route(route: Route, module: pl.LightningModule) -> None:
    """ArgumentError where a route leads nowhere, or to what does not take a batch."""
    function = resolved(route, module)
    if isinstance(route, str) and hasattr(module, route):
        if not callable(function):
            raise ArgumentError(
                f"{route!r} of {type(module).__name__} is a {type(function).__name__}; expected a "
                "method that takes the batch and returns {'pde': r, ...}."
            )
        _check_takes(function, f"{route}(batch)", None)
    elif callable(route):
        _check_takes(route, f"{named(route)}(module, batch)", module, None)


def _check_takes(function: Callable[..., Any], form: str, *arguments: object) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of what is not written in Python
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise ArgumentError(
            f"{form.partition('(')[0]} takes {signature}; expected to be called as {form}."
        ) from None
