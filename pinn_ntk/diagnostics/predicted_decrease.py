"""Whether the kernel explains the steps that the optimizer takes, see `pinn_ntk.analysis.decrease`.

A look keeps the factors of its kernel until the optimizer has moved the parameters; then only the
predicted decrease is kept. Residuals that a function of the user gives are computed once more at
once, with the same random numbers; those of the loss come with the next step, if its points and
its setting are the same and neither step draws random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pinn_ntk.analysis.decrease import Forecast
from pinn_ntk.analysis.wording import came_true
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag
from pinn_ntk.graph.terms.term_loss import TermLoss
from pinn_ntk.kernel.memory import kept_apart, versions
from pinn_ntk.looks.digest import digest
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.step_terms import BATCH

COPIES = 24  # bytes that parameters before a step, and their change, take each

NEAR = 0.25
"""Distance from 1 from which the kernel is said not to explain a step."""


class StartOfStep:
    """What is kept of a look until the optimizer has moved the parameters."""

    def __init__(self, look: Look) -> None:
        self.kernel = kept_apart(look.kernel, look.trained.values())
        self.versions = versions(self.kernel)
        self.losses, self.slopes = look.losses, look.slopes
        self.residuals = {name: r.detach().clone() for name, r in look.residuals.items()}
        self.params = {name: (p, p.detach().clone()) for name, p in look.trained.items()}
        self.fingerprints, self.setting = look.fingerprints, look.setting

    def forecast(self) -> Forecast | None:
        """The forecast of the step that was taken meanwhile; None where there was none."""
        if versions(self.kernel) != self.versions:
            return None  # points that were factors are overwritten
        change = {n: p.detach().double() - old.double() for n, (p, old) in self.params.items()}
        if not any(bool(moved.any()) for moved in change.values()):
            return None  # gradients are accumulated, or a gradient scaler has skipped the step
        return Forecast.of(self.kernel, self.losses, self.residuals, self.slopes, change)

    def is_that_of(self, look: Look) -> bool:
        """Whether residuals of a look are the same functions of the parameters."""
        return look.fingerprints == self.fingerprints and look.setting == self.setting


@dataclass(frozen=True)
class Waiting:
    """What is kept of a forecast until the next step: plain values, so that it can be saved."""

    step: int  # that it was made for
    total_step: int  # the same counted over all fits
    terms: Mapping[str, tuple[str, Tensor, tuple[int, ...]]]  # kind, coefficient and shape
    loss: float  # before the step
    predicted: float  # its decrease
    unit: float  # rounding unit of the residuals' dtype
    fingerprints: Mapping[str, str | None]  # of the points of each term
    setting: str | None  # digest of what else the residuals depend on
    parameters: str  # digest of them after the step
    slope: float = 0.0  # of the loss along the step

    @classmethod
    def of(cls, look: Look, start: StartOfStep, forecast: Forecast) -> Waiting:
        """What is left of a look when its batch is over."""
        return cls(
            step=look.step,
            total_step=look.total_step,
            terms={
                name: (loss.phi.kind, loss.coefficient, tuple(loss.shape))
                for name, loss in forecast.losses.items()
            },
            loss=forecast.loss,
            predicted=forecast.predicted,
            unit=forecast.unit,
            fingerprints=start.fingerprints,
            setting=start.setting,
            parameters=digest({name: p for name, (p, _) in start.params.items()}),
            slope=forecast.slope,
        )

    def ratio(self, look: Look) -> float | None:
        """The forecast judged by the next step; None where that has other residuals."""
        found = look.found.of(lambda name: name in self.terms)
        kinds = {name: kind for name, (kind, _, _) in self.terms.items()}
        if look.drew_numbers or look.setting != self.setting:
            return None
        if {name: term.kind for name, term in found.terms.items()} != kinds:
            return None
        if digest(look.trained) != self.parameters:
            return None
        if found.fingerprints(look.trained) != self.fingerprints:
            return None
        losses = {
            name: TermLoss(found.terms[name].phi, coefficient, torch.Size(shape))
            for name, (_, coefficient, shape) in self.terms.items()
        }
        return Forecast(losses, self.loss, self.predicted, self.unit).ratio(found.residuals)

    def state_dict(self) -> dict[str, Any]:
        """The same with lists in place of tuples, tensors on the CPU."""
        terms = {
            name: [kind, coefficient.cpu(), list(shape)]
            for name, (kind, coefficient, shape) in self.terms.items()
        }
        return {**vars(self), "fingerprints": dict(self.fingerprints), "terms": terms}


class PredictedDecrease(Diagnostic):
    """Makes a forecast of each measured step and judges it; of several losses, of the first.

    The ratio is that of whatever step the optimizer took, 1 where residuals are linear along it;
    near 1 as well where the loss rises as the kernel says. It is known when the next step has come.
    It is left out for points that are drawn anew (a probe has points that stay), where gradients
    are accumulated, where the kernel is not over all parameters or of a sample of the rows
    (``max_rows``, ``memory_budget``), and where residuals become another function of the parameters
    between the two steps: where they draw random numbers (dropout; noise on targets), or batch,
    buffers or frozen parameters change.
    A residual function draws the same numbers twice. Annealed attributes and generators of your own
    cannot be seen: leave the ratio aside there. Of losses such as sqrt(mean r^2) or log(mean r^2)
    it is that of the mean square with the weight that the step gives it.
    """

    name = "predicted_decrease"
    tags = (
        Tag(
            "predicted_decrease_ratio",
            "decrease of the loss over that predicted",
            advice=(
                "Near 1: the kernel explains the step, be it a fall or a rise (above "
                "`ntk/max_stable_lr`, or uphill by momentum). Far from 1: residuals are not linear "
                "along it: too long, or a derivative is cut off. Only where points, targets and "
                "random state stay."
            ),
        ),
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._start: StartOfStep | None = None
        self._waiting: Waiting | None = None
        self._next_step_came = False

    def fit_starts(self, module: Any, *, resumed: bool) -> None:
        if not resumed:
            self.reset()

    @property
    def waits(self) -> bool:  # type: ignore[override]
        return self._waiting is not None

    def read(self, look: Look) -> None:
        """Keep what a forecast needs, if its residuals can be told from others."""
        if self._start is not None or look.undefined or not look.over_all:
            return
        known = look.kernel.terms and look.losses.keys() == look.residuals.keys()
        if not known or look.kernel.sampled_terms or look.n_params * COPIES > look.bounds.held:
            return
        prints = look.fingerprints
        unsure = look.points == BATCH and None in [prints.get(t) for t in look.kernel.terms]
        if unsure or (look.drew_numbers and look.find_again is None):
            return
        self._start = StartOfStep(look)

    def stepped(self, look: Look) -> Reading | None:
        start, self._start = self._start, None
        forecast = None if start is None else start.forecast()
        if start is None or forecast is None:
            return None
        after = look.again()
        if after is None:
            self._waiting, self._next_step_came = Waiting.of(look, start, forecast), False
            return None
        if not start.is_that_of(after):
            return None
        ratio = forecast.ratio(after.residuals)
        return _reading(look.step, look.total_step, ratio, forecast)

    def follow(self, look: Look) -> Reading | None:
        waiting = self._waiting
        if waiting is None or waiting.step == look.step:
            return None
        self._next_step_came = True
        if not waiting.terms.keys() <= look.found.terms.keys():
            return None  # another loss of this step may have them
        self._waiting = None
        return _reading(waiting.step, waiting.total_step, waiting.ratio(look), waiting)

    def batch_ends(self) -> None:
        self._start = None
        if self._next_step_came:
            self._waiting, self._next_step_came = None, False

    def fit_ends(self) -> None:
        self._start = None

    def sentences(self, readings: Readings) -> Iterator[str]:
        facts = readings[self.name].facts
        ratio, predicted = facts["ratio"], facts["predicted"]
        if abs(ratio - 1) > NEAR:
            yield (
                f"Prediction: by the step at {facts['step']} the loss "
                f"{came_true(ratio, predicted)}. It does not explain that step, as where residuals "
                "are not linear along it, or a derivative in them is cut off (detach(), no "
                "create_graph=True)."
            )

    def state_dict(self) -> dict[str, Any]:
        return {} if self._waiting is None else self._waiting.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.reset()
        if state:
            terms = {name: tuple(entry) for name, entry in state["terms"].items()}
            self._waiting = Waiting(**{**state, "terms": terms})

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_start": None}


def _reading(
    step: int, total_step: int, ratio: float | None, made: Forecast | Waiting
) -> Reading | None:
    if ratio is None:
        return None
    facts = {"step": total_step, "ratio": ratio, "predicted": made.predicted, "slope": made.slope}
    return Reading(step, {"predicted_decrease_ratio": ratio}, facts=facts)
