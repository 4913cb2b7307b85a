"""Weights on gradients: each multiplies what is about to enter a term, at its head in the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.measuring import measuring, weighted, weighted_all
from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.callbacks.trainer.checks import BY_VALUE, is_lbfgs
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.weighting.point_weights import PointWeights
from pinn_ntk.callbacks.weighting.term_nodes import TermNodes
from pinn_ntk.graph.subclasses import on_gradient
from pinn_ntk.looks.step_terms import StepTerms

UNWEIGHED = (
    "since the step takes its gradients itself or calls loss.backward(): no weights are put on "
    "them. What they would be is in weights of this callback, {weights}; let the loss hold them in "
    "a pinn_ntk.LossWeights, or call self.manual_backward(loss)."
)
"""Why no weights are put on gradients."""


NOT_GIVEN = (
    "they keep their weights. Return those as well, or leave the terms out with include=[...]."
)
"""What is said of terms that a function of the user gives no residuals for."""


ASIDE = "an L-BFGS has taken over, so that no weights are put on gradients while it trains:"
"""What is said where the optimizer changes in the middle of a fit."""


class GradientWeights:
    """Puts weights on the graph of a loss, and takes them off again.

    They are put ``aside`` while an optimizer reads the loss, and there are none where they are
    ``in_loss``.
    """

    aside = in_loss = False

    def __init__(
        self,
        finder: TermFinder,
        weight_of: Callable[[str], float],
        rename: Callable[[dict[str, str]], None],
        points: PointWeights,
    ) -> None:
        self.finder, self.weight_of, self.rename = finder, weight_of, rename
        self.points = points
        self._handles: list[RemovableHandle] = []
        self.forget()

    def forget(self) -> None:
        """Another module is trained: the way to its terms is another."""
        self._nodes = TermNodes(self.finder)

    def look_at(self, at: Backward, guard: Guard) -> bool:
        """See which optimizers train now; whether there is anything to put weights on."""
        self.aside = any(is_lbfgs(optimizer) for optimizer in at.trainer.optimizers)
        if self.aside:
            guard.warn_once("L-BFGS", f"{ASIDE} {BY_VALUE}")
        return not self.aside and (at.loss is not None or bool(self.finder.recorder.taps))

    @property
    def rest(self) -> bool:
        """Whether no weights are put on gradients."""
        return self.aside or self.in_loss

    def weighable(
        self, found: StepTerms, loss: Tensor | None, known: Collection[str] = ()
    ) -> StepTerms:
        """Without residuals of a function that the loss has no term for, and without ``known``."""
        found = found.of(lambda name: name not in known) if known else found
        if self.in_loss or loss is None or not found.from_function:
            return found
        self.finder.strangers.matter("they stay unweighted", NOT_GIVEN)
        return found.of(lambda name: name in found.terms)

    def names(self, at: Backward) -> set[str]:
        """Names of the terms that a loss descends; empty where they cannot be found."""
        if self.finder.taps:
            return set(self.finder.taps)
        if at.loss is None:
            return set()
        try:
            remember, reading = at.module.automatic_optimization, partial(measuring, at.module)
            nodes = self._nodes.of(at.loss, remember=remember, reading=reading)
            return {node.name for node in nodes}
        except ValueError:  # said elsewhere
            return set()

    def put(self, module: nn.Module, loss: Tensor, guard: Guard, *, remember: bool) -> None:
        """Weigh each term that the loss descends; see `TermNodes.of` for ``remember``."""
        if self.aside:
            return
        if self.finder.taps:
            self._put_on_taps(module, loss, guard)
            return
        reading = partial(measuring, module)
        nodes = self._nodes.of(loss, remember=remember, reading=reading)
        self.rename(self.finder.recorder.known.renamed)
        for name, node in nodes:
            self._put_on(module, name, node, guard)

    def _put_on(self, module: nn.Module, name: str, node: Node, guard: Guard) -> None:
        hook = partial(weighted_all, module, self.weight_of(name))
        self._handles.append(node.register_prehook(hook))
        self._handles += self.points.put(module, name, node, guard)

    def _put_on_taps(self, module: nn.Module, loss: Tensor, guard: Guard) -> None:
        """The same where residuals are tapped: at their terms, as far as those are found."""
        with measuring(module):
            found = self.finder.terms_of_taps(loss)
        for name, terms in found.items():
            if not terms:
                weigh = partial(weighted, module, partial(self.weighed, name))
                self._handles.append(on_gradient(self.finder.taps[name], weigh))
            for term in terms:
                if not term.ascends:
                    self._put_on(module, name, term.head, guard)

    def weighed(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient of a tapped residual times its weights."""
        return self.points.on_tap(name, self.weight_of(name) * gradient)

    def take_off(self) -> None:
        """The backward pass is over."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def on_heads(self, loss: Tensor) -> dict[Node, float]:
        """Head of a term -> its weight, whatever its name; empty where no terms can be found."""
        try:
            terms = self.finder.terms(loss, check=False)
        except ValueError:  # said elsewhere
            return {}
        return {t.head: self.weight_of(name) for name, t in terms.items() if not t.ascends}
