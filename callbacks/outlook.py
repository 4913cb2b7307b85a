"""The decrease of the loss that the kernel predicts for a step, held against the step itself.

A measurement keeps the factors of its kernel until the batch is over and the optimizer has moved
the parameters; then only the predicted decrease is kept. Residuals that a function of the user
gives are computed once more at once; those of the loss come with the next step, if its points are
the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pinn_ntk.callbacks.parameters import trained_parameters
from pinn_ntk.callbacks.raw import measuring
from pinn_ntk.callbacks.schedule import logged_step
from pinn_ntk.callbacks.source import Found, Source
from pinn_ntk.decrease import Forecast, TermLoss, kept_apart
from pinn_ntk.graph.phi import SQUARE
from pinn_ntk.measurement import BATCH

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from pinn_ntk.kernel import NTK

Fingerprints = Mapping[str, str | None]


class Judged(NamedTuple):
    """What became of a forecast.

    Attributes:
        step: Step that it was made for.
        ratio: Measured over predicted decrease.
    """

    step: int
    ratio: float


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
    """What is kept of a forecast until the next step.

    Attributes:
        step: Step that it was made for.
        forecast: The forecast.
        fingerprints: Term -> fingerprint of its points.
        kinds: Term -> kind of its function.
        parameters: Digest of the parameters after the step.
    """

    step: int
    forecast: Forecast
    fingerprints: Fingerprints
    kinds: Mapping[str, str]
    parameters: str


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
        kinds = {name: loss.phi.kind for name, loss in before.losses.items()}
        parameters = digest({name: p for name, (p, _) in before.params.items()})
        self._waiting = Waiting(before.step, forecast, before.fingerprints, kinds, parameters)
        return None

    def _judged_at_once(
        self, trainer: pl.Trainer, module: pl.LightningModule, before: Before, forecast: Forecast
    ) -> Judged | None:
        with measuring():
            found = self.source.find(trainer, module, None)
            same = found.of(lambda name: name in before.losses)
            if same.fingerprints(trained_parameters(trainer, module)) != dict(before.fingerprints):
                return None
            return _judged(before.step, forecast.ratio(same.residuals))

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
            found = found.of(lambda name: name in waiting.kinds)
            if found.terms.keys() != waiting.kinds.keys():
                return None  # another loss of this step may have them
            self._waiting = None
            params = trained_parameters(trainer, module)
            kinds = {name: term.kind for name, term in found.terms.items()}
            as_it_was = kinds == waiting.kinds and digest(params) == waiting.parameters
            if not as_it_was or found.fingerprints(params) != waiting.fingerprints:
                return None
            functions = {name: term.phi for name, term in found.terms.items()}
            losses = waiting.forecast.losses.items()
            losses_now = {name: replace(loss, phi=functions[name]) for name, loss in losses}
            ratio = replace(waiting.forecast, losses=losses_now).ratio(found.residuals)
            return _judged(waiting.step, ratio)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run judges in its first step; empty where nothing waits."""
        if self._waiting is None:
            return {}
        waiting, forecast = self._waiting, self._waiting.forecast
        return {
            "step": waiting.step,
            "loss": forecast.loss,
            "predicted": forecast.predicted,
            "unit": forecast.unit,
            "terms": [
                [name, waiting.kinds[name], loss.coefficient.cpu(), list(loss.shape)]
                for name, loss in forecast.losses.items()
            ],
            "fingerprints": dict(waiting.fingerprints),
            "parameters": waiting.parameters,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what waits in another outlook."""
        self.forget()
        if not state:
            return
        losses = {  # the function comes with the terms of the next step
            name: TermLoss(SQUARE, coefficient, torch.Size(shape))
            for name, _, coefficient, shape in state["terms"]
        }
        self._waiting = Waiting(
            step=state["step"],
            forecast=Forecast(losses, state["loss"], state["predicted"], state["unit"]),
            fingerprints=state["fingerprints"],
            kinds={name: kind for name, kind, _, _ in state["terms"]},
            parameters=state["parameters"],
        )


def _judged(step: int, ratio: float | None) -> Judged | None:
    return None if ratio is None else Judged(step, ratio)


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
