"""NTKMonitor: logs the neural tangent kernel of a PINN while it trains, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pinn_ntk.callbacks.balancer import balancers
from pinn_ntk.callbacks.base import KernelCallback
from pinn_ntk.callbacks.due_step import DueStep
from pinn_ntk.callbacks.report import OVERHEAD, WEIGHT, Read, Report, overhead
from pinn_ntk.callbacks.schedule import Schedule
from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.measuring import measuring
from pinn_ntk.callbacks.step.probe import freezes
from pinn_ntk.callbacks.step.readable import readable
from pinn_ntk.callbacks.step.residual_function import Route
from pinn_ntk.callbacks.step.step_facts import StepFacts
from pinn_ntk.callbacks.step.step_inputs import StepInputs
from pinn_ntk.callbacks.step.step_looks import bounded
from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.callbacks.trainer.checks import at_least
from pinn_ntk.callbacks.trainer.loggers import publish
from pinn_ntk.callbacks.trainer.state import callbacks_of
from pinn_ntk.callbacks.trainer.steps import logged_step
from pinn_ntk.diagnostics.base import Diagnostic, Reading
from pinn_ntk.diagnostics.panel import Panel
from pinn_ntk.diagnostics.registry import chosen
from pinn_ntk.kernel.bounds import MAX_ROWS, MEMORY_BUDGET
from pinn_ntk.looks.step_terms import StepTerms

if TYPE_CHECKING:
    import pytorch_lightning as pl


class NTKMonitor(Read, KernelCallback):
    """Measures the kernel of every loss term on the points that the step trains on.

    It reads the live graph before the backward pass, so the module needs no edit, and training goes
    on to the last bit as it would without. For the verdict the step is run again, some ten times,
    on copies of the module; what it writes into files is written again then. Of L-BFGS and of
    accumulated gradients the first backward pass of a step is measured; of several losses in one
    step (manual optimisation), each. A diagnostic that fails warns once and stays off for that fit.

    Terms are named after the keys under which the module logs them before the backward pass, else
    ``term_0``, ``term_1``, ... (or ``names``). What a walk from the loss cannot see (a custom
    ``autograd.Function``, a compiled loss, ``loss.backward()`` in manual optimisation) is marked by
    `pinn_ntk.tap` in ``training_step``, or computed by ``residuals``. Under DDP, rank 0 measures
    its own points.

    Measured are the first step of a fit, those of the schedule, and the last, where it is known
    beforehand. Logged to all loggers, at the step that ``self.log`` uses, and to
    ``trainer.callback_metrics``:

    | key | meaning | unit |
    | --- | --- | --- |
    | ``ntk/trace/<term>`` | trace of K_aa over all rows: its learning rate in sum | (r / theta)^2 |
    | ``ntk/trace_error/<term>`` | its standard error, where rows were left out | (r / theta)^2 |
    | ``ntk/effective_weight/<term>`` | weight in the loss in force: 1 for a plain mean | 1 |
    | ``ntk/lambda_max/<term>`` | largest eigenvalue of K_aa: the fastest rate | (r / theta)^2 |
    | ``ntk/effective_rank/<term>`` | directions that carry K_aa, Tr^2 / Frobenius^2 | 1 |
    | ``ntk/log10_condition/<term>`` | log10 of lambda_max over the last above the noise | 1 |
    | ``ntk/trace_<group>/<term>`` | share of a group of parameters in it | (r / theta)^2 |
    | ``ntk/drift/<term>`` | relative change of K_aa since the first measurement | 1 |
    | ``ntk/drift/kernel`` | the same of all blocks, cross blocks included | 1 |
    | ``ntk/drift/parameters`` | the same of the parameters | 1 |
    | ``ntk/drift/parameters_<group>`` | the same of each group, where several are trained | 1 |
    | ``ntk/distance_to_limit`` | of the network's kernel, from that of infinite width | 1 |
    | ``ntk/max_stable_lr`` | step size from which gradient descent is unstable | theta^2 / loss |
    | ``ntk/interference/<a>/<b>`` | cosine of the gradients of two terms, weights in force | 1 |
    | ``ntk/predicted_decrease_ratio`` | decrease of the loss over that predicted | 1 |
    | ``ntk/lr`` | learning rate of the step, the largest of its groups | as it is set |
    | ``ntk/verdict`` | number of the cause of the verdict, see docs/verdict.md | 1 |
    | ``ntk/certificate`` | largest relative error against ordinary backward passes | 1 |
    | ``ntk/overhead_fraction`` | share of the fit's wall time spent in NTK callbacks | 1 |

    Drift of kernels is logged while the points stay what they were at the first measurement; for
    points that are drawn anew each step give a ``probe``. The class of each diagnostic says where
    else it is left out. TensorBoard gets besides: all eigenvalues, ``ntk/spectrum/<term>``; the
    text ``ntk/summary`` on the first and the last measurement; a layout for the custom scalars tab;
    ``ntk/figure/history`` and ``ntk/figure/interference`` when the fit ends, by an exception too.

    Cost of a measurement, in backward passes of the loss: about one for factors and traces, one
    for ``certify``, two for interference and prediction, three to check new terms, up to one to
    look for rows that are alike among more than ``max_points``. The rest grows with the rows R
    that are kept: R^2 times the width of the network for the blocks, R^3 for the eigenvalues.
    Factors are held until the batch is over. What ``diagnostics`` does not name costs nothing.

    Args:
        every_n_steps: Steps between measurements.
        steps: Steps to measure at, instead.
        per_decade: Measurements per factor of ten in steps, evenly on a logarithmic axis, instead.
        budget: Share of wall time that may be spent; what is due waits, the first measurement only
            where rows have to be taken one by one.
        names: Names of the terms, in the order in which the loss is written.
        include: Pattern or patterns of the names to measure, such as "pde*".
        params: The same for the parameters that the kernel is taken over, such as "net.*".
        residuals: Function that returns ``{name: residual}``, in place of the terms of the loss:
            a method of the module that takes the batch, by name, or a function (or its import
            path) of module and batch. It is run twice a measurement, before and after the step.
        probe: The same on points that stay: a copy of the first batch seen, kept in checkpoints.
        max_points: Rows of a term up to which its block is formed of all rows; above, of every
            k-th row (on a probe, of one drawn from each of so many strata). Traces are of all.
        certify: Check every kernel against ordinary backward passes with a random probe.
        save_start: Keep the first kernel and parameters in checkpoints, 8 (sum R)^2 bytes and more.
        limit: Measure the distance to the limit of infinite width.
        prefix: First part of all tags. A second monitor with the same one gets "<prefix>_2"; two
            that differ in no argument are refused by Lightning.
        diagnostics: Names of what is measured, such as "traces" and "drift", and objects of your
            own `pinn_ntk.diagnostics.Diagnostic` classes; None for all.
        max_rows: Rows of all terms together that are taken one by one, a backward pass each, where
            the fast path cannot serve a parameter; 24 take some 20 training steps. Of more rows
            some are drawn: traces are estimates with a standard error, what follows is marked.
        memory_budget: Bytes that a measurement may take beyond a backward pass; above it, likewise.
        verbose: Say on the terminal what is measured, and the verdict when the fit ends.

    Attributes:
        history: Tag -> array of (step, value) of all measured; steps count on. Kept in checkpoints.
        spectra: Term -> (step, spectrum).
        verdict: The last `pinn_ntk.verdict.verdict.Verdict`: cause, evidence, remedy.
        verdicts: All as (step, verdict).

    Raises:
        TypeError: ``diagnostics`` is no list of names and objects.
        ValueError: An argument is out of range. One that turns out not to fit the module (names,
            patterns, functions) ends the fit as an `pinn_ntk.ArgumentError`.

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
        diagnostics: Sequence[str | Diagnostic] | None = None,
        max_rows: int | None = MAX_ROWS,
        memory_budget: int = MEMORY_BUDGET,
        verbose: bool = True,
    ) -> None:
        given = dict(locals())
        self.max_points = at_least("NTKMonitor", "max_points", max_points, 1)
        self.bounds = bounded("NTKMonitor", max_rows, memory_budget)
        self.certify, self.verbose = certify, verbose
        panel = chosen(diagnostics, certify=certify, save_start=save_start, limit=limit)
        self._remember(given | {"diagnostics": diagnostics and [d.name for d in panel]})
        schedule = Schedule("NTKMonitor", every_n_steps, steps, per_decade, budget)
        finder = TermFinder(names, include, residuals, probe, max_points)
        self.panel = Panel(panel)
        self._set_up(schedule, finder, params, prefix)
        self.panel.attempt = self.guard
        self.report = Report(self.writer, self.panel, [WEIGHT])
        self.due = DueStep(schedule, self.guard)
        wanted = "verdict" in self.panel.diagnostics
        self.facts = StepFacts(finder, self.guard, self.bounds, wanted=wanted)

    def reset(self) -> None:
        super().reset()
        self.panel.reset()
        self.facts.reset()

    def _restart(self) -> None:
        super()._restart()
        self._read: set[str] = set()  # terms, when it was last due

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        alike = [m for m in callbacks_of(trainer, NTKMonitor, self) if m.prefix == self.prefix]
        position = alike.index(self) + 1
        self.writer.prefix = self.prefix if position == 1 else f"{self.prefix}_{position}"
        self.report.restart()
        self.due.restart(resumed=self._resumed)
        self.ends = self.due.ends
        super().on_fit_start(trainer, pl_module)
        if self.active:
            self.facts.restart()
            self.panel.fit_starts(pl_module, resumed=self._resumed)

    def batch_starts(self, trainer: pl.Trainer, module: Any, batch: Any, idx: int) -> None:
        if freezes(self.finder.probe, batch, self.guard):
            self.panel.points_renewed()
        due = trainer.is_global_zero and self.due.may_come(trainer)
        self.panel.batch_starts(due=due)
        if due:
            self.facts.batch_starts(trainer, module, batch, idx)
        if due or (trainer.is_global_zero and self.panel.waits):
            keep = partial(StepInputs, module, batch)
            self.looks.inputs = self.guard.run("what the step begins from", keep)

    def at_backward(self, at: Backward) -> None:
        """Measure, if that is due at this backward pass; every rank comes here alike."""
        trainer = at.trainer
        begins = self.due.begins(trainer)
        if begins:
            self.report.values, self.looks.done = {}, set()
            self.facts.step_begins(at)
        due = self.due.now(trainer, self.finder.told, several=not at.module.automatic_optimization)
        if begins and due and not self.due.late:
            self._read = set()
        if trainer.is_global_zero and self.panel.waits:
            follow = partial(readable, self.guard, at, partial(self._follow, at))
            late = self.guard.run(self.panel.waiting, follow)
            self.report.late(trainer, late or [])
        if not due:
            return
        for balancer in balancers(trainer):
            balancer.refresh(at)
        if trainer.is_global_zero:
            measure = partial(readable, self.guard, at, partial(self._measure, at))
            readings = self.guard.run("the measurement", measure, retry=True)
            if readings is not None:  # the time that it took counts
                self.guard.run("keeping the measurement", partial(self._keep, trainer, readings))

    def _follow(self, at: Backward) -> list[Reading]:
        with measuring(at.module):
            look = self.look(at, lambda found: found, lambda _: False)
            return [] if look is None else self.panel.follow(look)

    def _measure(self, at: Backward) -> list[Reading] | None:
        """Read the terms of a loss that this step has not measured before."""
        with measuring(at.module):
            look = self.look(at, self._to_read, lambda _: self.certify)
            if look is None or look.found.ascends or self.due.too_dear(at.trainer, look):
                return None
            self.checks.tell_undefined(look)
            if self.certify:
                self.checks.check(at, look)
            self.looks.done |= set(look.found.residuals)
            self._read |= set(look.found.residuals)
            self.looks.first = self.looks.first or look
            self.facts.put_into(look, at, self.checks)
            readings = self.panel.read(look)
            self.facts.was_read(look)
            return readings

    def _to_read(self, found: StepTerms) -> StepTerms:
        """Terms that this step has not measured; late, if one was missing when it was due."""
        wanted = not self.due.late or not self._read.issuperset(found.residuals)
        return self.looks.fresh(found) if wanted else found.of(lambda _: False)

    def _keep(self, trainer: pl.Trainer, readings: list[Reading]) -> None:
        step = logged_step(trainer)
        self.acts += 1
        share = Reading(step, {OVERHEAD.pattern: overhead(trainer, self)})
        self.report.measured(trainer, step, [*readings, share])

    def will_look(self, trainer: pl.Trainer) -> bool:
        return self.due.will_look(trainer)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.facts.moves(optimizer)

    def batch_ends(self, trainer: pl.Trainer) -> None:
        self.facts.batch_ends()
        if self.looks.first is not None:
            with measuring(trainer.lightning_module):
                readings = self.panel.stepped(self.looks.first)
            self.report.late(trainer, readings)
        if trainer.world_size > 1 and self.due.recent and self.schedule.budget is None:
            publish(trainer, trainer.strategy.broadcast(self.report.values))
        self.panel.batch_ends()

    def conclude(self, trainer: pl.Trainer) -> None:
        self.report.conclude(trainer)

    def detach(self) -> None:
        super().detach()
        self.panel.fit_ends()

    def state_dict(self) -> dict[str, Any]:
        probe = self.finder.probe
        return {
            **super().state_dict(),
            "schedule": self.schedule.state_dict(),
            "probe": {} if probe is None else probe.state_dict(),
            "diagnostics": self.panel.state_dict(),
            "progress": self.facts.state_dict(),
        }

    def load_more(self, state: Mapping[str, Any]) -> None:
        self.schedule.load_state_dict(state["schedule"])
        self.panel.load_state_dict(state["diagnostics"])
        self.facts.load_state_dict(state.get("progress", {}))
        if self.finder.probe is not None:
            self.finder.probe.load_state_dict(state["probe"])
            self.finder.probe.renewed = not state["probe"]  # said when it is frozen
