"""Whether and how the residuals of the running step can be computed again, beside the training.

Where they are those of the loss, the module is copied when the batch begins, before anything of
the step has happened to it. A function of the user is run on a copy of what it is run on anyway.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pinn_ntk.callbacks.step.computes import OfFunction, OfStep
from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.measuring import trains_alone
from pinn_ntk.callbacks.step.recorder import RecordingLog
from pinn_ntk.callbacks.step.stand_in import StandIn
from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.graph.subclasses import plain_functions
from pinn_ntk.graph.walk import graph_bytes
from pinn_ntk.kernel.bounds import Bounds
from pinn_ntk.looks.held import bytes_held
from pinn_ntk.looks.outside import iterators
from pinn_ntk.looks.rerun import Compute, Rerun
from pinn_ntk.looks.step_terms import StepTerms

if TYPE_CHECKING:
    import pytorch_lightning as pl

SHARE = 8
"""Part of the memory budget that module and batch may take to be copied."""

GRAPHS = 6
"""Graphs of a step that live at once: a plain run and one in float64, differentiated once more."""

CLOSE = 1e-4
"""Relative difference up to which residuals are the same on an accelerator."""

INSTEAD = "give residuals='method'"


class StepAgain:
    """Copies the module when a step begins that may be measured, and says what hinders it."""

    def __init__(self, finder: TermFinder, bounds: Bounds) -> None:
        self.finder, self.bounds = finder, bounds
        self.restart()
        self.end()

    def restart(self) -> None:
        """A fit starts."""
        self._failed: dict[str, str] = {}  # signature -> why such steps cannot be run again

    def end(self) -> None:
        """The batch is over."""
        self._copy: Rerun | None = None
        self._trainer: StandIn | None = None
        self._why, self._idx = "nothing was kept of the step", 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_copy": None, "_trainer": None}

    def begins(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, idx: int) -> None:
        """A batch begins that may be measured."""
        self.end()
        self._idx = idx
        self._why = hindered(trainer, module, self.finder)
        if not self._why and not self.finder.by_function:
            self._try_copy(trainer, module, batch, lambda *_: {})

    def _try_copy(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        batch: Any,
        compute: Compute,
        **o: Any,
    ) -> None:
        with plain_functions():  # of subclasses that know few
            needed = bytes_held(module, batch)
        if needed > self.bounds.memory // SHARE:
            self._why = (
                f"module and batch take {needed / 2**20:.3g} MiB, and a copy may take "
                f"{self.bounds.memory / SHARE / 2**20:.3g}; raise memory_budget"
            )
            return
        self._trainer = StandIn(trainer)
        try:
            aside = _aside(trainer, module, self._trainer)
            self._copy = Rerun(module, batch, compute, aside, **o)
        except Exception as error:  # noqa: BLE001 - whatever the user's objects raise
            said = f"{type(error).__name__}: {error}".rstrip(": .")
            self._why = f"module or batch has no copy ({said}); {INSTEAD}"

    def of(self, at: Backward, found: StepTerms) -> tuple[Rerun | None, str]:
        """What runs the step again; without it, why."""
        if not self._why and self.finder.by_function:
            self._function(at, found)
        if self._copy is None or self._why:
            return None, self._why
        if not self.finder.by_function:
            self._copy.compute = self._step(at, found)
        self._why = self._failed.get(found.signature) or self._too_large(found)
        self._why = self._why or _differs(self._copy, found)
        if self._why:
            self._failed[found.signature] = self._why
        return (None, self._why) if self._why else (self._copy, "")

    def _too_large(self, found: StepTerms) -> str:
        """Why the graphs of further runs do not fit; empty where they do."""
        needed = GRAPHS * graph_bytes(found.residuals.values())
        if needed <= self.bounds.held:
            return ""
        return (
            f"running the step again takes about {needed / 2**20:.3g} MiB, and may take "
            f"{self.bounds.held / 2**20:.3g}; raise memory_budget"
        )

    def _function(self, at: Backward, found: StepTerms) -> None:
        probe, precision = self.finder.probe, at.trainer.precision_plugin
        route = self.finder.route if probe is None else probe.seeded
        batch = self.finder.batch if probe is None else probe.batch
        trainer = StandIn(at.trainer)
        compute = OfFunction(_shapes(found), trainer, route, precision, self.finder.said)
        self._try_copy(at.trainer, at.module, batch, compute, states=found.states)

    def _step(self, at: Backward, found: StepTerms) -> Compute:
        names = None if self.finder.taps else tuple(self.finder.every(at.loss))
        context, trainer = at.trainer.precision_plugin.train_step_context, self._trainer
        return OfStep(_shapes(found), trainer or StandIn(at.trainer), names, self._idx, context)


def _shapes(found: StepTerms) -> dict[str, tuple[int, ...]]:
    return {name: tuple(residual.shape) for name, residual in found.residuals.items()}


def hindered(trainer: pl.Trainer, module: pl.LightningModule, finder: TermFinder) -> str:
    """Why no step of a training can be run again, in words; empty where nothing hinders it."""
    if not trains_alone():
        return "another training runs in this process, and both draw from the same generators"
    said = "" if finder.by_function else _step_hindered(trainer, module)
    return f"{said}; {INSTEAD}" if said else ""


def _step_hindered(trainer: pl.Trainer, module: pl.LightningModule) -> str:
    if trainer.world_size > 1:
        return "several processes train together, and one alone cannot run a step"
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        return "training_step takes its batches from an iterator"
    if read := iterators(module):
        return f"{read[0]} is an iterator outside of the module, which would move on"
    return ""


def _aside(trainer: pl.Trainer, module: pl.LightningModule, stand_in: StandIn) -> dict[int, Any]:
    """What is not copied with a module: the trainer, its callbacks, and what listens for us."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    aside: dict[int, Any] = {id(callback): None for callback in callbacks}
    log = vars(module).get("log")
    return aside | {id(trainer): stand_in} | ({id(log): None} if type(log) is RecordingLog else {})


def _differs(rerun: Rerun, found: StepTerms) -> str:
    """Why a run without any change is not the step; empty where it is."""
    try:
        ran = rerun.plain().residuals
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises
        said = f"{type(error).__name__}: {error}".rstrip(": .")
        return f"the step cannot be run on a copy of the module ({said}); {INSTEAD}"
    same = all(_same(ran[name], r) for name, r in found.residuals.items() if name in ran)
    if same and ran.keys() >= found.residuals.keys():
        return ""
    return (
        "a second run gives other residuals, as where a callback or a function outside of the "
        f"module draws the points; {INSTEAD}"
    )


def _same(a: Tensor, b: Tensor) -> bool:
    a, b = a.detach(), b.detach()
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if b.device.type == "cpu":
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    return torch.allclose(a, b, rtol=CLOSE, atol=CLOSE * float(b.abs().max()), equal_nan=True)
