"""Heads: the nodes at which a loss turns unsquared residuals into numbers that it may add up.

A head makes phi(r) (see `pinn_ntk.graph.terms.phi`) of its operand, the unsquared residual r. With
g the gradient of the loss with respect to the output of the head, w, the coefficient of phi(r_i) in
the loss, in the shape of r, is g, or g / N if the head takes the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.nodes import (
    SAVED,
    inputs,
    kind,
    leaf,
    missing,
    operands,
    output_shape,
    saved,
    signed,
)
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.graph.terms.phi import ABS, LOG_COSH, SQUARE, Phi, huber, norm, smooth_l1


@dataclass(frozen=True, eq=False)
class Head:
    """A node that makes phi(r), and what is needed to weigh it."""

    node: Node  # the gradient of the loss enters the term here
    phi: Phi
    residual: Tensor
    axes: tuple[int, ...] = ()  # of r that the node sums over without keeping them
    share: float = 1.0  # factor from g to w; 1 / N for a node that takes the mean itself

    def coefficient(self, incoming: Tensor | None) -> Tensor:
        """The weight w that belongs to g = ``incoming``, in a shape that broadcasts to r."""
        if incoming is None:  # an operation above passes no gradient on
            incoming = self.residual.detach().new_zeros(output_shape(self.node))
        for axis in sorted(self.axes):
            incoming = incoming.unsqueeze(axis)
        return incoming if self.share == 1.0 else incoming * self.share


def head_at(node: Node) -> Head | None:
    """The head at ``node``, its residual alive, or None where there is none.

    What only transforms another head is none itself: the norm of a norm, the square of an RMSE.
    The square of an absolute value or of a 2-norm is the square of what is inside. Other norms and
    distances, squared or not, have no rows that could be told.
    """
    head = rule_at(node)
    inner = None if head is None else _inner(head)
    if head is None or inner is None:
        hidden = head is not None and _transforms(head) and all(map(_is_size, below(node)))
        return None if hidden else head
    squares = head.phi is SQUARE and operation(node).name in {"Pow", "Mul", "MseLoss"}
    two_norm = operation(inner.node).name == "Abs" or inner.phi.kind == "norm"
    if squares and two_norm and below(node) == [inner.node] and _inner(inner) is None:
        summed = operation(node).subtracts and saved(node, "reduction") != 0
        axes = () if summed else inner.axes
        return replace(inner, node=node, phi=SQUARE, axes=axes, share=head.share)
    return None


def rule_at(node: Node) -> Head | None:
    """What the rule for the type of ``node`` makes of it, whatever lies below."""
    rule = _RULES.get(kind(node))
    return None if rule is None or missing(node) else rule(node)


def _inner(head: Head) -> Head | None:
    """The other head that ``head`` only transforms, if so."""
    if not _transforms(head):
        return None
    children = below(head.node)
    while len(children) == 1:
        inner = rule_at(children[0])
        if inner is not None or not operation(children[0]).rescales:
            return inner
        children = below(children[0])
    return None


def _transforms(head: Head) -> bool:
    """Whether the residual of ``head`` is its operand: nothing but zero is subtracted."""
    if not operation(head.node).subtracts:
        return head.phi.kind in {"square", "abs", "norm"}
    others = below(head.node)
    alone = len(others) == 1 and _is_size(others[0])
    return alone and not bool(saved(head.node, "target").count_nonzero())


def _is_size(node: Node) -> bool:
    """Whether ``node`` gives how large other numbers are together, be it rescaled or some of it."""
    made_by, children = operation(node), below(node)
    if made_by.sizes:
        return True
    if made_by.name in {"Amax", "Max"} and [operation(c).name for c in children] == ["Abs"]:
        return True
    parts = [child for child in children if leaf(child) is None]
    return (made_by.rescales or made_by.picks) and bool(parts) and all(map(_is_size, parts))


def below(node: Node) -> list[Node]:
    """The distinct nodes that made the differentiable operands of ``node``, in order."""
    return list({child: None for child, _ in operands(node) if child is not None})


def _square(node: Node) -> Head | None:
    exponent = saved(node, "exponent")
    fixed = [position for position, _, _ in inputs(node)] == [0]
    if isinstance(exponent, Tensor):  # r ** torch.tensor(2.0)
        exponent = exponent.item() if exponent.numel() == 1 else None
    return Head(node, SQUARE, plain(saved(node, "self"))) if fixed and exponent == 2 else None


def _product(node: Node) -> Head | None:
    """r * r, and the dot product of r with itself, which may come as a matrix product."""
    operands = [(child, output) for _, child, output in inputs(node)]
    if len(operands) != 2 or len({_source(*operand) for operand in operands}) == 2:
        return None
    left, right = (plain(saved(node, operation(node).partners[i])) for i in (1, 0))
    one = output_shape(node)[-2:] == (1, 1)
    square = one if operation(node).matrix else left.shape == right.shape
    same = square and _equal(left, right.reshape(left.shape))
    return Head(node, SQUARE, left) if same and not left.is_complex() else None


def _equal(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have the same entries; NaN is like NaN."""
    return torch.equal(left, right) or bool(left.isclose(right, 0, 0, equal_nan=True).all())


def _source(node: Node, output: int) -> tuple[Node, int]:
    """The tensor of which (node, output) is a view."""
    while operation(node).view and not operation(node).rounds:
        ((_, node, output),) = inputs(node)
    return node, output


def _paired(phi: Callable[[Node], Phi]) -> Callable[[Node], Head]:
    def rule(node: Node) -> Head:
        with torch.enable_grad():
            residual = plain(saved(node, "self")) - plain(saved(node, "target"))
        mean = saved(node, "reduction") == 1  # torch's reductions: 0 none, 1 mean, 2 sum
        return Head(node, phi(node), residual, share=1 / max(1, residual.numel()) if mean else 1.0)

    return rule


def _norm(
    node: Node, residual: Tensor, order: float, axes: Sequence[int] = (), *, keepdim: bool = True
) -> Head | None:
    """The norm over some axes, all without any, of order 1 or 2; other orders have no rule."""
    over = tuple(signed(axis) % residual.ndim for axis in axes)
    phi = ABS if order == 1 else norm(over) if order == 2 else None
    return None if phi is None else Head(node, phi, residual, axes=() if keepdim else over)


def _vector_norm(node: Node) -> Head | None:
    axes, keepdim = saved(node, "dim") or (), saved(node, "keepdim")
    return _norm(node, plain(saved(node, "self")), saved(node, "ord"), axes, keepdim=keepdim)


def _old_norm(node: Node) -> Head | None:
    """`torch.norm` as torch's own functions call it, over all axes or some."""
    residual, order = plain(saved(node, "self")), saved(node, "p")
    order = 2 if order is None else order
    if "dim" not in SAVED[kind(node)]:
        return _norm(node, residual, order)
    return _norm(node, residual, order, saved(node, "dim"), keepdim=saved(node, "keepdim"))


def _distance(node: Node) -> Head | None:
    with torch.enable_grad():
        residual = plain(saved(node, "self")) - plain(saved(node, "other"))
    return _norm(node, residual, saved(node, "p"))


def _hypotenuse(node: Node) -> Head | None:
    with torch.enable_grad():
        sides = torch.broadcast_tensors(plain(saved(node, "self")), plain(saved(node, "other")))
        return _norm(node, torch.stack(sides), 2, (0,), keepdim=False)


def _log(node: Node) -> Head | None:
    (child,) = below(node)
    if kind(child) != "CoshBackward0" or missing(child):
        return None
    return Head(node, LOG_COSH, plain(saved(child, "self")))


_RULES: Mapping[str, Callable[[Node], Head | None]] = {
    "PowBackward0": _square,
    "PowBackward1": _square,
    "MulBackward0": _product,
    "DotBackward0": _product,
    "MmBackward0": _product,
    "BmmBackward0": _product,
    "MseLossBackward0": _paired(lambda _: SQUARE),
    "HuberLossBackward0": _paired(lambda node: huber(saved(node, "delta"))),
    "SmoothL1LossBackward0": _paired(lambda node: smooth_l1(saved(node, "beta"))),
    "AbsBackward0": lambda node: Head(node, ABS, plain(saved(node, "self"))),
    "LinalgVectorNormBackward0": _vector_norm,
    "NormBackward0": _old_norm,
    "NormBackward1": _old_norm,
    "NormBackward2": _old_norm,
    "NormBackward3": _old_norm,
    "DistBackward0": _distance,
    "HypotBackward0": _hypotenuse,
    "LogBackward0": _log,
}
