"""Where the gradient enters each term, found at every training step, hence quickly.

All that `TermFinder.terms` finds out (names, weights, their signs) stays the same while the loss is
built in the same way; then the nodes between the loss and its terms are the same operations, and
walking down to them again is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.graph.nodes import operands, origin
from pinn_ntk.graph.terms.paths import trace


class TermNode(NamedTuple):
    """A term of the loss."""

    name: str
    node: Node  # through which all of its gradient passes


class TermNodes:
    """Finds the nodes of the terms that a loss descends, and remembers the way to them."""

    def __init__(self, finder: TermFinder) -> None:
        self.finder = finder
        self._known: dict[tuple[str, ...], tuple[Way, list[Mark]]] = {}

    def of(
        self,
        loss: Tensor,
        *,
        remember: bool,
        reading: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> list[TermNode]:
        """The nodes of a loss, without terms that it ascends or that are not included.

        The way to them is that of an earlier loss if the operations on it are the same, and each
        logged term still lies where it lay. It is not to be remembered where the sign of the loss
        may have changed, as in min-max schemes. Operands are read within ``reading``.
        """
        (root, _), keys = origin(loss), self.finder.recorder.keys
        if remember and keys in self._known:
            way, marks = self._known[keys]
            nodes = way.again(root)
            if nodes is not None and all(self._lies(mark, nodes) for mark in marks):
                return [TermNode(mark.name, nodes[mark.head]) for mark in marks]
        with reading():
            terms = self.finder.terms(loss, check=False)
            found = [TermNode(name, term.head) for name, term in terms.items() if not term.ascends]
            if remember:
                self._learn(root, found)
        return found

    def _learn(self, root: Node, found: Sequence[TermNode]) -> None:
        """Remember the way, if it can be told from another one the next time."""
        paths = trace(root)
        if paths.void:  # the factor of zero may be another one the next time
            return
        way = Way(root, [*(head.node for head in paths.heads), *paths.asides])
        marks = [self._mark(node, way.nodes) for node in found]
        known = [mark for mark in marks if mark is not None]
        if len(known) == len(marks):
            self._known[self.finder.recorder.keys] = way, known
        way.nodes.clear()

    def _mark(self, node: TermNode, nodes: Sequence[Node]) -> Mark | None:
        head = nodes.index(node.node)
        if self.finder.recorder.names is not None:
            return Mark(node.name, head, None)
        made_by = self._logged_by(node.name)
        return Mark(node.name, head, nodes.index(made_by)) if made_by in nodes else None

    def _lies(self, mark: Mark, nodes: Sequence[Node]) -> bool:
        return mark.logged is None or self._logged_by(mark.name) == nodes[mark.logged]

    def _logged_by(self, name: str) -> Node | None:
        value = self.finder.recorder.logged.get(name)
        return origin(value)[0] if isinstance(value, Tensor) and value.grad_fn is not None else None


class Mark(NamedTuple):
    """Where on a way a term lies, by numbers of its nodes."""

    name: str
    head: int  # through which all of its gradient passes
    logged: int | None  # made the tensor logged under its name; None: names given by position


class Way:
    """The nodes from a loss down to given ones, as a path that can be gone again on another graph.

    In ``nodes`` the root comes first, each other one after the one it was reached from.
    """

    def __init__(self, root: Node, ends: Iterable[Node]) -> None:
        stop, self.nodes = set(ends), [root]
        self._turns: list[tuple[int, int]] = []
        for position, node in enumerate(self.nodes):  # grows on the way
            for number, (child, _) in enumerate(() if node in stop else operands(node)):
                if child is not None and child not in self.nodes:
                    self._turns.append((position, number))
                    self.nodes.append(child)
        self._kinds = [(node.name(), len(node.next_functions)) for node in self.nodes]

    def again(self, root: Node) -> list[Node] | None:
        """The nodes that the same turns reach in another graph; None if one is of another kind."""
        nodes, children = [root], [operands(root)]
        if (root.name(), len(children[0])) != self._kinds[0]:
            return None
        for (position, number), (name, size) in zip(self._turns, self._kinds[1:], strict=True):
            node = children[position][number][0]
            if node is None or node.name() != name or len(node.next_functions) != size:
                return None
            nodes.append(node)
            children.append(operands(node))
        return nodes
