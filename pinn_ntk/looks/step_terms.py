"""The loss terms of one backward pass, whichever way their residuals were found."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.jacobian.inputs import fingerprint
from pinn_ntk.graph.terms.curvature import curvature, curvature_of_rows, uniform_weight
from pinn_ntk.graph.terms.term import Term
from pinn_ntk.graph.terms.term_loss import TermLoss
from pinn_ntk.looks.digest import RandomStates

BATCH = "the training batch"
PROBE = "a fixed probe"

UNNAMED = re.compile(r"term_\d+")
"""What terms are called that were not logged."""


@dataclass(frozen=True)
class StepTerms:
    """The loss terms of one backward pass."""

    residuals: Mapping[str, Tensor]  # live, before they are squared
    terms: Mapping[str, Term]  # for those of the residuals that were found in the loss
    points: str = BATCH  # what the residuals are on, `BATCH` or `PROBE`
    rows: Mapping[str, Tensor] | None = None  # to keep of each term, (R_kept,), of a probe
    from_function: bool = False  # whether the residuals are other tensors than those of the terms
    complete: bool = False  # whether the terms are all that the loss has
    states: RandomStates | None = None  # that a function on the batch began from

    def of(self, keep: Callable[[str], bool]) -> StepTerms:
        """What is left of it with the names to keep; residuals without rows go as well."""
        residuals = {n: r for n, r in self.residuals.items() if keep(n) and r.numel()}
        terms = {name: term for name, term in self.terms.items() if name in residuals}
        complete = self.complete and len(residuals) == len(self.residuals)
        return replace(self, residuals=residuals, terms=terms, complete=complete)

    @property
    def finite(self) -> StepTerms:
        """What is left of it without terms that hold NaN or inf."""
        return self.of(lambda name: bool(self.residuals[name].isfinite().all()))

    @property
    def descending(self) -> StepTerms:
        """What is left of it without terms of a negative weight, as in min-max schemes."""
        return self.of(lambda name: name not in self.terms or not self.terms[name].ascends)

    def with_points(self, weights: Mapping[Node, Tensor]) -> StepTerms:
        """The same with weights of single points: head of a term -> weights, shape of r."""
        terms = {
            name: replace(t, coefficient=t.weight.detach() * weights[t.head].to(t.weight))
            if t.head in weights
            else t
            for name, t in self.terms.items()
        }
        return replace(self, terms=terms)

    @property
    def dtype(self) -> str:
        """Dtype of the residuals, in words."""
        dtypes = [str(residual.dtype) for residual in self.residuals.values()]
        return dtypes[0].removeprefix("torch.") if dtypes else "float32"

    def fingerprints(self, trained: Mapping[str, Tensor]) -> dict[str, str | None]:
        """Term -> fingerprint of its points; empty on a probe, whose points stay."""
        if self.points == PROBE:
            return {}
        return {name: fingerprint(r, trained) for name, r in self.residuals.items()}

    def curvature(self, factors: Mapping[str, float]) -> dict[str, Tensor] | None:
        """D of each row, (R_a,); None unless these are all terms of a loss of squares."""
        if not self.complete or not self.residuals or self.residuals.keys() != self.terms.keys():
            return None
        of_batch = curvature(self.terms, factors)
        if of_batch is None or not self.from_function:
            return of_batch
        sums = {n: uniform_weight(term, factors[n]) for n, term in self.terms.items()}
        return curvature_of_rows(sums, {n: r.numel() for n, r in self.residuals.items()})

    def losses(self, factors: Mapping[str, float]) -> dict[str, TermLoss]:
        """Name -> its part of the loss, of those residuals whose place in the loss is known."""
        losses: dict[str, TermLoss | None] = {}
        for name, term in self.terms.items():
            rows = self.residuals[name].numel()
            if self.from_function:
                losses[name] = TermLoss.on_other_points(term, factors[name], rows)
            elif rows == term.residual.numel():
                losses[name] = TermLoss.of(term, factors[name])
        return {name: loss for name, loss in losses.items() if loss is not None}

    @property
    def signature(self) -> str:
        """Names and shapes of the residuals: the same while the graph is built the same way."""
        return " ".join(f"{name}{tuple(r.shape)}" for name, r in self.residuals.items())

    @property
    def ascends(self) -> bool:
        """Whether this is the ascent of a min-max scheme: every term has a negative weight."""
        found = [self.terms.get(name) for name in self.residuals]
        return bool(found) and all(term is not None and term.ascends for term in found)
