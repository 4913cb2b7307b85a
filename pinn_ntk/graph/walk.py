"""The part of an autograd graph that lies between one residual and the trained parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes

Operands: TypeAlias = tuple[tuple[Node | None, int], ...]
"""The node behind each operand of another one, None where it has no graph, and which output."""


class Edge(NamedTuple):
    """One tensor of the graph: the ``output``-th result of the operation behind ``node``."""

    node: Node
    output: int = 0

    @property
    def shape(self) -> torch.Size:
        """Shape of that tensor."""
        return nodes.output_shape(self.node, self.output)


class Use(NamedTuple):
    """A consumer of a tensor, and the position at which it takes it."""

    node: Node
    position: int


class Graph:
    """Nodes between a residual and some leaves, in topological ``order``, residual first."""

    def __init__(self, residual: Tensor | Edge, leaves: Mapping[str, Tensor]) -> None:
        """Walk the graph behind ``residual``, which must be the result of an operation."""
        self.result = residual if isinstance(residual, Edge) else result_of(residual)
        self.root = self.result.node
        by_id = {id(leaf): name for name, leaf in leaves.items()}
        self.names: dict[Node, str] = {}  # AccumulateGrad node -> name of the trained leaf
        self.parametric: set[Node] = set()  # every input is computed from parameters alone
        self.uses: dict[Edge, list[Use]] = {}  # tensor -> the places that consume it
        self.outputs: dict[Node, set[int]] = {self.root: {self.result.output}}  # those used
        self._edges: dict[Node, list[tuple[int, Edge]]] = {}
        for node, operands in postorder(self.root).items():
            inputs = [
                (position, Edge(child, output))
                for position, (child, output) in enumerate(operands)
                if child is not None
            ]
            if inputs:
                self._classify(node, inputs)
            else:
                self._classify_leaf(node, by_id)
        self.order = list(reversed(self._edges))
        for node in self.order:
            for position, edge in self._edges[node]:
                self.uses.setdefault(edge, []).append(Use(node, position))
                self.outputs.setdefault(edge.node, set()).add(edge.output)

    def edges(self, node: Node) -> list[tuple[int, Edge]]:
        """(position, tensor) of the inputs of ``node`` behind which a trained leaf lies."""
        return self._edges[node]

    def behind(self, *starts: Node) -> Iterator[Node]:
        """``starts`` and all nodes between them and the trained leaves."""
        return nodes.reachable(starts, lambda node: [edge.node for _, edge in self._edges[node]])

    def names_behind(self, node: Node) -> list[str]:
        """Trained leaves that ``node`` depends on, by name."""
        return [self.names[found] for found in self.behind(node) if found in self.names]

    @property
    def coarsest(self) -> torch.dtype:
        """Real dtype of the lowest precision among the tensors of the graph."""
        dtypes = {nodes.output_dtype(n, o).to_real() for n, os in self.outputs.items() for o in os}
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    def _classify_leaf(self, node: Node, by_id: Mapping[int, str]) -> None:
        leaf = nodes.leaf(node)
        if leaf is not None and id(leaf) in by_id:
            self.names[node] = by_id[id(leaf)]
            self._edges[node] = []
        if leaf is not None and (id(leaf) in by_id or isinstance(leaf, nn.Parameter)):
            self.parametric.add(node)

    def _classify(self, node: Node, inputs: Sequence[tuple[int, Edge]]) -> None:
        edges = [(position, edge) for position, edge in inputs if edge.node in self._edges]
        if edges:
            self._edges[node] = edges
        if all(edge.node in self.parametric for _, edge in inputs):
            self.parametric.add(node)


def result_of(tensor: Tensor) -> Edge:
    """A live tensor as the result of an operation."""
    if tensor.grad_fn is None:
        raise ValueError("the residual is a leaf; expected the result of an operation")
    return Edge(*nodes.origin(tensor))


def graph_bytes(tensors: Iterable[Tensor]) -> int:
    """About what the results of all operations behind some tensors take; none is computed."""
    found: dict[Node, Operands] = {}
    for tensor in tensors:
        if tensor.grad_fn is not None:
            found |= postorder(nodes.origin(tensor)[0])
    made = [(node, output) for operands in found.values() for node, output in operands if node]
    return sum(
        nodes.output_shape(node, output).numel() * nodes.output_dtype(node, output).itemsize
        for node, output in set(made)
        if nodes.leaf(node) is None
    )


def postorder(root: Node) -> dict[Node, Operands]:
    """What made the operands of all nodes behind ``root``, every node after all of these."""
    seen: dict[Node, Operands] = {}
    order: dict[Node, Operands] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        if node in seen:
            order.setdefault(stack.pop(), seen[node])
        else:
            seen[node] = nodes.operands(node)
            stack += [n for n, _ in reversed(seen[node]) if n is not None and n not in seen]
    return order
