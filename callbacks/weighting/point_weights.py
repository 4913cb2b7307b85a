"""Weights of single points, measured anew in every step: the next one may have other points."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from weakref import ref

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.measuring import is_measuring, measuring
from pinn_ntk.callbacks.step.readable import readable
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.steps import logged_step
from pinn_ntk.looks.look import Look
from pinn_ntk.weights.limits import Limits
from pinn_ntk.weights.rule import BalancingRule


class PointWeights:
    """Term -> weights of its points, (N,) of mean 1, of the running backward pass."""

    def __init__(self, rule: BalancingRule, limits: Limits) -> None:
        self.rule, self.limits = rule, limits
        self.of: dict[str, Tensor] = {}
        self._loss: ref[Tensor] | None = None
        self._step: int | None = None

    def refresh(
        self, at: Backward, guard: Guard, look: Callable[[], Look | None]
    ) -> dict[Node, Tensor]:
        """Measure the points of a loss, once; they do not freeze, since points may move.

        Returns head of a term -> weights of its points, in the shape of the residual.
        """
        self.of = {name: self.of[name] for name in self.known(at)}
        self._loss = None if at.loss is None else ref(at.loss)
        self._step = logged_step(at.trainer)
        if not self.rule.pointwise or self.limits.warmup_steps > logged_step(at.trainer):
            return {}
        weigh = partial(readable, guard, at, lambda: self._measured(at, guard, look))
        return guard.run("weighting the points", weigh, retry=True) or {}

    def __getstate__(self) -> dict[str, Any]:
        # Of the running step alone; weak references cannot be pickled.
        return vars(self) | {"of": {}, "_loss": None}

    def known(self, at: Backward) -> set[str]:
        """Terms measured before in a raw backward pass, of which each tap is heard by itself."""
        same = at.loss is None and self._step == logged_step(at.trainer)
        return set(self.of) if same else set()

    def is_of(self, loss: Tensor | None) -> bool:
        """Whether the points of a loss were measured."""
        return self._loss is not None and self._loss() is loss

    def _measured(
        self, at: Backward, guard: Guard, look: Callable[[], Look | None]
    ) -> dict[Node, Tensor]:
        with measuring(at.module):
            found = look()
            return {} if found is None else self._measure(found, guard)

    def _measure(self, look: Look, guard: Guard) -> dict[Node, Tensor]:
        """Terms of which rows are left out get none."""
        kernel = look.kernel
        left = [term for term in kernel.terms if kernel.rows(term) != _rows(look, term)]
        moved = [t for t in kernel.terms if t not in left and look.trace(t) > 0]
        self.of |= {term: self._points(look, term) for term in moved}
        if left:
            guard.warn_once("points", f"{', '.join(left)}: {NO_POINTS}")
        terms = {name: look.terms[name] for name in moved if name in look.terms}
        return {t.head: self.of[name].view(t.residual.shape) for name, t in terms.items()}

    def _points(self, look: Look, term: str) -> Tensor:
        weights, rows = self.rule.points(look, term), look.kernel.rows(term)
        if weights.numel() != rows:
            raise ValueError(
                f"rule {self.rule.title!r} gives {weights.numel()} weights for the {rows} points "
                f"of {term!r}; expected one a point."
            )
        return weights.flatten()

    def put(self, module: nn.Module, name: str, node: Node, guard: Guard) -> list[RemovableHandle]:
        """Weigh the gradient where it leaves the head of a term, towards the residual."""
        if name not in self.of:
            return []
        return [node.register_hook(partial(_weighted, module, self.of[name], name, guard))]

    def on_tap(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient of a tapped residual, weighed."""
        weights = self.of.get(name)
        if weights is None or weights.numel() != gradient.numel():
            return gradient
        return gradient * weights.to(gradient).view(gradient.shape)


NO_POINTS = (
    "its points cannot be weighed one by one (the loss takes the square of a norm, or rows are "
    "sampled), so the term is weighed as a whole. Use a mean of squares, or a larger max_rows."
)
"""Why points have no weights."""

POINTS_IN_LOSS = (
    "NTKBalancer(rule='pointwise') weighs single points, and the LossWeights of your module hold "
    "one number a term. Take the LossWeights out, so that weights are put on gradients, or take "
    "another rule."
)
"""Why the two do not go together."""


def _rows(look: Look, term: str) -> int:
    """Points that a term has in the loss."""
    return (look.terms[term].residual if term in look.terms else look.residuals[term]).numel()


def _weighted(
    module: nn.Module,
    weights: Tensor,
    name: str,
    guard: Guard,
    leaving: Iterable[Tensor | None],
    _entering: Iterable[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Hook of a node: what leaves it towards points times their weights."""
    gradients = tuple(leaving)
    if is_measuring(module):
        return gradients
    fits = [g is not None and g.numel() == weights.numel() for g in gradients]
    if not any(fits):
        guard.warn_once("points", f"{name}: {NO_POINTS}")
    return tuple(
        g * weights.to(g).view(g.shape) if g is not None and fit else g
        for g, fit in zip(gradients, fits, strict=True)
    )
