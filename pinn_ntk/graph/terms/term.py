"""One term of a scalar loss: a function phi of an unsquared residual, weighted.

The symbols are those of `pinn_ntk.graph.terms.find`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.terms.phi import Phi


@dataclass(frozen=True, eq=False)
class Term:
    """One term of a loss. It keeps the graph of its residual alive for as long as it is held.

    Attributes:
        name: Name, unique among the terms of the loss.
        residual: r, the live tensor before phi. Any shape.
        head: Node at which the gradient enters the term; factors of it weigh the term.
        phi: What is applied to r, with its slope.
        coefficient: The weight in a shape that broadcasts to that of phi(r).
    """

    name: str
    residual: Tensor
    head: Node
    phi: Phi
    coefficient: Tensor

    def __repr__(self) -> str:
        return (
            f"Term(name={self.name!r}, kind={self.kind!r}, value={self.value!r}, "
            f"mean={self.mean!r}, total={self.total!r})"
        )

    @property
    def kind(self) -> str:
        """Kind of phi: "square", "abs", "huber", "smooth_l1", "log_cosh" or "norm"."""
        return self.phi.kind

    @functools.cached_property
    def weight(self) -> Tensor:
        """Coefficient of phi(r_i) in the loss, shape of r, whatever made it.

        That is constants, pointwise, causal or learned weights, means, loss scaling and all else;
        for a norm, the coefficient of the norm that an entry belongs to.
        """
        return self.coefficient.expand(self.residual.shape).contiguous()

    @functools.cached_property
    def slope(self) -> Tensor:
        """weight * phi'(r), shape of r: dL/dr through this term alone, not through others."""
        with torch.no_grad():
            return self.weight * self.phi.slope(self.residual.detach())

    @functools.cached_property
    def value(self) -> Tensor:
        """Contribution of the term to the loss, sum of weight * phi(r), shape ()."""
        return (self.coefficient * self._applied).sum()

    @functools.cached_property
    def mean(self) -> Tensor:
        """Mean of phi(r), without weights, shape ()."""
        return self._applied.mean()

    @functools.cached_property
    def total(self) -> Tensor:
        """Sum of phi(r), without weights, shape ()."""
        return self._applied.sum()

    @functools.cached_property
    def _applied(self) -> Tensor:
        with torch.no_grad():
            return self.phi.value(self.residual.detach())

    @property
    def ascends(self) -> bool:
        """Whether the loss falls where phi(r) grows: no weight above 0, and some below.

        So it is in the step of a min-max scheme that trains the weights by a negated loss.
        """
        return bool((self.coefficient <= 0).all() and (self.coefficient < 0).any())
