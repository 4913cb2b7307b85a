"""The decrease of the loss that the kernel predicts for a step, held against the step itself.

A measurement keeps the factors of its kernel until the batch is over and the optimizer has moved
the parameters; then only the predicted decrease is kept. Residuals that a function of the user
gives are computed once more at once, with the same random numbers; those of the loss come with the
next step, if its points and its setting are the same and neither
step draws random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pinn_ntk.callbacks.step.manual_backward import measuring
from pinn_ntk.callbacks.step.parameters import trained_parameters
from pinn_ntk.callbacks.step.step_inputs import RandomStates, digest, setting
from pinn_ntk.callbacks.step.term_finder import Found, Source
from pinn_ntk.callbacks.trainer.steps import logged_step
from pinn_ntk.diagnostics.decrease import Forecast, Judged, kept_apart, versions
from pinn_ntk.diagnostics.measurement import BATCH, PROBE
from pinn_ntk.graph.terms.term_loss import TermLoss

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from pinn_ntk.kernel.ntk import NTK

Fingerprints = Mapping[str, str | None]


class Start(NamedTuple):
    """What is kept from the start of a batch that may be measured or judged by.

    Attributes:
        batch: The batch.
        states: Digest of the random states.
    """

    batch: Any
    states: str


@dataclass(frozen=True)
class Before:
    """What is kept from a measurement until its batch is over.

    Attributes:
        step: The step.
        kernel: Its kernel.
        versions: What `pinn_ntk.diagnostics.decrease.versions` says of it.
        losses: Term -> its loss.
        residuals: Term -> residual, without its graph.
        params: Parameters, and copies of what they were.
        fingerprints: Term -> fingerprint of its points; empty on a probe.
        setting: Digest of what else the residuals depend on.
        elsewhere: Whether the residuals come from a function of the user.
        states: Random states that it began from.
    """

    step: int
    kernel: NTK
    versions: list[int]
    losses: Mapping[str, TermLoss]
    residuals: Mapping[str, Tensor]
    params: Mapping[str, tuple[Tensor, Tensor]]
    fingerprints: Fingerprints
    setting: str
    elsewhere: bool
    states: RandomStates | None

    def forecast(self) -> Forecast | None:
        """The forecast of the step that was taken meanwhile; None where there was none."""
        if versions(self.kernel) != self.versions:
            return None  # points that were factors are overwritten
        change = {n: p.detach().double() - old.double() for n, (p, old) in self.params.items()}
        if not any(bool(moved.any()) for moved in change.values()):
            return None  # gradients are accumulated, or a gradient scaler has skipped the step
        return Forecast.of(self.kernel, self.losses, self.residuals, change)


@dataclass(frozen=True)
class Waiting:
    """What is kept of a forecast until the next step: plain values, so that it can be saved.

    Attributes:
        step: Step that it was made for.
        terms: Term -> kind of its function, coefficient and shape, see `TermLoss`.
        loss: Loss before the step.
        predicted: Its predicted decrease.
        unit: Rounding unit of the residuals' dtype.
        fingerprints: Term -> fingerprint of its points.
        setting: Digest of what else the residuals depend on.
        parameters: Digest of the parameters after the step.
    """

    step: int
    terms: Mapping[str, tuple[str, Tensor, tuple[int, ...]]]
    loss: float
    predicted: float
    unit: float
    fingerprints: Fingerprints
    setting: str
    parameters: str

    @classmethod
    def of(cls, before: Before, forecast: Forecast) -> Waiting:
        """What is left of a measurement when its batch is over."""
        return cls(
            step=before.step,
            terms={
                name: (loss.phi.kind, loss.coefficient, tuple(loss.shape))
                for name, loss in forecast.losses.items()
            },
            loss=forecast.loss,
            predicted=forecast.predicted,
            unit=forecast.unit,
            fingerprints=before.fingerprints,
            setting=before.setting,
            parameters=digest({name: p for name, (p, _) in before.params.items()}),
        )

    def ratio(self, found: Found, params: Mapping[str, Tensor]) -> float | None:
        """The forecast judged by the terms of the next step; None where they are others."""
        kinds = {name: kind for name, (kind, _, _) in self.terms.items()}
        now = {name: term.kind for name, term in found.terms.items()}
        if now != kinds or digest(params) != self.parameters:
            return None
        if found.fingerprints(params) != self.fingerprints:
            return None
        losses = {
            name: TermLoss(found.terms[name].phi, coefficient, torch.Size(shape))
            for name, (_, coefficient, shape) in self.terms.items()
        }
        return Forecast(losses, self.loss, self.predicted, self.unit).ratio(found.residuals)


class Outlook:
    """Makes a forecast of each measured step and judges it.

    Args:
        source: Finds the residuals.
    """

    def __init__(self, source: Source) -> None:
        """Nothing predicted."""
        self.source = source
        self._start: Start | None = None
        self._before: Before | None = None
        self._waiting: Waiting | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what lives in the batch alone: graphs, kernel and parameters."""
        return {**vars(self), "_start": None, "_before": None}

    def forget(self) -> None:
        """Drop what is kept."""
        self._start = self._before = self._waiting = None

    def end(self) -> None:
        """A batch or the fit is over: let go of it, of kernel and parameters; what waits stays."""
        self._start = self._before = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to predict or to judge."""
        return self._before is not None or self._waiting is not None

    def start(self, module: pl.LightningModule, batch: Any) -> None:
        """A batch starts; to be told of where something is to be predicted or judged in it."""
        self._start = Start(batch, RandomStates.now(module.device).digest())

    def _still(self, module: pl.LightningModule) -> bool:
        """Whether no random number was drawn since the batch started, which dropout would need."""
        now = RandomStates.now(module.device).digest()
        return self._start is not None and self._start.states == now

    def _setting(
        self, module: pl.LightningModule, params: Mapping[str, Tensor], points: str
    ) -> str:
        batch = None if self._start is None or points == PROBE else self._start.batch
        return setting(module, params, batch)

    def begin(
        self,
        module: pl.LightningModule,
        kernel: NTK,
        found: Found,
        losses: Mapping[str, TermLoss],
        params: Mapping[str, Tensor],
        fingerprints: Fingerprints,
        step: int,
    ) -> None:
        """Keep what a forecast needs; of several losses of one step, that of the first.

        Args:
            module: The module.
            kernel: Kernel of all terms found.
            found: The terms.
            losses: Term -> its loss.
            params: Name -> parameter, all that are trained.
            fingerprints: Term -> fingerprint of its points.
            step: The running step.
        """
        unsure = found.points == BATCH and None in [fingerprints.get(t) for t in kernel.terms]
        if self._before is not None or unsure or losses.keys() != found.residuals.keys():
            return
        if not found.elsewhere and not self._still(module):
            return
        apart = kept_apart(kernel, params.values())
        self._before = Before(
            step,
            apart,
            versions(apart),
            losses,
            {name: residual.detach().clone() for name, residual in found.residuals.items()},
            {name: (p, p.detach().clone()) for name, p in params.items()},
            fingerprints,
            self._setting(module, params, found.points),
            found.elsewhere,
            found.states,
        )

    def after_batch(self, trainer: pl.Trainer, module: pl.LightningModule) -> Judged | None:
        """The batch is over: predict what its step does, and judge that at once if possible."""
        before, self._before = self._before, None
        if self._waiting is not None and self._waiting.step != logged_step(trainer):
            self._waiting = None  # its next step is over
        forecast = None if before is None else before.forecast()
        if before is None or forecast is None:
            return None
        if before.elsewhere:
            return self._judged_at_once(trainer, module, before, forecast)
        self._waiting = Waiting.of(before, forecast)
        return None

    def _judged_at_once(
        self, trainer: pl.Trainer, module: pl.LightningModule, before: Before, forecast: Forecast
    ) -> Judged | None:
        with measuring():
            params = trained_parameters(trainer, module)
            found = self.source.find(trainer, module, None, before.states)
            same = found.of(lambda name: name in before.losses)
            if same.fingerprints(params) != dict(before.fingerprints):
                return None
            if self._setting(module, params, found.points) != before.setting:
                return None
            return _judged(before.step, forecast.ratio(same.residuals), forecast.predicted)

    def before_backward(
        self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor | None
    ) -> Judged | None:
        """Judge the forecast of the last step by the residuals of this one.

        Args:
            trainer: The trainer, in a backward pass.
            module: Its module.
            loss: The live loss; None inside a backward pass that Lightning does not see.

        Returns:
            What became of it; None where there is none, where points, setting or parameters are
            others, or where random numbers were drawn.
        """
        waiting = self._waiting
        if waiting is None or waiting.step == logged_step(trainer):
            return None
        with measuring():
            found = self.source.find(trainer, module, loss)
            found = found.of(lambda name: name in waiting.terms)
            if found.terms.keys() != waiting.terms.keys():
                return None  # another loss of this step may have them
            self._waiting = None
            params = trained_parameters(trainer, module)
            same = self._still(module)
            if not same or self._setting(module, params, found.points) != waiting.setting:
                return None
            ratio = waiting.ratio(found, params)
            return _judged(waiting.step, ratio, waiting.predicted)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run judges in its first step; empty where nothing waits."""
        if self._waiting is None:
            return {}
        terms = {
            name: [kind, coefficient.cpu(), list(shape)]
            for name, (kind, coefficient, shape) in self._waiting.terms.items()
        }
        return {**vars(self._waiting), "terms": terms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what waits in another outlook."""
        self.forget()
        if state:
            terms = {name: tuple(entry) for name, entry in state["terms"].items()}
            self._waiting = Waiting(**{**state, "terms": terms})


def _judged(step: int, ratio: float | None, predicted: float) -> Judged | None:
    return None if ratio is None else Judged(step, ratio, predicted)
