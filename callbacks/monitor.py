"""NTKMonitor: logs the neural tangent kernel of a PINN while it trains, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.callbacks.balancer import balancers
from pinn_ntk.callbacks.instrument import PREDICTION, Instrument
from pinn_ntk.callbacks.log_writer import Logbook
from pinn_ntk.callbacks.predicted_decrease import Outlook
from pinn_ntk.callbacks.schedule import Schedule
from pinn_ntk.callbacks.step.manual_backward import RawBackward, measuring
from pinn_ntk.callbacks.step.residual_function import Route
from pinn_ntk.callbacks.step.term_finder import Source
from pinn_ntk.callbacks.trainer.checks import at_least, unsupported_strategy
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.loggers import publish
from pinn_ntk.callbacks.trainer.state import StatefulCallback
from pinn_ntk.callbacks.trainer.steps import last_step, logged_step
from pinn_ntk.diagnostics.decrease import Judged
from pinn_ntk.diagnostics.history import History
from pinn_ntk.kernel.spectrum import Spectrum

if TYPE_CHECKING:
    import pytorch_lightning as pl


class NTKMonitor(StatefulCallback):
    """Measures the kernel of every loss term on the points that the step trains on.

    It reads the live graph before the backward pass, so the module needs no edit, nothing is run
    twice, and training goes on to the last bit as it would without. Of L-BFGS and of accumulated
    gradients the first backward pass of a step is measured; of several losses in one step
    (manual optimisation), each. A diagnostic that fails warns once and stays off for that fit.

    Terms are named after the keys under which the module logs them before the backward pass, else
    ``term_0``, ``term_1``, ... (or ``names``). What a walk from the loss cannot see (a custom
    ``autograd.Function``, a compiled loss, ``loss.backward()`` in manual optimisation) is marked by
    `pinn_ntk.tap` in ``training_step``, or computed by ``residuals``. Under DDP, rank 0 measures
    its own points.

    Measured are the first step of a fit, those of the schedule, and the last; the last is not
    known beforehand where early stopping, ``max_time`` or nothing at all ends the fit. Logged to
    all loggers, at the step that ``self.log`` uses, and to ``trainer.callback_metrics``:

    | key | meaning | unit |
    | --- | --- | --- |
    | ``ntk/trace/<term>`` | trace of K_aa over all rows: its learning rate in sum | (r / theta)^2 |
    | ``ntk/lambda_max/<term>`` | largest eigenvalue of K_aa: the fastest rate | (r / theta)^2 |
    | ``ntk/effective_rank/<term>`` | directions that carry K_aa, Tr^2 / Frobenius^2 | 1 |
    | ``ntk/log10_condition/<term>`` | log10 of lambda_max over the last above the noise | 1 |
    | ``ntk/effective_weight/<term>`` | weight in the loss in force: 1 for a plain mean | 1 |
    | ``ntk/drift/<term>`` | relative change of K_aa since the first measurement | 1 |
    | ``ntk/drift/kernel`` | the same of all blocks, cross blocks included | 1 |
    | ``ntk/drift/parameters`` | the same of the parameters | 1 |
    | ``ntk/max_stable_lr`` | step size from which gradient descent is unstable | theta^2 / loss |
    | ``ntk/lr`` | learning rate of the step, the largest of its groups | as it is set |
    | ``ntk/interference/<a>/<b>`` | cosine of the gradients of two terms, weights in force | 1 |
    | ``ntk/predicted_decrease_ratio`` | decrease of the loss by the step over that predicted | 1 |
    | ``ntk/distance_to_limit`` | of the network's kernel, from that of infinite width | 1 |
    | ``ntk/certificate`` | largest relative error against ordinary backward passes | 1 |
    | ``ntk/overhead_fraction`` | share of the fit's wall time spent in NTK callbacks | 1 |

    Where network, inverse and loss-weight parameters are trained together, also
    ``ntk/trace_<group>/<term>`` and ``ntk/drift/parameters_<group>``. The trace of a term that
    holds NaN or inf is logged as NaN.

    ``ntk/max_stable_lr`` holds for plain gradient descent on a sum of weighted squares, with the
    weights of an `NTKBalancer` if there is one; it is left out for other losses. Drift of kernels
    is logged while the points stay what they were at the first measurement, from the second one
    on; for points that are drawn anew each step give a ``probe``.

    Interference and the predicted decrease need terms whose weights in the loss are known. The
    decrease, is that of whatever step the optimizer took, and 1 where
    residuals are linear in the parameters along it; near 1 as well where the loss rises as the
    kernel says, and the summary gives the sign. It is known when the next step has come, and
    logged at the step that it is of; not for points that are drawn anew (give a ``probe``), where
    gradients are accumulated, or with ``params``. Nor is it where residuals become another function
    of the parameters between the two steps: where these draw random numbers (dropout; noise on
    targets), or batch, buffers or frozen parameters change; ``residuals`` and ``probe`` draw the
    same numbers twice. Annealed attributes and generators of your own cannot be seen: leave the
    ratio aside there. Of losses such as sqrt(mean r^2) or log(mean r^2) it is that of the mean
    square with the weight that the step gives it. The limit is that of the one plain multilayer
    perceptron of a module, at 64 of its first inputs, which checkpoints keep; of other modules, of
    compiled networks and of those resumed from a checkpoint without it, it is left out.

    TensorBoard loggers get besides: all eigenvalues as tensor summaries ``ntk/spectrum/<term>``;
    the text ``ntk/summary`` on the first and the last measurement; a layout for the custom scalars
    tab; and the figures ``ntk/figure/history`` and ``ntk/figure/interference`` when the fit ends,
    by an exception too.

    Cost of a measurement, in backward passes of the loss: about one for the factors and traces of
    all terms, one for ``certify``, two for interference and prediction; for terms not seen before,
    three to check that none is missing; for terms of more than ``max_points`` rows, up to one to
    look for duplicated points. The rest grows with the rows: R^2 times the width of the
    network for the blocks, R^3 for the eigenvalues, R all rows kept together. Factors are held
    until the batch is over. A spectrum takes about 4 R bytes of log, the figures about 1 s once,
    the limit 0.2 s once. ``ntk/overhead_fraction`` says what it comes to.

    Args:
        every_n_steps: Steps between measurements.
        steps: Steps to measure at, instead.
        per_decade: Measurements per factor of ten in steps, evenly on a logarithmic axis, instead.
        budget: Share of wall time that may be spent; what is due waits until it is affordable.
        names: Names of the terms, in the order in which the loss is written.
        include: Pattern or patterns of the names to measure, such as "pde*".
        params: The same for the parameters that the kernel is taken over, such as "net.*".
        residuals: Function that returns ``{name: residual}``, in place of the terms of the loss:
            a method of the module that takes the batch, by name, or a function (or its import
            path) of module and batch. It is run twice a measurement, before and after the step.
        probe: The same on points that stay, for all figures: it gets a copy of the first batch
            seen, which checkpoints keep.
        max_points: Rows of a term up to which its block is formed of all rows; above, of every
            k-th row (on a probe, of one drawn from each of so many strata). The trace is always of
            all rows, and duplicated points are looked for in all.
        certify: Check every kernel against ordinary backward passes with a random probe.
        save_start: Keep the first kernel and parameters in checkpoints, so that drift goes on
            after a restart; 8 (sum R)^2 bytes and more.
        limit: Measure the distance to the limit of infinite width.
        prefix: First part of all tags. A second monitor of a Trainer with the same one gets
            "<prefix>_2".

    Attributes:
        history: Tag -> array of (step, value), of all that was measured, whatever the loggers.
            Steps count on over fits. Kept in checkpoints.
        spectra: Term -> (step, spectrum).

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> monitor = NTKMonitor(every_n_steps=1000)
        >>> trainer = pl.Trainer(callbacks=[monitor], max_steps=1000)  # doctest: +SKIP
    """

    def __init__(
        self,
        every_n_steps: int = 1000,
        steps: Sequence[int] | None = None,
        per_decade: int | None = None,
        budget: float | None = None,
        names: Sequence[str] | None = None,
        include: str | Sequence[str] | None = None,
        params: str | Sequence[str] | None = None,
        residuals: Route = None,
        probe: Route = None,
        max_points: int = 512,
        certify: bool = True,
        save_start: bool = True,
        limit: bool = True,
        prefix: str = "ntk",
    ) -> None:
        self._remember(locals())
        self.max_points = at_least("NTKMonitor", "max_points", max_points, 1)
        self.save_start, self.prefix = save_start, prefix
        self.schedule = Schedule("NTKMonitor", every_n_steps, steps, per_decade, budget)
        self.source = Source(names, include, residuals, probe, max_points)
        self.guard = Guard("NTKMonitor")
        self._instrument = Instrument(
            self.source, params, max_points, self.guard, certify=certify, limit=limit
        )
        self.raw = RawBackward(self.source.recorder, self._look)
        self._module: ref[pl.LightningModule] | None = None
        self._resumed = False
        self._forget()
        self._restart()

    @property
    def history(self) -> History:
        """Tag -> array of (step, value), (n, 2)."""
        return self._book.history

    @property
    def spectra(self) -> dict[str, list[tuple[int, Spectrum]]]:
        """Term -> (step, spectrum)."""
        return self._book.spectra

    @property
    def _outlook(self) -> Outlook:
        return self._instrument.outlook

    def _forget(self) -> None:
        self._book = Logbook(self.guard, self.max_points)
        self._instrument.forget()

    def _restart(self) -> None:
        self._seen: int | None = None
        self._due = self._was_due = False
        self._instrument.begin_step()
        self._values: dict[str, float] = {}
        self._active = True
        self.guard.restart()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._module is not None and self._module() is not pl_module:
            self._forget()
        self._module = ref(pl_module)
        self._restart()
        self._due = self._resumed  # the step before the first may have been measured
        refused = unsupported_strategy(trainer)
        if refused is not None:
            self._active = False
            self.guard.warn_once("strategy", f"{refused} Nothing is measured.")
            return
        self._book.open(self._own_prefix(trainer), logged_step(trainer), resumed=self._resumed)
        self.source.recorder.attach(pl_module)
        self._instrument.attach(pl_module, resumed=self._resumed)
        self.raw.attach(trainer, pl_module)

    def _own_prefix(self, trainer: pl.Trainer) -> str:
        twins = [monitor for monitor in monitors(trainer) if monitor.prefix == self.prefix]
        position = twins.index(self) + 1
        return self.prefix if position == 1 else f"{self.prefix}_{position}"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._active and self._resumed:
            publish(trainer, self.history.last())  # for callbacks that look before we measure

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._active:
            self.raw.begin()
            due = trainer.is_global_zero and self._may_be_due(trainer)
            self._instrument.begin(batch, due=due)
            if due or (trainer.is_global_zero and self._outlook.is_open):
                self.guard.run(PREDICTION, partial(self._outlook.start, pl_module, batch))

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        if self._active:
            self.raw.lightning_saw_it()
            self._look(trainer, pl_module, loss)

    def _look(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor | None
    ) -> None:
        """Measure, if that is due at this backward pass; every rank comes here alike."""
        due = self._is_due(trainer, pl_module)
        self._judge(trainer, partial(self._outlook.before_backward, trainer, pl_module, loss))
        if not due:
            return
        weights: dict[Node, float] = {}
        for balancer in balancers(trainer):
            balancer.refresh(trainer, pl_module, loss)
            with measuring():
                weights = balancer.by_head(loss)
        if trainer.is_global_zero:
            read = partial(self._instrument.read, trainer, pl_module, loss, weights)
            measurement = self.guard.run("the measurement", read)
            if measurement is not None:
                keep = partial(self._book.keep, trainer, measurement, self._overhead(trainer))
                self._values |= self.guard.run("keeping the measurement", keep) or {}
                publish(trainer, self._values)

    def _judge(self, trainer: pl.Trainer, judge: Callable[[], Judged | None]) -> None:
        """Log what became of the forecast of a measured step, if that turns out now."""
        known = trainer.is_global_zero and self._outlook.is_open
        judged = self.guard.run(PREDICTION, judge) if known else None
        if judged is not None:
            values = self._book.add(trainer, judged)
            self._values |= values
            publish(trainer, values)

    def _share(self, trainer: pl.Trainer) -> None:
        """Let all ranks know what rank 0 measured in this step, or of the one before."""
        recent = self._due or self._was_due
        if trainer.world_size > 1 and recent and self.schedule.budget is None:
            publish(trainer, trainer.strategy.broadcast(self._values))

    def _may_be_due(self, trainer: pl.Trainer) -> bool:
        """Whether the batch that starts may be measured, which the clock may still prevent."""
        step = logged_step(trainer)
        if self._seen is None or step == self._seen:
            return self._seen is None
        return self.schedule.may_be_due(step, last_step(trainer))

    def _is_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        step, before = logged_step(trainer), self._seen
        if step == before:  # several losses in one step
            return self._due and not pl_module.automatic_optimization
        self._seen, self._values, self._was_due = step, {}, self._due
        self._instrument.begin_step()
        spent, elapsed = self.guard.seconds, self.guard.elapsed()
        due = self.schedule.due(step, last_step(trainer), spent, elapsed)
        self._due = due or (before is None and not self._resumed)
        return self._due

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._active:
            self._judge(trainer, partial(self._outlook.after_batch, trainer, pl_module))
            self._share(trainer)
            self._instrument.end()
            self._book.count(logged_step(trainer))
            self.raw.end(self.guard)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._active:
            self.raw.epoch_end(self.guard)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._book.conclude(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._undo()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._undo()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._book.conclude(trainer)
        self._undo()

    def _undo(self) -> None:
        self.source.recorder.detach()
        self._instrument.detach()
        self._resumed = False

    def state_dict(self) -> dict[str, Any]:
        return {
            "book": self._book.state_dict(),
            "schedule": self.schedule.state_dict(),
            **self._instrument.state_dict(save_start=self.save_start),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module = None  # the state belongs to whatever module is fitted next
        self._forget()
        if "book" not in state_dict:
            return
        self._resumed = True
        self._book.load_state_dict(state_dict["book"])
        self.schedule.load_state_dict(state_dict["schedule"])
        self._instrument.load_state_dict(state_dict)

    def _overhead(self, trainer: pl.Trainer) -> float:
        guards = [monitor.guard for monitor in monitors(trainer)]
        guards += [balancer.guard for balancer in balancers(trainer)]
        return sum(guard.seconds for guard in guards) / self.guard.elapsed()


def monitors(trainer: pl.Trainer) -> list[NTKMonitor]:
    """Every NTKMonitor among the callbacks of a trainer."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, NTKMonitor)]
