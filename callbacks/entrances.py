"""Where the gradient enters each term, found at every training step, hence quickly.

All that `Source.terms` finds out (names, weights, their signs) stays the same while the loss is
built in the same way; then a walk from the loss to its heads is enough.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from pinn_ntk.callbacks.source import Source
from pinn_ntk.graph.nodes import kind
from pinn_ntk.graph.paths import Paths, trace


class Entrance(NamedTuple):
    """A term of the loss.

    Attributes:
        name: Its name.
        node: The node through which all of its gradient passes.
    """

    name: str
    node: Node


class Entrances:
    """Finds the entrances of the terms that a loss descends, and remembers their names.

    Losses are built in the same way if their terms are of the same kinds and shapes in the same
    order, the operation that makes the loss is the same, and the same keys were logged.

    Args:
        source: Finds the terms in full.
    """

    def __init__(self, source: Source) -> None:
        """Nothing remembered."""
        self.source = source
        self._known: dict[tuple[object, ...], list[str | None]] = {}

    def of(self, loss: Tensor, *, remember: bool) -> list[Entrance]:
        """The entrances of a loss, without terms that it ascends or that are not included.

        Args:
            loss: The live loss.
            remember: Whether the names may be those of an earlier loss built in the same way;
                not where the sign of the loss may have changed, as in min-max schemes.

        Returns:
            One entrance a term.

        Raises:
            OpaqueLossError: The terms cannot be found.
        """
        edge = get_gradient_edge(loss)
        found = trace(edge.node)
        built = self._built(edge.node, found)
        names = self._known.get(built) if remember else None
        if names is None or found.opaque:
            terms = self.source.terms(loss, check=False)
            by_node = {term.head: name for name, term in terms.items() if not term.ascends}
            names = [by_node.get(head.node) for head in found.heads]
            self._known[built] = names
        pairs = zip(names, found.heads, strict=True)
        return [Entrance(name, head.node) for name, head in pairs if name is not None]

    def _built(self, root: Node, found: Paths) -> tuple[object, ...]:
        heads = ((head.phi.kind, head.residual.shape) for head in found.heads)
        return (kind(root), self.source.recorder.keys, *heads)
