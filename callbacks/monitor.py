"""NTKMonitor: logs the neural tangent kernel of a PINN while it trains, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any
from weakref import ref

import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_info  # type: ignore[attr-defined]
from torch import Tensor

from pinn_ntk.callbacks.balancer import balancers
from pinn_ntk.callbacks.base import Callback
from pinn_ntk.callbacks.checks import at_least, check_strategy
from pinn_ntk.callbacks.guard import Guard
from pinn_ntk.callbacks.names import LogRecorder, named_params
from pinn_ntk.callbacks.schedule import is_due, last_step, logged_step
from pinn_ntk.callbacks.sinks import (
    log_figure,
    log_layout,
    log_scalars,
    log_spectra,
    log_text,
    writers,
)
from pinn_ntk.kernel import empirical_ntk
from pinn_ntk.measurement import KernelDrift, Measurement, curvature, measure
from pinn_ntk.report import history_figure, scalars, summary
from pinn_ntk.spectrum import Spectrum


class NTKMonitor(Callback):
    """Measures the kernel of every loss term on the points that the step trains on.

    It reads the live graph before the backward pass, so the module needs no edit, nothing is run
    twice, and training goes on to the last bit as it would without. Of steps with several backward
    passes (L-BFGS, accumulated gradients, several optimizers) the first one is measured. A
    diagnostic that fails warns once and stays off for the rest of the fit.

    Measured are the first step of a fit, every ``every_n_steps``-th, and the last; the last is not
    known beforehand where early stopping, ``max_time`` or nothing at all ends the fit. Terms are
    named after the keys under which the module logs them before the backward pass, else
    ``term_0``, ``term_1``, ... Under DDP, rank 0 measures its own points.

    Logged to all loggers, at the step that ``self.log`` uses, for each loss term a:

    | key | meaning | unit |
    | --- | --- | --- |
    | ``ntk/trace/<term>`` | trace of K_aa over all rows: its learning rate in sum | (r / theta)^2 |
    | ``ntk/lambda_max/<term>`` | largest eigenvalue of K_aa: the fastest rate | (r / theta)^2 |
    | ``ntk/effective_rank/<term>`` | directions that carry K_aa, Tr^2 / Frobenius^2 | 1 |
    | ``ntk/log10_condition/<term>`` | log10 of lambda_max over the last above the noise | 1 |
    | ``ntk/drift/<term>`` | relative change of K_aa since the first measurement | 1 |
    | ``ntk/drift/kernel`` | the same of all blocks, cross blocks included | 1 |
    | ``ntk/drift/parameters`` | the same of the parameters | 1 |
    | ``ntk/max_stable_lr`` | step size from which gradient descent is unstable | theta^2 / loss |
    | ``ntk/certificate`` | largest relative error against ordinary backward passes | 1 |
    | ``ntk/overhead_fraction`` | share of the fit's wall time spent in NTK callbacks | 1 |

    ``ntk/max_stable_lr`` holds for plain gradient descent on a sum of weighted squares, with the
    weights of an `NTKBalancer` if there is one; it is left out for other losses. Drift on points
    that are drawn anew each step includes the change of points.

    TensorBoard loggers get besides: all eigenvalues as tensor summaries ``ntk/spectrum/<term>``;
    the text ``ntk/summary`` on the first and the last measurement; a layout for the custom scalars
    tab; and the figure ``ntk/figure/history`` when the fit ends, by an exception too.

    Cost of a measurement, in backward passes of the loss: about one for the factors and traces of
    all terms, one for ``certify``, three for finding the terms and checking that none is missing.
    The rest grows with the rows: R^2 times the width of the network for the blocks, R^3 for the
    eigenvalues, R all rows kept together. A spectrum takes about 4 R bytes of log, the figure
    about 0.3 s once. ``ntk/overhead_fraction`` says what it comes to.

    Args:
        every_n_steps: Steps between measurements.
        max_points: Rows of a term up to which its block is formed of all rows; above, of every
            k-th row, so that at most this many remain. The trace is always of all rows.
        certify: Check every kernel against ordinary backward passes with a random probe.
        save_start: Keep the first kernel and parameters in checkpoints, so that drift goes on
            after a restart instead of starting anew; 8 (sum R)^2 bytes and more.

    Attributes:
        history: Key -> (step, value) of every scalar measured, whatever the loggers.
        spectra: Term -> (step, spectrum).

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> monitor = NTKMonitor(every_n_steps=500)
        >>> trainer = pl.Trainer(callbacks=[monitor], max_steps=1000)  # doctest: +SKIP
    """

    def __init__(
        self,
        every_n_steps: int = 500,
        max_points: int = 512,
        certify: bool = True,
        save_start: bool = False,
    ) -> None:
        self.every_n_steps = at_least("NTKMonitor", "every_n_steps", every_n_steps, 1)
        self.max_points = at_least("NTKMonitor", "max_points", max_points, 1)
        self.certify, self.save_start = certify, save_start
        self.guard = Guard("NTKMonitor")
        self._recorder = LogRecorder()
        self._module: ref[pl.LightningModule] | None = None
        self._forget()

    def _forget(self) -> None:
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.spectra: dict[str, list[tuple[int, Spectrum]]] = {}
        self._drift = KernelDrift()
        self._restart()

    def _restart(self) -> None:
        self._seen: int | None = None
        self._last: Measurement | None = None
        self._told: int | None = None
        self.guard.restart()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_strategy("NTKMonitor", trainer)
        if self._module is not None and self._module() is not pl_module:
            self._forget()
        self._module = ref(pl_module)
        self._restart()
        self._recorder.attach(pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._recorder.logged.clear()

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        step = logged_step(trainer)
        if step == self._seen or not trainer.is_global_zero:
            return
        first, self._seen = self._seen is None, step
        if not first and not is_due(step, self.every_n_steps, last_step(trainer)):
            return
        weights: Mapping[str, float] = {}
        with ExitStack() as paused:
            for balancer in balancers(trainer):
                weights = balancer.refresh(trainer, pl_module, loss)
                paused.enter_context(balancer.paused())
            read = partial(self._measure, trainer, pl_module, loss, weights)
            measurement = self.guard.run("the measurement", read)
        if measurement is not None:
            self._keep(trainer, measurement)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._recorder.logged.clear()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._conclude(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._recorder.detach()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._recorder.detach()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._conclude(trainer)
        self._recorder.detach()

    def state_dict(self) -> dict[str, Any]:
        return self._drift.state_dict() if self.save_start else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module = None  # the state belongs to whatever module is fitted next
        if state_dict:
            self._drift.load_state_dict(state_dict)

    def _measure(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        loss: Tensor,
        weights: Mapping[str, float],
    ) -> Measurement:
        found = self._recorder.terms(loss, check=True)
        terms = {name: term for name, term in found.items() if term.residual.numel()}
        residuals = {name: term.residual for name, term in terms.items()}
        params = named_params(trainer, pl_module)
        scale = 1 / loss_scale(trainer)
        return measure(
            empirical_ntk(residuals, params, certify=self.certify),
            logged_step(trainer),
            drift=self._drift,
            params=params,
            curvature=curvature(terms, {n: scale * weights.get(n, 1.0) for n in terms}),
            max_points=self.max_points,
            dtype=str(next(iter(residuals.values())).dtype).removeprefix("torch."),
        )

    def _keep(self, trainer: pl.Trainer, measurement: Measurement) -> None:
        """Add to the history and hand to the loggers."""
        step, first = measurement.step, self._last is None
        self._last = measurement
        values = scalars(measurement) | {"ntk/overhead_fraction": self._overhead(trainer)}
        for tag, value in values.items():
            self.history.setdefault(tag, []).append((step, value))
        for term, spectrum in measurement.spectra.items():
            self.spectra.setdefault(term, []).append((step, spectrum))
        self.guard.run("logging scalars", partial(log_scalars, trainer, values, step))
        self.guard.run("logging spectra", partial(log_spectra, trainer, measurement))
        if first:
            self.guard.run("logging the layout", partial(log_layout, trainer))
            self._tell(trainer, measurement)

    def _conclude(self, trainer: pl.Trainer) -> None:
        """Log the last summary and the figure, once a fit, if anything was measured."""
        last, self._last = self._last, None
        if last is None:
            return
        if last.step != self._told:
            self._tell(trainer, last)
        self.guard.run("the history figure", partial(self._draw, trainer, last.step))

    def _tell(self, trainer: pl.Trainer, measurement: Measurement) -> None:
        self._told = measurement.step
        text = summary(measurement, max_points=self.max_points)
        log = partial(log_text, trainer, "ntk/summary", text, measurement.step)
        self.guard.run("the summary", log)

    def _draw(self, trainer: pl.Trainer, step: int) -> None:
        if next(writers(trainer), None) is None:
            return
        try:
            figure = history_figure(self.spectra)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "matplotlib":
                raise
            rank_zero_info("NTKMonitor: no history figure without matplotlib; pip install it.")
            return
        log_figure(trainer, "ntk/figure/history", figure, step)

    def _overhead(self, trainer: pl.Trainer) -> float:
        guards = [self.guard, *(balancer.guard for balancer in balancers(trainer))]
        return sum(guard.seconds for guard in guards) / self.guard.elapsed()


def loss_scale(trainer: pl.Trainer) -> float:
    """What the differentiated loss is of the loss as trained on: gradient scaler, accumulation."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return (1.0 if scaler is None else scaler.get_scale()) / trainer.accumulate_grad_batches
