"""A fixed probe: residuals on points that stay, so that kernels can be compared over training."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from pinn_ntk.callbacks.step.residual_function import Route, residuals_of, resolved
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.naming import named
from pinn_ntk.graph import subclasses
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.kernel.strata import stratified_rows
from pinn_ntk.looks.plain import is_plain

if TYPE_CHECKING:
    import pytorch_lightning as pl

RENEWED = (
    "the checkpoint does not hold the batch of the probe, or one of other shapes; the probe is "
    "frozen anew, and drift of kernels starts at 0 again. Let the data loader give tensors in "
    "dicts, lists or dataclasses, of the same shapes in each run."
)
"""What a user is told whose points changed with a restart."""

SEED = 0x5EED
"""Seed of what a probe draws, so that it draws the same whenever it is evaluated."""


def freezes(probe: FixedProbe | None, batch: Any, guard: Guard) -> bool:
    """Let a probe keep the first batch; whether that is another one than before, which is said."""
    if probe is None:
        return False
    guard.run("freezing the probe", partial(probe.freeze, batch))
    renewed, probe.renewed = probe.renewed, False
    if renewed:
        guard.warn_once("renewed", RENEWED)
    return renewed


class UncopiedError(ValueError):
    """A batch has no copy, so no function of the user's can be run on it beside the training."""


class FixedProbe:
    """Residuals of a frozen batch, with a fixed seed and a fixed choice of rows.

    It is ``renewed`` if the first batch seen had no room for the tensors that were restored, so
    that the points are others than those of the checkpoint.
    """

    def __init__(self, route: Route, max_points: int) -> None:
        self.route, self.max_points = route, max_points
        self.batch: Any = None
        self.rows: dict[str, Tensor] = {}  # kept ones of each term's residual, sorted
        self.renewed = False
        self._refused = ""  # why no copy of a batch was kept
        self._restored: list[Tensor] = []
        self._plain = False

    def freeze(self, batch: Any) -> None:
        """Keep a copy of the first batch that has one; restored tensors go into its containers."""
        if self.batch is None:
            try:
                self.batch = copied(batch)
            except UncopiedError as error:  # said when the probe is asked for
                self._refused = str(error)
                return
            if self._restored:
                self._put_back()
            self._plain = is_plain(self.batch)

    def _put_back(self) -> None:
        """The restored tensors in the containers of the new batch, where they fit."""
        shapes = [tensor.shape for tensor in tensors_of(self.batch)]
        if shapes != [tensor.shape for tensor in self._restored]:
            self.renewed, self.rows = True, {}
            return
        kept = iter(self._restored)
        self.batch = apply_to_collection(
            self.batch, Tensor, lambda new: subclasses.dressed(next(kept), new)
        )

    def residuals(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Tensor]:
        """Name -> live residual at the points of the probe, all rows."""
        if self.batch is None and self._refused:
            raise UncopiedError(self._refused)
        batch = copied(self.batch, module.device)
        residuals = residuals_of(self.seeded, trainer, module, batch, self.said)
        for name, residual in residuals.items():
            rows, kept = residual.numel(), self.rows.get(name)  # perhaps drawn under another limit
            if kept is None or not 0 < len(kept) <= self.max_points or int(kept[-1]) >= rows:
                self.rows[name] = stratified_rows(rows, self.max_points, SEED)
        return residuals

    @property
    def said(self) -> str:
        """The probe as the argument that it was."""
        return f"probe={named(self.route)}"

    def seeded(self, module: pl.LightningModule, batch: Any) -> Any:
        """What the user's function gives, from random states that are always the same."""
        _seed(module.device)
        np.random.seed(SEED)  # noqa: NPY002
        random.seed(SEED)
        return resolved(self.route, module)(batch)

    def state_dict(self) -> dict[str, Any]:
        """The rows, and the batch, or its tensors alone where it would not load safely."""
        rows = {name: kept.cpu() for name, kept in self.rows.items()}
        if self._plain:
            return {"batch": apply_to_collection(self.batch, Tensor, Tensor.cpu), "rows": rows}
        tensors = [plain(tensor).detach().cpu() for tensor in tensors_of(self.batch)]
        return {"tensors": tensors, "rows": rows} if tensors else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the probe of another instance."""
        if state:
            self.rows = dict(state["rows"])
            self.batch, self._restored = state.get("batch"), state.get("tensors", [])
            self._plain, self.renewed = self.batch is not None, False


def _seed(device: torch.device) -> None:
    if device.type == "cpu" and not torch.cuda.is_initialized():
        # torch.manual_seed would also set how a CUDA that is initialised later begins.
        torch.default_generator.manual_seed(SEED)
    else:
        torch.manual_seed(SEED)


def copied(batch: Any, device: torch.device | None = None) -> Any:
    """A batch of leaves that shares no memory with the given one, on a device if one is given.

    UncopiedError where it has no copy, as a generator has none.
    """
    if not tensors_of(batch):
        try:
            return copy.deepcopy(batch)
        except Exception as error:
            raise UncopiedError(
                f"the batch has no copy ({type(error).__name__}: {error}). Let the data loader "
                "give tensors in dicts, lists or dataclasses."
            ) from error

    return apply_to_collection(batch, Tensor, subclasses.copied, device)


def tensors_of(batch: Any) -> list[Tensor]:
    """All tensors of a batch, in the order in which its containers hold them."""
    found: list[Tensor] = []
    apply_to_collection(batch, Tensor, found.append)
    return found
