"""The part of a loss that depends on no leaf: terms that were detached, and constants.

| symbol | meaning | shape |
| --- | --- | --- |
| L | the loss | () |
| b | a block: a term, a penalty, a learned weight, the root of a mean square, ... | any |
| g_b | dL/db, the other blocks held fixed | of b |
| c | L - sum_b <g_b, b>, what no gradient flows from | () |

Between the loss and its blocks stand operations only that are linear in what has a graph, so c is
exact, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from pinn_ntk.graph.nodes import inputs, kind, leaf, missing, origin, output_dtype, saved
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.terms.completeness import checked, cut
from pinn_ntk.graph.terms.loss_nodes import Head, below, rule_at
from pinn_ntk.graph.terms.paths import from_leaves, passes
from pinn_ntk.graph.terms.phi import SQUARE

HEADROOM = 64
"""Rounding units of a sum up to which two ways of adding up may differ."""

Value = Callable[[Node], Tensor]


class Constant(NamedTuple):
    """c, and what it is to be compared with."""

    value: float  # NaN where the loss is not finite, though all of its blocks are
    rounding: float  # error that it may have

    @property
    def seen(self) -> bool:
        """Whether it is more than rounding."""
        return not abs(self.value) <= self.rounding


def constant_part(loss: Tensor) -> Constant | None:
    """What is left of a live loss when all that depends on leaves is taken off.

    None where that cannot be told: a block is of a kind whose value is not kept by the graph, or
    is not finite itself.

    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> pde, bc = (w * torch.ones(4) - 1).square().mean(), (w - 5).square()
    >>> constant_part(pde + 3 * bc.detach() + w.square()).value
    27.0
    >>> constant_part(pde + bc).seen
    False
    """
    loss = checked(loss)
    root = origin(loss)[0]
    above, blocks = _blocks(root)
    if loss.is_complex() or not all(map(_is_known, blocks)):
        return None
    with cut(node for node in blocks if leaf(node) is None):
        edges = [GradientEdge(node, 0) for node in blocks]
        incoming = torch.autograd.grad(loss, edges, retain_graph=True, allow_unused=True)
    parts = [_part(node, g) for node, g in zip(blocks, incoming, strict=True)]
    total, whole = float(torch.tensor(parts, dtype=torch.float64).sum()), float(loss.detach())
    if not torch.tensor(parts).isfinite().all():
        return None
    size = abs(whole) + sum(map(abs, parts))
    dtypes = [loss.dtype, *(output_dtype(node).to_real() for node in (*above, *blocks))]
    unit = max(torch.finfo(dtype).eps for dtype in dtypes)
    return Constant(whole - total, unit * (HEADROOM + len(above)) * size)


def _blocks(root: Node) -> tuple[list[Node], list[Node]]:
    """Nodes that are linear in what has a graph, and those at which they end."""
    above, ends, stack, seen = [], [], [root], {root}
    while stack:
        node = stack.pop()
        if not _is_linear(node):
            ends.append(node)
            continue
        above.append(node)
        fresh = [child for child in below(node) if child not in seen]
        seen.update(fresh)
        stack += fresh
    return above, ends


def _is_linear(node: Node) -> bool:
    made_by = operation(node)
    operands = [position for position, _, _ in inputs(node)]
    if rule_at(node) is not None:
        return False
    if made_by.partners:  # a product or a quotient: in one of its operands
        weighs = passes(node) and len(operands) == 1
        return weighs and not (made_by.name == "Div" and operands == [1])
    return made_by.linear


def _is_known(node: Node) -> bool:
    if leaf(node) is not None or rule_at(node) is not None:
        return True
    return kind(node) in _VALUES and not missing(node)


def _part(node: Node, incoming: Tensor | None) -> float:
    """<g_b, b>."""
    if incoming is None:
        return 0.0
    rule, variable = rule_at(node), leaf(node)
    if rule is not None:
        return _of_head(rule, incoming)
    value = _VALUES[kind(node)](node) if variable is None else variable
    return float((incoming.double() * value.detach().double()).sum())


def _of_head(head: Head, incoming: Tensor) -> float:
    with torch.no_grad():
        applied = head.phi.value(head.residual.detach()).double()
        return float((head.coefficient(incoming).double() * applied).sum())


def _result(node: Node) -> Tensor:
    return saved(node, "result")  # type: ignore[no-any-return]


def _of(function: Callable[[Tensor], Tensor]) -> Value:
    return lambda node: function(saved(node, "self").detach())


def _binary(function: Callable[[Tensor, Tensor], Tensor], other: str) -> Value:
    return lambda node: function(saved(node, "self"), saved(node, other))


_RESULTS = "Sqrt Rsqrt Reciprocal Exp Expm1 Logsumexp Prod Sigmoid Softmax Tanh"
_VALUES: Mapping[str, Value] = {
    **{f"{name}Backward0": _result for name in _RESULTS.split()},
    "LogBackward0": _of(torch.log),
    "Log1PBackward0": _of(torch.log1p),
    "Log2Backward0": _of(torch.log2),
    "Log10Backward0": _of(torch.log10),
    "MulBackward0": _binary(torch.mul, "other"),
    "DivBackward0": _binary(torch.div, "other"),
    "DotBackward0": _binary(torch.dot, "tensor"),
    "PowBackward0": _binary(torch.pow, "exponent"),
    "PowBackward1": _binary(torch.pow, "exponent"),
}
"""Node type -> its result, where that can be told from what it keeps."""


def factors_of_leaves(loss: Tensor) -> list[Tensor]:
    """Single numbers without a graph that multiply what is made of leaves alone.

    Such as a detached loss term before a learned weight: exp(-s) * bc.detach().
    """
    above, _ = _blocks(origin(checked(loss))[0])
    found = []
    for node in above:
        made_by, operands = operation(node), [position for position, _, _ in inputs(node)]
        if made_by.name == "Mul" and len(operands) == 1 and from_leaves(node, data=True):
            factor = saved(node, made_by.partners[operands[0]])
            found += [factor] if isinstance(factor, Tensor) and factor.numel() == 1 else []
    return found


def is_sum_of_squares(residual: Tensor) -> int:
    """Rows of what is squared where one number is a sum of squares with nothing subtracted, else 0.

    So is a loss term, but not the residual of an integral constraint, which has a target.

    >>> u = torch.ones(1, requires_grad=True) * torch.arange(4.0)
    >>> is_sum_of_squares(u.square().mean()), is_sum_of_squares(u.square().mean() - 1)
    (4, 0)
    """
    if residual.numel() != 1 or residual.grad_fn is None:
        return 0
    value = residual.reshape(()) if residual.ndim else residual
    _, blocks = _blocks(origin(value)[0])
    if any(from_leaves(node, data=False) for node in blocks):
        return 0
    heads = [rule_at(node) for node in blocks]
    rows = sum(head.residual.numel() for head in heads if head and head.phi.kind != "norm")
    if None in heads or rows < 2 or _subtracts(value, blocks):
        return 0
    constant = constant_part(value)
    return 0 if constant is None or constant.seen else rows


def squared_twice(loss: Tensor) -> dict[Node, int]:
    """Squares of a sum of squares -> rows of what is squared in that sum."""
    _, blocks = _blocks(origin(checked(loss))[0])
    rules = {node: rule_at(node) for node in blocks}
    squares = {n: rule.residual for n, rule in rules.items() if rule and rule.phi is SQUARE}
    rows = {node: is_sum_of_squares(residual) for node, residual in squares.items()}
    return {node: n for node, n in rows.items() if n}


def _subtracts(value: Tensor, blocks: Sequence[Node]) -> bool:
    """Whether a block counts with a negative sign."""
    edges = [GradientEdge(node, 0) for node in blocks]
    with cut(blocks):
        incoming = torch.autograd.grad(value, edges, retain_graph=True, allow_unused=True)
    return any(g is not None and bool((g < 0).any()) for g in incoming)
