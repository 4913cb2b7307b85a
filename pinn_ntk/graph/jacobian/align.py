"""A proof from the graph alone that row i of every tensor belongs to row i of the residual.

Where it succeeds, one backward pass with a cotangent of ones gives all factors, and no pass is
needed to find out which row owns what. It succeeds for a network applied to a batch of points
on axis 0 and derivatives taken by `torch.autograd.grad`; anything else (slices of a larger batch,
permutations, masks, vmap) is not refuted, merely not proven, and is decoded instead.

A tensor is *aligned* when its axis 0 has one entry a residual row, in order. Each operation below
makes entry i of its output from entry i of its aligned inputs and from shared inputs only.
"""

from __future__ import annotations

from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import Edge, Graph, Use

_BROADCAST = {
    f"{name}Backward0"
    for name in (
        "Abs",
        "Acos",
        "Add",
        "Addcdiv",
        "Addcmul",
        "Asin",
        "Atan",
        "Celu",
        "Clone",
        "Cos",
        "Cosh",
        "Div",
        "Elu",
        "EluBackward",
        "Erf",
        "Exp",
        "Expm1",
        "Gelu",
        "GeluBackward",
        "HardtanhBackward",
        "Log",
        "Log1P",
        "LogSigmoid",
        "Mish",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "Relu",
        "Rsqrt",
        "Rsub",
        "Selu",
        "Sigmoid",
        "SigmoidBackward",
        "Sign",
        "Silu",
        "SiluBackward",
        "Sin",
        "Sinh",
        "Softplus",
        "SoftplusBackward",
        "Sqrt",
        "Sub",
        "Tan",
        "Tanh",
        "TanhBackward",
        "ThresholdBackward",
        "ToCopy",
        "Where",
        "Expand",
    )
} | {"AddBackward1", "DivBackward1", "MulBackward1", "RsubBackward1", "SubBackward1"}
"""Elementwise operations, their first derivatives, and broadcasting."""

_RESHAPE = {
    "AliasBackward0",
    "CatBackward0",
    "ReshapeAliasBackward0",
    "SliceBackward0",
    "SliceBackwardBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "SqueezeBackward2",
    "UnsafeViewBackward0",
    "UnsqueezeBackward0",
    "ViewBackward0",
}
"""Operations that keep axis 0 whenever its length before and after is the number of rows."""

_ALONG_AXIS = {
    "LinalgVectorNormBackward0",
    "MeanBackward1",
    "SelectBackward0",
    "SelectBackwardBackward0",
    "SplitBackward0",
    "SplitWithSizesBackward0",
    "StackBackward0",
    "SumBackward1",
    "UnbindBackward0",
}
"""Operations that keep axis 0 unless it is the axis they work along."""

_MATMUL = {"MmBackward0": {0}, "AddmmBackward0": {0, 1}}
"""Matrix products -> operands that may hold points; the left matrix always does."""


def aligned_uses(graph: Graph, rows: int) -> list[tuple[Use, Edge]] | None:
    """Places where a shared tensor meets the points, if alignment can be proven.

    Args:
        graph: Graph behind the residual.
        rows: Length of the residual's axis 0.

    Returns:
        (use, shared tensor) pairs, or None without a proof.
    """
    if rows < 2 or nodes.output_shape(graph.root)[:1] != (rows,):
        return None
    aligned: set[Node] = {graph.root}
    uses: list[tuple[Use, Edge]] = []
    for node in graph.order:
        if node not in aligned:
            continue
        shared = _shared_inputs(graph, node, rows)
        if shared is None:
            return None
        for position, edge in graph.edges(node):
            if position in shared:
                uses.append((Use(node, position), edge))
            else:
                aligned.add(edge.node)
    behind = _behind(graph, [edge.node for _, edge in uses])
    if behind & aligned or not behind <= graph.parametric:
        return None
    return uses


def _shared_inputs(graph: Graph, node: Node, rows: int) -> set[int] | None:
    """Positions of the inputs that all points share; None where rows may mix."""
    kind = nodes.kind(node)
    edges = graph.edges(node)
    held = {position for position, edge in edges if _holds_rows(node, edge, rows)}
    if kind in _BROADCAST:
        return {position for position, _ in edges} - held
    if kind in _MATMUL:
        return {position for position, _ in edges} - (held & _MATMUL[kind])
    keeps = kind in _RESHAPE or (kind in _ALONG_AXIS and not _along_rows(node))
    return set() if keeps and len(held) == len(edges) else None


def _holds_rows(node: Node, edge: Edge, rows: int) -> bool:
    shape, out = edge.shape, nodes.output_shape(node)
    kind = nodes.kind(node)
    broadcasts = kind in _BROADCAST or kind in _MATMUL  # addmm broadcasts its first operand
    same_rank = not broadcasts or len(shape) == len(out)
    return same_rank and shape[:1] == (rows,) and out[:1] == (rows,)


def _along_rows(node: Node) -> bool:
    if nodes.missing(node):
        return True
    dims = nodes.saved(node, "dim")
    ranks = [len(nodes.output_shape(child, output)) for _, child, output in nodes.inputs(node)]
    rank = max(len(nodes.output_shape(node)), *ranks)
    signed = [nodes.signed(dim) % rank for dim in (dims if isinstance(dims, tuple) else (dims,))]
    return not signed or 0 in signed


def _behind(graph: Graph, starts: list[Node]) -> set[Node]:
    found: set[Node] = set()
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [edge.node for _, edge in graph.edges(node)]
    return found
