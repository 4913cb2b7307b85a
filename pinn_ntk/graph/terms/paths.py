"""Where the paths from a loss end: at a head, in leaf tensors alone, or in the network (opaque).

Above a head stand reductions, arithmetic and weights. A path that meets no head but only pointwise
operations on leaves is no loss term: it is an L2 penalty, a learned weight, or a weight computed
from the coordinates, and is kept aside. What is multiplied by zero is void, as ``0 * u.sum()`` in
place of a term that is left out. Anything else that is reached without a head is opaque.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.nodes import inputs, leaf, missing, reachable, saved
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.terms.loss_nodes import Head, below, head_at, rule_at


@dataclass
class Paths:
    """Ends of all paths from one loss, each list in the order in which the loss was written."""

    heads: list[Head] = field(default_factory=list)
    asides: list[Node] = field(default_factory=list)
    opaque: list[Node] = field(default_factory=list)
    void: list[Node] = field(default_factory=list)  # would be opaque, were it not times zero


def trace(root: Node) -> Paths:
    """Follow every path from ``root`` to its first head, or to where it is clear there is none."""
    found = Paths()
    seen: dict[Node, bool] = {}  # whether it was come to by way of a product with zero alone
    stack = [(root, False)]
    while stack:
        node, void = stack.pop()
        if node in seen and (void or not seen[node]):
            continue
        seen[node] = void
        void = void or _is_times_zero(node)
        stack.extend((child, void) for child in reversed(_visit(node, found, void)))
    found.heads = list({head.node: head for head in found.heads}.values())  # some are met twice
    found.asides = list(dict.fromkeys(found.asides))
    found.void = [node for node in found.void if seen[node]]
    return found


def _visit(node: Node, found: Paths, void: bool) -> list[Node]:
    """File ``node`` where its path ends there, or return the nodes to go on with."""
    head = head_at(node)
    if head is None and passes(node):
        return _unweighted(node, found)
    if head is not None and not _penalises_leaves(node):
        found.heads.append(head)
    elif head is not None or from_leaves(node, data=False):
        found.asides.append(node)
    else:
        (found.void if void else found.opaque).append(node)
    return []


def _is_times_zero(node: Node) -> bool:
    """Whether ``node`` multiplies by the constant 0."""
    made_by, used = operation(node), [position for position, _, _ in inputs(node)]
    if made_by.name != "Mul" or len(used) != 1 or missing(node):
        return False
    partner = made_by.partners.get(used[0])  # a plain number is not kept
    factor = saved(node, partner) if partner else None
    return isinstance(factor, Tensor) and factor.numel() == 1 and float(factor.detach()) == 0.0


def passes(node: Node) -> bool:
    """Whether ``node`` may stand above a head; a matrix product may with one constant factor."""
    made_by = operation(node)
    if made_by.matrix and not made_by.adds and rule_at(node) is None:
        return len(below(node)) == 1 and not from_leaves(below(node)[0], data=True)
    return made_by.weighs or rule_at(node) is not None


def _unweighted(node: Node, found: Paths) -> list[Node]:
    """Operands of ``node``, less a factor made of leaves alone, which is a weight."""
    children = below(node)
    if operation(node).name not in {"Mul", "Div"} or len(children) < 2:
        return children
    factors = [child for child in children if from_leaves(child, data=True)]
    if len(factors) != 1:
        return children
    found.asides.extend(factors)
    return [child for child in children if child not in factors]


def _penalises_leaves(node: Node) -> bool:
    penalties = (from_leaves(child, data=False) for child in below(node))
    return not operation(node).subtracts and all(penalties)


def from_leaves(node: Node, *, data: bool) -> bool:
    """Whether ``node`` is computed from leaf tensors alone, without any network operation.

    With ``data``, data may take part, that is a constant factor of several entries, or a constant
    that is added: ``theta * x - y`` is a residual, ``3 * theta`` is not.
    """
    for found in reachable([node], below):
        known = operation(found).of_leaves and (data or _without_data(found))
        if not known and leaf(found) is None:
            return False
    return True


def _without_data(node: Node) -> bool:
    used = [position for position, _, _ in inputs(node)]
    if len(used) != 1:
        return True
    made_by = operation(node)
    if made_by.name in {"Mul", "Div"} and made_by.partners and not missing(node):
        constant = saved(node, made_by.partners[used[0]])
        return not isinstance(constant, Tensor) or constant.numel() == 1
    return made_by.name not in {"Add", "Sub", "Rsub"}


def nodes_below(roots: Iterable[Node]) -> dict[Node, None]:
    """All nodes of the graph behind ``roots``, these among them, in a fixed order."""
    return dict.fromkeys(reachable(roots, below))


def reached(root: Node, stops: Collection[Node]) -> set[Node]:
    """Those of ``stops``, nodes of heads, to which a path leads from ``root`` through no other."""

    def following(node: Node) -> list[Node]:
        made_by = operation(node)
        transforms = made_by.name == "Abs" or made_by.sizes  # a head
        passes_on = made_by.weighs or transforms or (made_by.matrix and not made_by.adds)
        return below(node) if node not in stops and passes_on else []

    return {node for node in reachable([root], following) if node in stops}


def way_down(root: Node, node: Node) -> list[Node]:
    """A shortest way from one node to another below it, without that one."""
    above: dict[Node, Node | None] = {root: None}
    front = [root]
    while front and node not in above:
        steps = [(child, upper) for upper in front for _, child, _ in inputs(upper)]
        front = [child for child, upper in steps if above.setdefault(child, upper) is upper]
    way, step = [], above.get(node)
    while step is not None:
        way.append(step)
        step = above[step]
    return way[::-1]
