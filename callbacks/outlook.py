"""The decrease of the loss that the kernel predicts for a step, held against the step itself.

A measurement keeps the factors of its kernel until the batch is over and the optimizer has moved
the parameters; then only the predicted decrease is kept. Residuals that a function of the user
gives are computed once more at once; those of the loss come with the next step, if its points are
the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pinn_ntk.callbacks.parameters import trained_parameters
from pinn_ntk.callbacks.raw import measuring
from pinn_ntk.callbacks.schedule import logged_step
from pinn_ntk.callbacks.source import Found, Source
from pinn_ntk.decrease import Forecast, Judged, TermLoss, kept_apart
from pinn_ntk.measurement import BATCH

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from pinn_ntk.kernel import NTK

Fingerprints = Mapping[str, str | None]


@dataclass(frozen=True)
class Before:
    """What is kept from a measurement until its batch is over.

    Attributes:
        step: The step.
        kernel: Its kernel.
        losses: Term -> its loss.
        residuals: Term -> residual, without its graph.
        params: Parameters, and copies of what they were.
        fingerprints: Term -> fingerprint of its points; empty on a probe.
        elsewhere: Whether the residuals come from a function of the user.
    """

    step: int
    kernel: NTK
    losses: Mapping[str, TermLoss]
    residuals: Mapping[str, Tensor]
    params: Mapping[str, tuple[Tensor, Tensor]]
    fingerprints: Fingerprints
    elsewhere: bool

    def forecast(self) -> Forecast | None:
        """The forecast of the step that was taken meanwhile; None where there was none."""
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
        parameters: Digest of the parameters after the step.
    """

    step: int
    terms: Mapping[str, tuple[str, Tensor, tuple[int, ...]]]
    loss: float
    predicted: float
    unit: float
    fingerprints: Fingerprints
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
        self._before: Before | None = None
        self._waiting: Waiting | None = None

    def forget(self) -> None:
        """Drop what is kept."""
        self._before = self._waiting = None

    def end(self) -> None:
        """The fit is over: let go of kernel and parameters; what waits may go to a checkpoint."""
        self._before = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to predict or to judge."""
        return self._before is not None or self._waiting is not None

    def begin(
        self,
        kernel: NTK,
        found: Found,
        losses: Mapping[str, TermLoss],
        params: Mapping[str, Tensor],
        fingerprints: Fingerprints,
        step: int,
    ) -> None:
        """Keep what a forecast needs; of several losses of one step, that of the first.

        Args:
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
        self._before = Before(
            step,
            kept_apart(kernel, params.values()),
            losses,
            {name: residual.detach().clone() for name, residual in found.residuals.items()},
            {name: (p, p.detach().clone()) for name, p in params.items()},
            fingerprints,
            found.elsewhere,
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
            found = self.source.find(trainer, module, None)
            same = found.of(lambda name: name in before.losses)
            if same.fingerprints(trained_parameters(trainer, module)) != dict(before.fingerprints):
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
            What became of it; None where there is none, or where points or parameters are others.
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
            ratio = waiting.ratio(found, trained_parameters(trainer, module))
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


def digest(params: Mapping[str, Tensor]) -> str:
    """Digest of the names and values of parameters.

    Args:
        params: Name -> parameter.

    Returns:
        Hex digest, another one once a bit of them changes.
    """
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in params.items():
        found.update(name.encode())
        found.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return found.hexdigest()
