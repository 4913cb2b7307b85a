"""Where the paths from a loss end: at a head, in leaf tensors alone, or in the network (opaque).

Above a head stand reductions, arithmetic and weights. A path that meets no head but only pointwise
operations on leaves is no loss term: it is an L2 penalty, a learned weight, or a weight computed
from the coordinates, and is kept aside. Anything else that is reached without a head is opaque.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.nodes import inputs, kind, leaf, missing, saved
from pinn_ntk.graph.terms.loss_nodes import CHAIN, PAIRED, Head, below, head_at, operation, rule_at

ABOVE = CHAIN | {
    "Add", "Addcdiv", "Addcmul", "Amax", "Amin", "AsStrided", "Cat", "Clamp", "ClampMax",
    "ClampMin", "CopyBackwards", "CopySlices", "Cumsum", "Diagonal", "Dot", "Exp", "Expm1",
    "Gather", "Index", "IndexPut", "IndexSelect", "Lerp", "Log", "Log10", "Log1P", "Log2",
    "Logsumexp", "MaskedFill", "MaskedSelect", "Max", "Maximum", "Median", "Min", "Minimum",
    "NanToNum", "Nansum", "Pow", "Prod", "Reciprocal", "Repeat", "Rsqrt", "Rsub", "ScatterAdd",
    "Sort", "Split", "SplitWithSizes", "Stack", "Std", "Sub", "Topk", "Trace", "Unbind", "Var",
    "Where",
}  # fmt: skip
"""Reductions, arithmetic and selections, which weigh and add up what heads have made."""

POINTWISE = ABOVE | {
    "Abs", "Cos", "Cosh", "Elu", "Erf", "ForeachNorm", "Gelu", "LeakyRelu", "LinalgVectorNorm",
    "LogSigmoid", "LogSoftmax", "Relu", "Sigmoid", "Silu", "Sin", "Sinh", "Softmax", "Softplus",
    "Tan", "Tanh", "WeightNormInterface",
}  # fmt: skip
"""What may shape a penalty or a weight that is computed from leaves alone."""

PRODUCTS = frozenset({"Bmm", "Mm", "Mv"})


@dataclass
class Paths:
    """Ends of all paths from one loss, each list in the order in which the loss was written."""

    heads: list[Head] = field(default_factory=list)
    asides: list[Node] = field(default_factory=list)
    opaque: list[Node] = field(default_factory=list)


def trace(root: Node) -> Paths:
    """Follow every path from ``root`` to its first head, or to where it is clear there is none."""
    found = Paths()
    seen: set[Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(reversed(_visit(node, found)))
    return found


def _visit(node: Node, found: Paths) -> list[Node]:
    """File ``node`` where its path ends there, or return the nodes to go on with."""
    head = head_at(node)
    if head is not None and _penalises_leaves(node):
        found.asides.append(node)
    elif head is not None:
        found.heads.append(head)
    elif passes(node):
        return _unweighted(node, found)
    else:
        (found.asides if from_leaves(node, data=False) else found.opaque).append(node)
    return []


def passes(node: Node) -> bool:
    """Whether ``node`` may stand above a head; a matrix product may with one constant factor."""
    if operation(node) in PRODUCTS and rule_at(node) is None:
        return len(below(node)) == 1 and not from_leaves(below(node)[0], data=True)
    return operation(node) in ABOVE or rule_at(node) is not None


def _unweighted(node: Node, found: Paths) -> list[Node]:
    """Operands of ``node``, less a factor made of leaves alone, which is a weight."""
    children = below(node)
    if operation(node) not in {"Mul", "Div"} or len(children) < 2:
        return children
    factors = [child for child in children if from_leaves(child, data=True)]
    if len(factors) != 1:
        return children
    found.asides.extend(factors)
    return [child for child in children if child not in factors]


def _penalises_leaves(node: Node) -> bool:
    children = below(node)
    return kind(node) not in PAIRED and all(from_leaves(child, data=False) for child in children)


def from_leaves(node: Node, *, data: bool) -> bool:
    """Whether ``node`` is computed from leaf tensors alone, without any network operation.

    Args:
        node: Node to ask about.
        data: Whether data may take part, that is a constant factor of several entries, or a
            constant that is added: ``theta * x - y`` is a residual, ``3 * theta`` is not.

    Returns:
        Whether every path from ``node`` leads to a leaf through pointwise operations.
    """
    seen = {node}
    stack = [node]
    while stack:
        node = stack.pop()
        if leaf(node) is not None:
            continue
        if operation(node) not in POINTWISE or not (data or _without_data(node)):
            return False
        fresh = [child for child in below(node) if child not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return True


def _without_data(node: Node) -> bool:
    used = [position for position, _, _ in inputs(node)]
    if len(used) != 1:
        return True
    if kind(node) in {"MulBackward0", "DivBackward0"} and not missing(node):
        constant = saved(node, "self" if used == [1] else "other")
        return not isinstance(constant, Tensor) or constant.numel() == 1
    return operation(node) not in {"Add", "Sub", "Rsub"}


def nodes_below(roots: Iterable[Node]) -> dict[Node, None]:
    """All nodes of the graph behind ``roots``, these among them, in a fixed order."""
    seen = dict.fromkeys(roots)
    stack = list(seen)
    while stack:
        fresh = [child for child in below(stack.pop()) if child not in seen]
        seen.update(dict.fromkeys(fresh))
        stack.extend(fresh)
    return seen


_BETWEEN = ABOVE | PRODUCTS | {"Abs", "LinalgVectorNorm"}  # also those that transform a head


def reached(root: Node, stops: Collection[Node]) -> set[Node]:
    """Those of ``stops``, nodes of heads, to which a path leads from ``root`` through no other."""
    found: set[Node] = set()
    seen = {root}
    stack = [root]
    while stack:
        node = stack.pop()
        if node in stops:
            found.add(node)
        elif operation(node) in _BETWEEN:
            fresh = [child for child in below(node) if child not in seen]
            seen.update(fresh)
            stack.extend(fresh)
    return found
