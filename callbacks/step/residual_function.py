"""Residuals that a user's own function computes, evaluated without leaving a trace in training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import pytorch_lightning as pl

Route = str | Callable[..., Any] | None
"""Name of a method ``m(batch)`` of the module, or a function ``f(module, batch)`` or its path."""


def residuals_of(
    route: Route, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, said: str = ""
) -> dict[str, Tensor]:
    """Evaluate a route on a batch; random states, buffers and logs stay as they are.

    Args:
        route: The route.
        trainer: Owner of the precision.
        module: The module; its ``log`` is muted and its buffers are put back.
        batch: What the route is called with.
        said: The route in words, for messages.

    Returns:
        Name -> live residual tensor.

    Raises:
        TypeError: The route returned no mapping.
        ValueError: It returned an empty one.
        AttributeError: The module has no such method.
    """
    function = resolved(route, module)
    with torch.enable_grad(), untouched(module), trainer.precision_plugin.forward_context():
        residuals = function(batch)
    said = said or repr(route)
    if not isinstance(residuals, Mapping):
        raise TypeError(
            f"{said} returned a {type(residuals).__name__}; expected a dict of residual "
            'tensors before they are squared, such as {"pde": r, "bc": b}.'
        )
    if not residuals:
        raise ValueError(f"{said} returned an empty dict; expected at least one residual.")
    return dict(residuals)


def resolved(route: Route, module: pl.LightningModule) -> Callable[[Any], Any]:
    """The route as a function of the batch alone.

    Args:
        route: The route.
        module: The module that it is evaluated for.

    Returns:
        The function.

    Raises:
        AttributeError: Neither a method of the module nor an importable path.
    """
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


@contextmanager
def untouched(module: pl.LightningModule) -> Iterator[None]:
    """Within, random numbers are drawn, buffers change and ``log`` is called without effect."""
    states = np.random.get_state(), random.getstate()  # noqa: NPY002 - the user's own state
    own_log, buffers = vars(module).get("log"), _swapped_buffers(module)
    vars(module)["log"] = lambda *_, **__: None
    try:
        with _forked(module.device):
            yield
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        random.setstate(states[1])
        for part, name, buffer in buffers:
            part._buffers[name] = buffer
        del vars(module)["log"]
        if own_log is not None:
            vars(module)["log"] = own_log


def _forked(device: torch.device) -> AbstractContextManager[None]:
    """The random states of the CPU and of accelerators, put back at the end."""
    if device.type not in {"cpu", "cuda"}:
        return torch.random.fork_rng(devices=[device], device_type=device.type)
    # Of all CUDA devices, since a seed is set on all of them; asking must not initialise CUDA.
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    return torch.random.fork_rng(devices=range(count))


def _swapped_buffers(module: nn.Module) -> list[tuple[nn.Module, str, Tensor | None]]:
    """Put copies in the place of all buffers; the live graph may hold the originals."""
    originals = [(part, n, b) for part in module.modules() for n, b in part._buffers.items()]
    for part, name, buffer in originals:
        part._buffers[name] = None if buffer is None else buffer.detach().clone()
    return originals
