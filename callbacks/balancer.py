"""NTKBalancer: weights the loss terms by the traces of their kernels while a PINN trains.

A weight lambda_a multiplies the gradient where it enters the term, at the head of the live graph.
What reaches the parameters is the gradient of sum_a lambda_a L_a; the loss itself, and with it
all that is logged, stays unweighted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args
from weakref import ref

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from pinn_ntk.balance import Convention, weights_from_traces
from pinn_ntk.callbacks.base import Callback
from pinn_ntk.callbacks.checks import at_least, check_optimizers, check_strategy
from pinn_ntk.callbacks.guard import Guard
from pinn_ntk.callbacks.names import LogRecorder, named_params
from pinn_ntk.callbacks.ranks import Traces, from_all_ranks
from pinn_ntk.callbacks.schedule import is_due, logged_step
from pinn_ntk.callbacks.sinks import log_scalars
from pinn_ntk.kernel import empirical_ntk


class NTKBalancer(Callback):
    """Weights loss terms so that their kernels have equal traces; no edit of the module needed.

    Every ``every_n_steps`` steps, from step 0 on, before the backward pass: lambda_a = sum_b Tr
    K_bb / Tr K_aa with the kernel of the unweighted residuals (Wang, Yu, Perdikaris 2022,
    Algorithm 1, eqs 6.5 and 6.6). In every step each lambda_a multiplies the gradient that enters
    term a. Weights that the loss itself holds stay in force beside them: leave those at 1.

    Terms are named after the keys under which the module logs them before the backward pass, else
    ``term_0``, ``term_1``, ... A term that is absent from a batch keeps its weight. A new one has
    weight 1 until the next update. A term that the loss ascends (negative weight, as in min-max
    schemes) is left alone. An update that fails (zero trace, NaN) keeps the last weights, warns
    once, and is tried again when next due. Under DDP the traces of all ranks are added up first.

    Terms of other kinds than squares (L1, Huber) are weighted by the trace of their residual all
    the same. Where one residual is computed from the loss term of another, that path gets both
    weights. A loss whose terms cannot be found ends the fit with an `OpaqueLossError`: to train it
    unweighted would not be what was asked for. L-BFGS is refused when the fit starts.

    Logged, to all loggers, whenever updated:

    | key | meaning | unit |
    | --- | --- | --- |
    | ``ntk/weight/<term>`` | lambda_a | 1 |

    Cost: in every step a walk through the upper part of the graph, from the loss to its terms,
    about a millisecond. An update computes the factors of each term's kernel, about one backward
    pass a term, and their traces; ``certify`` adds one backward pass a term for the kernel and
    two to three for the completeness of the terms.

    Args:
        every_n_steps: Steps between updates.
        rule: How weights follow from the kernel; there is one so far.
        convention: What "equal traces" means for terms of unequal numbers of rows: "sum" (the
            paper), "mean" or "rate", see `pinn_ntk.balance`.
        ema: Share of the old weight that an update keeps, w <- ema * old + (1 - ema) * new; 0
            replaces it, as the paper does.
        certify: Check kernel and terms at every update.

    Attributes:
        weights: Term -> lambda_a in force. Kept in checkpoints.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> balancer = NTKBalancer(every_n_steps=100)
        >>> trainer = pl.Trainer(callbacks=[balancer], max_steps=1000)  # doctest: +SKIP
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        rule: Literal["trace"] = "trace",
        convention: Convention = "sum",
        ema: float = 0.0,
        certify: bool = True,
    ) -> None:
        self.every_n_steps = at_least("NTKBalancer", "every_n_steps", every_n_steps, 1)
        if rule != "trace":
            raise ValueError(f"NTKBalancer: rule is {rule!r}; expected 'trace'.")
        if convention not in get_args(Convention):
            raise ValueError(
                f"NTKBalancer: convention is {convention!r}; expected one of "
                f"{get_args(Convention)}."
            )
        if not 0 <= ema < 1:
            raise ValueError(f"NTKBalancer: ema is {ema!r}; expected a number in [0, 1).")
        self.rule, self.convention, self.ema, self.certify = rule, convention, ema, certify
        self.weights: dict[str, float] = {}
        self.guard = Guard("NTKBalancer")
        self._traces: Traces = {}
        self._recorder = LogRecorder()
        self._handles: list[RemovableHandle] = []
        self._paused = False
        self._seen: int | None = None
        self._module: ref[pl.LightningModule] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_strategy("NTKBalancer", trainer)
        check_optimizers(trainer)
        if len(balancers(trainer)) > 1:
            raise MisconfigurationException(
                "Two NTKBalancer callbacks would multiply their weights; keep one of them."
            )
        if self._module is not None and self._module() is not pl_module:
            self.weights, self._traces = {}, {}
        self._module = ref(pl_module)
        self._seen = None
        self.guard.restart()
        self._recorder.attach(pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._recorder.logged.clear()

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._release()
        self.refresh(trainer, pl_module, loss)
        with self.guard.timed():
            for name, term in self._recorder.terms(loss, check=False).items():
                weight = self.weights.setdefault(name, 1.0)
                if not term.ascends:
                    hook = partial(self._scale, weight)
                    self._handles.append(term.head.register_prehook(hook))

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._release()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._recorder.logged.clear()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._undo()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._undo()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._undo()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": dict(self.weights), "traces": dict(self._traces)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module = None  # the state belongs to whatever module is fitted next
        self.weights = dict(state_dict["weights"])
        self._traces = dict(state_dict["traces"])

    def refresh(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> dict[str, float]:
        """Update the weights if that is due and not yet done in this step.

        Args:
            trainer: The trainer, in ``on_before_backward``.
            pl_module: Its module.
            loss: The live loss.

        Returns:
            The weights in force in this step.
        """
        step = logged_step(trainer)
        if step != self._seen and is_due(step, self.every_n_steps):
            self._seen = step
            measure = partial(self._measure, trainer, pl_module, loss)
            local = self.guard.run("the weight update", measure, retry=True)
            traces = from_all_ranks(trainer, local)
            if traces is not None:
                update = partial(self._update, trainer, traces, step)
                self.guard.run("the weight update", update, retry=True)
        return self.weights

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, the hooks on the live graph pass gradients on unweighted."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> Traces:
        terms = self._recorder.terms(loss, check=self.certify)
        residuals = {
            name: term.residual
            for name, term in terms.items()
            if term.residual.numel() and not term.ascends
        }
        if not residuals:
            return {}
        params = named_params(trainer, pl_module)
        kernel = empirical_ntk(residuals, params, certify=self.certify)
        return {name: (kernel.trace(name), kernel.rows(name)) for name in kernel.terms}

    def _update(self, trainer: pl.Trainer, measured: Traces, step: int) -> None:
        traces = self._traces | measured  # a term that this batch lacks counts with its last trace
        new = weights_from_traces(
            {name: trace for name, (trace, _) in traces.items()},
            {name: rows for name, (_, rows) in traces.items()},
            self.convention,
        )
        kept = {name: self.ema * self.weights.get(name, 1.0) for name in measured}
        weights = {name: old + (1 - self.ema) * new[name] for name, old in kept.items()}
        if not all(map(math.isfinite, weights.values())):
            raise ValueError(f"the weights {weights} are not finite; the traces are {traces}.")
        self.weights |= weights
        self._traces = traces
        log_scalars(trainer, {f"ntk/weight/{n}": w for n, w in weights.items()}, step)

    def _scale(self, weight: float, gradients: Sequence[Tensor | None]) -> Any:
        if self._paused:
            return tuple(gradients)
        return tuple(None if g is None else weight * g for g in gradients)

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _undo(self) -> None:
        self._release()
        self._recorder.detach()


def balancers(trainer: pl.Trainer) -> list[NTKBalancer]:
    """Every NTKBalancer among the callbacks of a trainer."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, NTKBalancer)]
