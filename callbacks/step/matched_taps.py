"""Which terms of a loss the tapped residuals are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.nodes import inputs, origin
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.terms.term import Term


def matched(taps: Mapping[str, Tensor], terms: Mapping[str, Term]) -> dict[str, list[Term]]:
    """Tap -> the terms whose residual it is."""
    made = [(_origin(term.residual), term) for term in terms.values()]
    origins = {name: _origin(tap) for name, tap in taps.items()}
    return {
        name: [term for place, term in made if place is not None and place == origin]
        for name, origin in origins.items()
    }


def _origin(residual: Tensor) -> tuple[Node, int] | None:
    """The operation behind a tensor and which of its outputs it is, reshapes looked through."""
    if residual.grad_fn is None:
        return None
    node, output = origin(residual)
    while operation(node).keeps_numbers:
        (_, node, output) = next(inputs(node))
    return node, output
