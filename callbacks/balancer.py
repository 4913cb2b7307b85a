"""NTKBalancer: weights the loss terms by their kernels while a PINN trains.

Parameters get the gradient of sum_a lambda_a L_a; the loss, and all that is logged, stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
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
from pinn_ntk.callbacks.trainer.flavours import MisconfigurationException
from pinn_ntk.callbacks.trainer.state import callbacks_of
from pinn_ntk.callbacks.trainer.steps import logged_step
from pinn_ntk.callbacks.weighting.gradient_weights import UNWEIGHED, GradientWeights
from pinn_ntk.callbacks.weighting.point_weights import POINTS_IN_LOSS, PointWeights
from pinn_ntk.callbacks.weighting.update import TITLE, WeightUpdate
from pinn_ntk.kernel.bounds import MAX_ROWS, MEMORY_BUDGET
from pinn_ntk.looks.parameters import matches
from pinn_ntk.looks.step_terms import StepTerms
from pinn_ntk.weights.limits import MAX_CHANGE, MAX_WEIGHT, Limits
from pinn_ntk.weights.registry import RuleName, rule_of
from pinn_ntk.weights.rule import BalancingRule, Costs
from pinn_ntk.weights.trace import Convention

if TYPE_CHECKING:
    import pytorch_lightning as pl


class NTKBalancer(KernelCallback):
    """Weights loss terms so that they learn at one rate; no edit of the module needed.

    On schedule, from the first step on, before the backward pass: lambda_a = sum_b c_b / c_a, with
    c_a the cost that the rule gives a term. In every step each lambda_a multiplies the gradient
    that enters term a. `pinn_ntk.weights.registry` lists the rules. For "trace" c_a is the mean
    diagonal of K_aa (Wang, Yu, Perdikaris 2022, Algorithm 1, eqs 6.5 and 6.6).

    Weights that the loss itself holds multiply with them, which is said once where they differ:
    leave those at 1. Learned ones get the gradient of the unweighted loss.

    Terms are named as in `NTKMonitor`. A term that is absent from a batch keeps its weight, and the
    update stays due until it was there; a new one has weight 1 in its first step. One that the loss
    ascends (negative weight, as in min-max schemes) is left alone, and so is one that no parameter
    moves (trace 0, as under a hard constraint), while it does not. An update that fails (NaN, inf),
    or falls due on a step without a backward pass, keeps the last weights, warns once, and is tried
    again. Under DDP the costs of all ranks are added up first.

    A loss whose terms cannot be found (a custom ``autograd.Function``, a compiled loss) is trained
    on unweighted, with one warning; mark its residuals with `pinn_ntk.tap`, or in manual
    optimisation call ``self.manual_backward``. L-BFGS compares values of the loss: let it hold a
    `pinn_ntk.LossWeights`. New weights are then written into that when the step is over, with any
    optimizer (L-BFGS forgets its memory, which is of another loss), and gradients left alone.

    Where one residual is computed from the loss term of another, that path gets both weights.
    Logged to all loggers and ``trainer.callback_metrics``, whenever updated: ``ntk/weight/<term>``.

    Cost: in every step a walk from the loss to its terms: a tenth of a millisecond where they are
    logged as live tensors, else one to five. An update takes about one backward pass of the loss;
    "pointwise" takes one in every step. The first one, and each whose terms are new, adds with
    ``certify`` three to four for checks. A monitor due then shares it.

    Args:
        every_n_steps: Steps between updates; ``steps`` and ``per_decade`` as in `NTKMonitor`.
        rule: "trace", "largest_eigenvalue", "gradient_norm", "residual_decay", "pointwise" or
            "none" (nothing is measured), or a `BalancingRule`.
        convention: For "trace", what is made equal for unequal numbers of rows, "mean" (if left
            out), "sum" (the paper's equations as they stand) or "rate": `pinn_ntk.weights.trace`.
        ema: Share of the old weight that an update keeps; 0 replaces it, as the paper does.
        min_weight: Smallest weight, but for ``keep_stable``; ``max_weight`` the largest.
        max_change: Factor by which an update changes a weight at most, save the first of a term.
        warmup_steps: Steps before the first update, in which all weights are 1.
        freeze_after: Step after which weights stay as they are.
        keep_stable: At updates, and as the learning rate rises, scale all weights down where plain
            gradient descent would diverge, and say so; if left out, where that is the optimizer.
        names: Names of the terms, in the order in which the loss is written.
        include: Pattern or patterns of the names to weigh, such as "pde*"; others keep weight 1.
        params: The same for the parameters that the kernel is taken over, such as "net.*".
        residuals: As in `NTKMonitor`; weights go to terms of the loss that have these names.
        certify: Check kernel and terms at the first update, and whenever terms are new.
        prefix: First part of all tags.
        max_rows: As in `NTKMonitor`, and so is ``memory_budget``. Weights from estimated traces
            come with a standard error, ``ntk/weight_error/<term>``.

    Raises:
        ValueError: An argument is out of range.
        MisconfigurationException: L-BFGS without `LossWeights`, "pointwise" with them, or a second
            NTKBalancer.

    >>> trainer = pl.Trainer(callbacks=[NTKBalancer(every_n_steps=500)])  # doctest: +SKIP
    """

    balances = stays = True
    without, act = "So the loss is trained on unweighted.", "update"

    def __init__(
        self,
        every_n_steps: int = 500,
        steps: Sequence[int] | None = None,
        per_decade: int | None = None,
        rule: RuleName | BalancingRule = "trace",
        convention: Convention | None = None,
        ema: float = 0.0,
        min_weight: float = 0.0,
        max_weight: float = MAX_WEIGHT,
        max_change: float = MAX_CHANGE,
        warmup_steps: int = 0,
        freeze_after: int | None = None,
        keep_stable: bool | None = None,
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
        self.rule = rule_of(rule, convention, "NTKBalancer")
        bounds = (ema, min_weight, max_weight, max_change)
        limits = Limits(*bounds, warmup_steps, freeze_after, "NTKBalancer")
        self.bounds = bounded("NTKBalancer", max_rows, memory_budget)
        self._update = WeightUpdate(self.rule or BalancingRule(), limits, keep_stable)
        self.check_first = certify
        finder, terms = TermFinder(names, include, residuals), self._update.terms
        self._points = PointWeights(terms.rule, limits)
        self._on_gradients = GradientWeights(finder, self.weight_of, terms.rename, self._points)
        schedule = Schedule("NTKBalancer", every_n_steps, steps, per_decade)
        self._set_up(schedule, finder, params, prefix)

    @property
    def weights(self) -> dict[str, float]:
        """Term -> lambda_a in force. Kept in checkpoints, as is `history`."""
        return self._update.terms.weights

    @property
    def plan(self) -> str:  # type: ignore[override]
        """What it does when it is due."""
        return f"weighed by {self._update.terms.rule.title}"

    def reset(self) -> None:
        super().reset()
        self._update.reset()
        self._on_gradients.forget()

    def _restart(self) -> None:
        super()._restart()
        self._update.restart(self.guard)
        self._on_gradients.aside, self.balances = False, True
        self._certified: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_alone(balancers(trainer))
        super().on_fit_start(trainer, pl_module)
        self.active = self.active and self.rule is not None
        if self.active:
            self._update.fit_starts(trainer, pl_module)
            self._on_gradients.in_loss = self._update.in_loss is not None
            self.ends = self._update.ends
            if self._update.in_loss is None:
                check_optimizers(trainer)
            elif self._update.terms.rule.pointwise:
                raise MisconfigurationException(POINTS_IN_LOSS)

    @property
    def unweighed(self) -> str:
        return "" if self._update.in_loss is not None else UNWEIGHED.format(weights=self.weights)

    def at_backward(self, at: Backward) -> None:
        """Update the weights if that is due, and put them on the gradient."""
        self.refresh(at)
        if at.loss is not None and self._update.in_loss is None:
            remember = at.module.automatic_optimization
            put = partial(self._on_gradients.put, at.module, at.loss, self.guard, remember=remember)
            self.guard.run(TITLE, partial(readable, self.guard, at, put), retry=True)

    def batch_ends(self, trainer: pl.Trainer) -> None:
        if self._update.in_loss is not None:
            self.guard.run(TITLE, partial(self._update.in_loss.write, trainer), retry=True)
            self.weights.update(self._update.in_loss.as_dict())  # rounded to the buffer's dtype

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
        if self._update.in_loss is None:
            self.balances = self._on_gradients.look_at(at, self.guard)
        if self.active and not self._on_gradients.aside and self._is_due(at):
            local = self._update.measured(
                lambda: readable(self.guard, at, partial(self._measure, at)) or {}
            )
            if tagged := self._update.tagged(self._update.take(at.trainer, local)):
                self.acts += 1
                self.writer.log(at.trainer, logged_step(at.trainer), tagged)
        if self.active and not (self._on_gradients.aside or self._points.is_of(at.loss)):
            weighable, known = self._on_gradients.weighable, self._points.known(at)
            keep = partial(weighable, loss=at.loss, known=known)
            self.looks.points = self._points.refresh(at, self.guard, partial(self.look, at, keep))

    def _is_due(self, at: Backward) -> bool:
        """Once a step, and again for each further loss of a step in manual optimisation."""
        step = logged_step(at.trainer)
        if step != self._update.step:
            self.looks.done = set()
            self._update.follow(at.trainer)
            self._update.begins(step, asked=self.schedule.asks(step, self._update.step))
            if self._update.in_loss is not None:
                self._update.meet(self._on_gradients.names(at))
        elif at.module.automatic_optimization or not self.looks.is_new(at.loss):
            return False
        self.looks.loss = None if at.loss is None else ref(at.loss)
        return self._update.wants(partial(self._on_gradients.names, at))

    def _measure(self, at: Backward) -> Costs:
        with measuring(at.module):
            look = self.look(at, partial(self._to_weigh, at.loss), self._to_certify)
            self._update.terms.rename(self.finder.recorder.known.renamed)
            if look is None:
                return {}
            self.looks.done |= set(look.found.residuals)
            if self._to_certify(look.found):
                self.checks.check(at, look)
            costs, kernel = self._update.costs_of(look), look.kernel
        if not any(kernel.jacobian(term).fallbacks for term in kernel.terms):
            self._certified.add(look.found.signature)
        return costs

    def _to_weigh(self, loss: Tensor | None, found: StepTerms) -> StepTerms:
        """The terms to take traces of."""
        self._update.pass_over(found.terms.keys() - found.residuals.keys())
        found = self.looks.fresh(self._on_gradients.weighable(found, loss)).descending
        wanted = self._update.wants(lambda: found.residuals)
        return found if wanted else found.of(lambda _: False)

    def _to_certify(self, found: StepTerms) -> bool:
        return self.check_first and found.signature not in self._certified

    def weights_on_heads(self, loss: Tensor | None) -> Mapping[Node, float]:
        if self._update.in_loss is not None or loss is None or not self.active:
            return {}
        return self._on_gradients.on_heads(loss)

    def weight_of(self, name: str) -> float:
        """Weight in force of a term on gradients; by the rule a new one has 1 until updated."""
        if self._on_gradients.rest or not matches(name, self.finder.include):
            return 1.0
        self._update.meet([name])
        return self.weights.setdefault(name, self._update.terms.factor)

    def weighed(self, name: str, gradient: Tensor) -> Tensor:
        return self._on_gradients.weighed(name, gradient)

    def close_looks(self) -> None:
        """The backward pass is over: take the weights off the graph, too."""
        super().close_looks()
        self._on_gradients.take_off()


def balancers(trainer: pl.Trainer) -> list[NTKBalancer]:
    """Every NTKBalancer among the callbacks of a trainer."""
    return callbacks_of(trainer, NTKBalancer)
