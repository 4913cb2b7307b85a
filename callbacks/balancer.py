"""NTKBalancer: weights the loss terms by the traces of their kernels while a PINN trains.

What reaches the parameters is the gradient of sum_a lambda_a L_a; the loss itself, and with it all
that is logged, stays unweighted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.callbacks.base import KernelCallback
from pinn_ntk.callbacks.schedule import Schedule
from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.measuring import measuring
from pinn_ntk.callbacks.step.readable import readable
from pinn_ntk.callbacks.step.residual_function import Route
from pinn_ntk.callbacks.step.step_looks import bounded
from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.callbacks.trainer.checks import check_alone, check_optimizers
from pinn_ntk.callbacks.trainer.state import callbacks_of
from pinn_ntk.callbacks.trainer.steps import logged_step
from pinn_ntk.callbacks.weighting.distributed import Traces, traces_of
from pinn_ntk.callbacks.weighting.gradient_weights import UNWEIGHED, GradientWeights
from pinn_ntk.callbacks.weighting.remarks import Remarks
from pinn_ntk.callbacks.weighting.update import TITLE, WeightUpdate
from pinn_ntk.callbacks.weighting.weights_in_loss import WeightsInLoss
from pinn_ntk.graph.residuals import named_residuals
from pinn_ntk.kernel.bounds import MAX_ROWS, MEMORY_BUDGET
from pinn_ntk.looks.parameters import matches
from pinn_ntk.looks.step_terms import StepTerms
from pinn_ntk.weights.trace import DEFAULT, Convention, TraceRule

if TYPE_CHECKING:
    import pytorch_lightning as pl


class NTKBalancer(KernelCallback):
    """Weights loss terms so that their kernels have equal traces; no edit of the module needed.

    On schedule, from the first step on, before the backward pass: lambda_a = sum_b c_b / c_a with
    c_a = Tr K_aa / N_a, the mean diagonal of the kernel of the unweighted residuals. Where all
    terms have as many rows N_a this is the rule of Wang, Yu, Perdikaris 2022 (Algorithm 1, eqs 6.5
    and 6.6). In every step each lambda_a multiplies the gradient that enters term a.

    Weights that the loss itself holds stay in force beside them and multiply with them, which is
    said once where they differ: leave those at 1. Learned ones get the gradient of the unweighted
    loss.

    Terms are named as in `NTKMonitor`. A term that is absent from a batch keeps its weight, and the
    update stays due until it was there; a new one has weight 1 in its first step. One that the loss
    ascends (negative weight, as in min-max schemes) is left alone, and so is one that no parameter
    moves (trace 0, as under a hard constraint), while it does not. An update that fails (NaN, inf),
    or falls due on a step without a backward pass, keeps the last weights, warns once, and is tried
    again. Under DDP the traces of all ranks are added up first.

    A loss whose terms cannot be found (a custom ``autograd.Function``, a compiled loss) is trained
    on unweighted, with one warning; mark its residuals with `pinn_ntk.tap`. So is, with manual
    optimisation, ``loss.backward()`` without taps: call ``self.manual_backward``.

    L-BFGS compares values of the loss, so weights on gradients are refused when the fit starts:
    multiply the loss by a `pinn_ntk.LossWeights`, which is a part of your module. Where there is
    one, with any optimizer, new weights are written into it when the step is over (L-BFGS then
    forgets its memory, which is of another loss), and gradients are left alone.

    Other terms than squares (L1, Huber) are weighted by the trace of their residual all the same.
    Where one residual is computed from the loss term of another, that path gets both weights.
    Logged to all loggers and ``trainer.callback_metrics``, whenever updated: ``ntk/weight/<term>``.

    Cost: in every step a walk from the loss to its terms: a tenth of a millisecond where they are
    logged as live tensors; else (numbers, taps, manual optimisation) about one, and five for eight
    terms. An update takes about one backward pass of the loss; the first one, and each whose terms
    are new, adds with ``certify`` three to four for checks. A monitor due then shares it.

    Args:
        every_n_steps: Steps between updates.
        steps: Steps to update at, instead.
        per_decade: Updates per factor of ten in steps, evenly on a logarithmic axis, instead.
        rule: How weights follow from the kernel; there is one so far.
        convention: What is made equal for terms of unequal numbers of rows: "mean" does not depend
            on how many points were drawn, "sum" (the paper's equations as they stand) and "rate"
            do, see `pinn_ntk.weights.trace`.
        ema: Share of the old weight that an update keeps; 0 replaces it, as the paper does.
        min_weight: Smallest weight.
        max_weight: Largest weight.
        names: Names of the terms, in the order in which the loss is written.
        include: Pattern or patterns of the names to weigh, such as "pde*"; others keep weight 1.
        params: The same for the parameters that the kernel is taken over, such as "net.*".
        residuals: As in `NTKMonitor`; weights go to terms of the loss that have these names.
        certify: Check kernel and terms at the first update, and whenever terms are new.
        prefix: First part of all tags.
        max_rows: As in `NTKMonitor`, and so is ``memory_budget``. Weights that follow from
            estimates are logged with a standard error, ``ntk/weight_error/<term>``. A kernel is
            shared with a monitor of the same bounds.
        memory_budget: Bytes that an update may take.

    Attributes:
        weights: Term -> lambda_a in force. Kept in checkpoints, as is `history`.

    Raises:
        ValueError: An argument is out of range.
        MisconfigurationException: L-BFGS without `LossWeights`, or a second NTKBalancer.

    Example:
        >>> trainer = pl.Trainer(callbacks=[NTKBalancer(every_n_steps=500)])  # doctest: +SKIP
    """

    balances = stays = True
    without = "So the loss is trained on unweighted."
    act = "update"

    def __init__(
        self,
        every_n_steps: int = 500,
        steps: Sequence[int] | None = None,
        per_decade: int | None = None,
        rule: Literal["trace"] = "trace",
        convention: Convention = DEFAULT,
        ema: float = 0.0,
        min_weight: float = 0.0,
        max_weight: float = math.inf,
        names: Sequence[str] | None = None,
        include: str | Sequence[str] | None = None,
        params: str | Sequence[str] | None = None,
        residuals: Route = None,
        certify: bool = True,
        prefix: str = "ntk",
        max_rows: int | None = MAX_ROWS,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        self._remember(locals())
        if rule != "trace":
            raise ValueError(f"NTKBalancer: rule is {rule!r}; expected 'trace'.")
        self.rule = TraceRule(convention, ema, min_weight, max_weight)
        self.bounds = bounded("NTKBalancer", max_rows, memory_budget)
        self._update = WeightUpdate(self.rule)
        self.check_first = certify
        schedule = Schedule("NTKBalancer", every_n_steps, steps, per_decade)
        finder = TermFinder(names, include, residuals)
        self._on_gradients = GradientWeights(finder, self.weight_of, self._update.terms.rename)
        self._set_up(schedule, finder, params, prefix)

    @property
    def weights(self) -> dict[str, float]:
        """Term -> lambda_a in force."""
        return self._update.terms.weights

    @property
    def plan(self) -> str:  # type: ignore[override]
        """What it does when it is due."""
        return f'weighed by traces (convention="{self.rule.convention}")'

    def reset(self) -> None:
        super().reset()
        self._update.terms.reset()
        self._on_gradients.forget()

    def _restart(self) -> None:
        super()._restart()
        self._update.restart(self.guard)
        self._on_gradients.aside, self.balances = False, True
        self._loss: ref[Tensor] | None = None
        self._certified: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_alone(balancers(trainer))
        super().on_fit_start(trainer, pl_module)
        if self.active:
            self._update.fit_starts(trainer, pl_module)
            self.ends = self._update.ends
            if self._in_loss is None:
                check_optimizers(trainer)

    @property
    def _in_loss(self) -> WeightsInLoss | None:
        return self._update.in_loss

    @property
    def unweighed(self) -> str:
        return "" if self._in_loss is not None else UNWEIGHED.format(weights=self.weights)

    def at_backward(self, at: Backward) -> None:
        """Update the weights if that is due, and put them on the gradient."""
        self.refresh(at)
        if at.loss is not None and self._in_loss is None:
            remember = at.module.automatic_optimization
            put = partial(self._on_gradients.put, at.module, at.loss, remember=remember)
            self.guard.run(TITLE, partial(readable, self.guard, at, put), retry=True)

    def batch_ends(self, trainer: pl.Trainer) -> None:
        if self._in_loss is not None:
            self.guard.run(TITLE, partial(self._in_loss.write, trainer), retry=True)
            self.weights.update(self._in_loss.as_dict())  # rounded to the buffer's dtype

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.active:
            self._update.epoch_ends(trainer.fit_loop.total_batch_idx)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self._update.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._update.load_state_dict(state_dict)

    def refresh(self, at: Backward) -> None:
        """Update the weights if that is due and not yet done in this step."""
        if self._in_loss is None:
            self.balances = self._on_gradients.look_at(at, self.guard)
        if self.active and not self._on_gradients.aside and self._is_due(at):
            local = self._update.measured(
                lambda remarks: readable(self.guard, at, partial(self._measure, at, remarks)) or {}
            )
            if tagged := self._update.tagged(self._update.take(at.trainer, local)):
                self.acts += 1
                self.writer.log(at.trainer, logged_step(at.trainer), tagged)

    def _is_due(self, at: Backward) -> bool:
        """Once a step, and again for each further loss of a step in manual optimisation."""
        step = logged_step(at.trainer)
        if step != self._update.step:
            self.looks.done = set()
            self._update.begins(step, asked=self.schedule.asks(step, self._update.step))
            if self._in_loss is not None:
                self._update.meet(self._on_gradients.names(at))
        elif at.module.automatic_optimization or not self._is_new(at.loss):
            return False
        self._loss = None if at.loss is None else ref(at.loss)
        return self._update.wants(partial(self._on_gradients.names, at))

    def _is_new(self, loss: Tensor | None) -> bool:
        if loss is None:
            return not self.looks.done.issuperset(self.finder.recorder.taps)
        return self._loss is None or self._loss() is not loss

    def _measure(self, at: Backward, remarks: Remarks) -> Traces:
        with measuring(at.module):
            look = self.look(at, partial(self._to_weigh, at.loss), self._to_certify)
            self._update.terms.rename(self.finder.recorder.known.renamed)
            if look is None:
                return {}
            found = look.found
            self.looks.done |= set(found.residuals)
            if self._to_certify(found):
                self.checks.check(at, look)
            named_residuals(found.residuals)  # says what is wrong with a residual
            kernel, traces = look.kernel, traces_of(look)
            remarks.note(look, self._in_loss)
        if not any(kernel.jacobian(term).fallbacks for term in kernel.terms):
            self._certified.add(found.signature)
        self._update.estimated({name: kernel.trace_error(name) for name in kernel.sampled_terms})
        return traces

    def _to_weigh(self, loss: Tensor | None, found: StepTerms) -> StepTerms:
        """The terms to take traces of."""
        self._update.pass_over(found.terms.keys() - found.residuals.keys())
        if self._in_loss is None and loss is not None:
            found = self._on_gradients.weighable(found)
        found = self.looks.fresh(found).descending
        wanted = self._update.wants(lambda: found.residuals)
        return found if wanted else found.of(lambda _: False)

    def _to_certify(self, found: StepTerms) -> bool:
        return self.check_first and found.signature not in self._certified

    def weights_on_heads(self, loss: Tensor | None) -> Mapping[Node, float]:
        if self._in_loss is not None or loss is None or not self.active:
            return {}
        return self._on_gradients.on_heads(loss)

    def weight_of(self, name: str) -> float:
        """Weight in force of a term on gradients; a new one has 1 until the next update."""
        aside = self._in_loss is not None or self._on_gradients.aside
        if aside or not matches(name, self.finder.include):
            return 1.0
        self._update.meet([name])
        return self.weights.setdefault(name, 1.0)

    def close_looks(self) -> None:
        """The backward pass is over: take the weights off the graph, too."""
        super().close_looks()
        self._on_gradients.take_off()


def balancers(trainer: pl.Trainer) -> list[NTKBalancer]:
    """Every NTKBalancer among the callbacks of a trainer."""
    return callbacks_of(trainer, NTKBalancer)
