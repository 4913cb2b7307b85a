"""What a monitor reads off one backward pass: its terms, their kernel, and what follows from them.

When to read is the monitor's business, and where the numbers go the logbook's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.analysis.interference import Interference, interference
from pinn_ntk.callbacks.predicted_decrease import Outlook
from pinn_ntk.callbacks.step.manual_backward import measuring
from pinn_ntk.callbacks.step.parameters import (
    Patterns,
    learning_rate,
    parameter_groups,
    trained_parameters,
)
from pinn_ntk.callbacks.step.term_finder import Found, Source
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.steps import logged_step
from pinn_ntk.callbacks.width import InfiniteWidth
from pinn_ntk.diagnostics.kernel_drift import KernelDrift
from pinn_ntk.diagnostics.measurement import Measurement, measure
from pinn_ntk.errors import NTKWarning
from pinn_ntk.graph.jacobian.empirical import empirical_ntk
from pinn_ntk.graph.terms.curvature import effective_weights
from pinn_ntk.graph.terms.term_loss import TermLoss
from pinn_ntk.kernel.ntk import NTK

if TYPE_CHECKING:
    import pytorch_lightning as pl

PREDICTION = "the predicted decrease"
LIMIT = "the distance to the limit"


class Instrument:
    """Measures the kernel of the terms of a live loss.

    Args:
        source: Finds the residuals.
        params: Patterns of the parameters to take the kernel over.
        max_points: Rows of a term up to which its block is formed of all rows.
        certify: Whether kernels and terms are checked.
        guard: Runs what may fail beside the measurement.
        limit: Whether the distance from the limit of infinite width is measured.

    Attributes:
        outlook: Predicts what the measured steps do.
        infinite_width: Measures the distance from the limit; None where that is not wanted.
    """

    def __init__(
        self,
        source: Source,
        params: Patterns,
        max_points: int,
        guard: Guard,
        *,
        certify: bool,
        limit: bool,
    ) -> None:
        """Nothing measured yet."""
        self.source, self.params, self.guard = source, params, guard
        self.max_points, self.certify = max_points, certify
        self.outlook = Outlook(source)
        self.infinite_width = InfiniteWidth() if limit else None
        self._drift = KernelDrift()
        self._done: set[str] = set()

    def forget(self) -> None:
        """Another module is trained."""
        self._drift = KernelDrift()
        self.outlook.forget()
        self.source.forget()
        if self.infinite_width is not None:
            self.infinite_width.forget()

    def attach(self, module: pl.LightningModule, *, resumed: bool) -> None:
        """A fit starts; what the last one left to be judged counts only if this one goes on."""
        if not resumed:
            self.outlook.forget()
        if self.infinite_width is not None:
            self.guard.run(LIMIT, partial(self.infinite_width.attach, module, resumed=resumed))

    def detach(self) -> None:
        """The fit is over: let go of kernel and module."""
        self.outlook.end()
        if self.infinite_width is not None:
            self.infinite_width.end()

    def begin(self, batch: Any, *, due: bool = True) -> None:
        """A batch starts, which may be measured or not."""
        self.source.begin(batch)
        self.guard.run("freezing the probe", partial(self.freeze, batch))
        if self.infinite_width is not None:
            self.guard.run(LIMIT, partial(self.infinite_width.begin, listen=due))

    def end(self) -> None:
        """A batch is over."""
        self.source.end()
        self.outlook.end()
        if self.infinite_width is not None:
            self.infinite_width.end_batch()

    def begin_step(self) -> None:
        """No term of this step is measured yet."""
        self._done = set()

    def freeze(self, batch: Any) -> None:
        """Let the probe keep the first batch; another one than before begins drift anew."""
        self.source.freeze(batch)
        probe = self.source.probe
        if probe is not None and probe.renewed:
            probe.renewed = False
            self._drift.load_state_dict(without_kernels(self._drift.state_dict()))

    def read(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        loss: Tensor | None,
        weights: Mapping[Node, float],
    ) -> Measurement | None:
        """Measure the terms of a loss that this step has not measured before.

        Args:
            trainer: The trainer, in a backward pass.
            module: Its module.
            loss: The live loss; None inside a backward pass that Lightning does not see.
            weights: Head of a term -> weight that a balancer puts on its gradient.

        Returns:
            The measurement; None where there is nothing new, or the loss is ascended.
        """
        with measuring():
            found = self.source.find(trainer, module, loss)
            found = found.of(lambda name: name not in self._done)
            if not found.residuals or found.ascends:
                return None
            finite = found.finite
            if self.certify and finite.likeness == found.likeness:
                self.source.check(loss, found)
            self._done |= set(found.residuals)
            params = trained_parameters(trainer, module, self.params)
            kernel = None
            if finite.residuals:
                kernel = empirical_ntk(finite.residuals, params, certify=self.certify)
            scale = 1 / loss_scale(trainer)
            factors = {n: scale * weights.get(t.head, 1.0) for n, t in found.terms.items()}
            prints = finite.fingerprints(trained_parameters(trainer, module))
            attempt = self.guard.run
            losses = attempt("the loss of each term", partial(finite.losses, factors)) or {}
            curved = partial(finite.curvature, factors) if self.params is None else lambda: None
            rate = partial(learning_rate, trainer, params, kernel)
            if kernel is not None and self.params is None and finite.likeness == found.likeness:
                begin = partial(self.outlook.begin, module, kernel, finite, losses, params, prints)
                self.guard.run(PREDICTION, partial(begin, logged_step(trainer)))
            return measure(
                kernel,
                logged_step(trainer),
                drift=self._drift,
                params=params,
                curvature=attempt("the curvature of the loss", curved),
                max_points=self.max_points,
                dtype=finite.dtype,
                points=found.points,
                fingerprints=prints,
                groups=parameter_groups(module, params, kernel, loss),
                effective_weights=effective_weights(found.terms, factors),
                undefined=tuple(n for n in found.residuals if n not in finite.residuals),
                rows_kept=found.rows,
                learning_rate=attempt("the learning rate", rate),
                interference=self._interference(kernel, finite, losses),
                distance_to_limit=self._distance(module),
                residuals=finite.residuals,
                attempt=attempt,
            )

    def _distance(self, module: pl.LightningModule) -> float | None:
        if self.infinite_width is None:
            return None
        return self.guard.run(LIMIT, partial(self.infinite_width.measure, module))

    def _interference(
        self, kernel: NTK | None, found: Found, losses: Mapping[str, TermLoss]
    ) -> Interference | None:
        """Of the terms whose place in the loss is known, if there are two."""
        if kernel is None or len(losses) < 2:
            return None
        some = NTK({term: kernel.jacobian(term) for term in kernel.terms if term in losses})

        def of_slopes() -> Interference:
            slopes = {term: losses[term].slope(found.residuals[term]) for term in some.terms}
            measured = interference(some, slopes)
            return Interference(measured.terms, measured.matrix.cpu())

        return self.guard.run("the interference", of_slopes)

    def state_dict(self, *, save_start: bool) -> dict[str, Any]:
        """What a resumed run goes on from; without the first kernel unless asked for."""
        probe, limit = self.source.probe, self.infinite_width
        return {
            "names": self.source.recorder.state_dict(),
            "drift": self._drift.state_dict() if save_start else {},
            "probe": {} if probe is None else probe.state_dict(),
            "outlook": self.outlook.state_dict(),
            "limit": {} if limit is None else limit.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another instrument was."""
        self.source.recorder.load_state_dict(state["names"])
        self.outlook.load_state_dict(state.get("outlook", {}))
        if self.infinite_width is not None:
            self.infinite_width.load_state_dict(state.get("limit", {}))
        drift = state["drift"]
        if self.source.probe is not None:
            self.source.probe.load_state_dict(state["probe"])
            if not state["probe"]:
                drift = without_kernels(drift)
        if drift:
            self._drift.load_state_dict(drift)


def without_kernels(drift: Mapping[str, Any]) -> dict[str, Any]:
    """State of a `KernelDrift` for a probe on other points, after a warning."""
    warnings.warn(
        "NTKMonitor: the checkpoint does not hold the batch of the probe, or one of other shapes; "
        "the probe is frozen anew, and drift of kernels starts at 0 again. Let the data loader "
        "give tensors in dicts, lists or dataclasses, of the same shapes in each run.",
        NTKWarning,
        stacklevel=2,
    )
    return {**drift, "blocks": [], "terms": []} if drift else {}


def loss_scale(trainer: pl.Trainer) -> float:
    """What the differentiated loss is of the loss as trained on: gradient scaler, accumulation."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return (1.0 if scaler is None else scaler.get_scale()) / trainer.accumulate_grad_batches
