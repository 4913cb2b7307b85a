"""The part of an autograd graph that lies between one residual and the trained parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes


class Edge(NamedTuple):
    """One tensor of the graph: the ``output``-th result of the operation behind ``node``."""

    node: Node
    output: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of that tensor."""
        return tuple(nodes.output_shape(self.node, self.output))


class Use(NamedTuple):
    """A consumer of a tensor, and the position at which it takes it."""

    node: Node
    position: int


class Graph:
    """Nodes between a residual and some leaves, in topological order, residual first.

    Attributes:
        root: Node that made the residual.
        order: All nodes from which a trained leaf can be reached.
        uses: Tensor -> the places that consume it.
        outputs: Node -> numbers of those of its outputs that are used.
        names: AccumulateGrad node -> name of the trained leaf.
        parametric: Nodes whose every differentiable input is computed from parameters alone.
    """

    def __init__(self, residual: Tensor, leaves: Mapping[str, Tensor]) -> None:
        """Walk the graph behind ``residual``, which must have a ``grad_fn``."""
        if residual.grad_fn is None:
            raise ValueError("the residual is a leaf; expected the result of an operation")
        self.root = residual.grad_fn
        by_id = {id(leaf): name for name, leaf in leaves.items()}
        self.names: dict[Node, str] = {}
        self.parametric: set[Node] = set()
        self.uses: dict[Edge, list[Use]] = {}
        self.outputs: dict[Node, set[int]] = {self.root: {residual.output_nr}}
        reaching: dict[Node, None] = {}
        for node in _postorder(self.root):
            self._classify(node, by_id, reaching)
        self.order = list(reversed(reaching))
        for node in self.order:
            self._register(node, reaching)

    def edges(self, node: Node) -> list[tuple[int, Edge]]:
        """(position, tensor) of the inputs of ``node`` behind which a trained leaf lies."""
        return [
            (position, Edge(child, output))
            for position, child, output in nodes.inputs(node)
            if child in self.outputs
        ]

    def _classify(self, node: Node, by_id: Mapping[int, str], reaching: dict[Node, None]) -> None:
        leaf = nodes.leaf(node)
        if leaf is not None:
            if id(leaf) in by_id:
                self.names[node] = by_id[id(leaf)]
                reaching[node] = None
            if id(leaf) in by_id or isinstance(leaf, nn.Parameter):
                self.parametric.add(node)
            return
        children = [child for _, child, _ in nodes.inputs(node)]
        if any(child in reaching for child in children):
            reaching[node] = None
        if children and all(child in self.parametric for child in children):
            self.parametric.add(node)

    def _register(self, node: Node, reaching: Mapping[Node, None]) -> None:
        for position, child, output in nodes.inputs(node):
            if child in reaching:
                self.uses.setdefault(Edge(child, output), []).append(Use(node, position))
                self.outputs.setdefault(child, set()).add(output)


def _postorder(root: Node) -> list[Node]:
    """All nodes behind ``root``, every node after all of its inputs."""
    order: list[Node] = []
    seen: set[Node] = {root}
    stack = [(root, nodes.inputs(root))]
    while stack:
        node, children = stack[-1]
        for _, child, _ in children:
            if child not in seen:
                seen.add(child)
                stack.append((child, nodes.inputs(child)))
                break
        else:
            order.append(node)
            stack.pop()
    return order
