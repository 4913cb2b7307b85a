"""Residuals that a user's own function computes, evaluated without leaving a trace in training."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from pinn_ntk.measurement import stratified_rows

if TYPE_CHECKING:
    import pytorch_lightning as pl

Route = str | Callable[..., Any] | None
"""Name of a method ``m(batch)`` of the module, or a function ``f(module, batch)`` or its path."""

SEED = 0x5EED
"""Seed of what a probe draws, so that it draws the same whenever it is evaluated."""


def residuals_of(
    route: Route, trainer: pl.Trainer, module: pl.LightningModule, batch: Any
) -> dict[str, Tensor]:
    """Evaluate a route on a batch; random states, buffers and logs stay as they are.

    Args:
        route: The route.
        trainer: Owner of the precision.
        module: The module; its ``log`` is muted and its buffers are put back.
        batch: What the route is called with.

    Returns:
        Name -> live residual tensor.

    Raises:
        TypeError: The route returned no mapping.
        AttributeError: The module has no such method.
    """
    function = resolved(route, module)
    with torch.enable_grad(), untouched(module), trainer.precision_plugin.forward_context():
        residuals = function(batch)
    if not isinstance(residuals, Mapping):
        raise TypeError(
            f"{route!r} returned a {type(residuals).__name__}; expected a dict of residual "
            'tensors before they are squared, such as {"pde": r, "bc": b}.'
        )
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
    """The random states of the CPU and of the module's accelerator, put back at the end."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def _swapped_buffers(module: nn.Module) -> list[tuple[nn.Module, str, Tensor | None]]:
    """Put copies in the place of all buffers; the live graph may hold the originals."""
    originals = [(part, n, b) for part in module.modules() for n, b in part._buffers.items()]
    for part, name, buffer in originals:
        part._buffers[name] = None if buffer is None else buffer.detach().clone()
    return originals


class FixedProbe:
    """Residuals on points that stay: a frozen batch, a fixed seed, and a fixed choice of rows.

    Args:
        route: As in `residuals_of`.
        max_points: Rows to keep of a term at most.

    Attributes:
        batch: The frozen batch; None until there is one.
        rows: Term -> kept rows of its residual, sorted.
    """

    def __init__(self, route: Route, max_points: int) -> None:
        """Freeze nothing yet."""
        self.route, self.max_points = route, max_points
        self.batch: Any = None
        self.rows: dict[str, Tensor] = {}
        self._plain = False

    def freeze(self, batch: Any) -> None:
        """Keep a copy of the first batch seen; later ones are passed over."""
        if self.batch is None:
            self.batch = copied(batch)
            self._plain = is_plain(self.batch)

    def residuals(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Tensor]:
        """Name -> live residual at the points of the probe, all rows."""

        def seeded(module: pl.LightningModule, batch: Any) -> Any:
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002
            random.seed(SEED)
            return resolved(self.route, module)(batch)

        moved = apply_to_collection(copied(self.batch), Tensor, lambda t: t.to(module.device))
        residuals = residuals_of(seeded, trainer, module, moved)
        for name, residual in residuals.items():
            kept = self.rows.get(name)
            if kept is None or int(kept[-1]) >= residual.numel():
                self.rows[name] = stratified_rows(residual.numel(), self.max_points, SEED)
        return residuals

    def state_dict(self) -> dict[str, Any]:
        """The batch (only where it loads safely: plain tensors in plain containers) and rows."""
        if not self._plain:
            return {}
        rows = {name: kept.cpu() for name, kept in self.rows.items()}
        return {"batch": apply_to_collection(self.batch, Tensor, Tensor.cpu), "rows": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the probe of another instance."""
        if state:
            self.batch, self.rows, self._plain = state["batch"], dict(state["rows"]), True


def copied(batch: Any) -> Any:
    """The batch with every tensor detached and cloned."""
    return apply_to_collection(batch, Tensor, lambda tensor: tensor.detach().clone())


def is_plain(batch: Any) -> bool:
    """Whether a batch can be loaded again with ``weights_only=True``."""
    file = io.BytesIO()
    try:
        torch.save(batch, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # noqa: BLE001 - pickle raises what it likes
        return False
    return True
