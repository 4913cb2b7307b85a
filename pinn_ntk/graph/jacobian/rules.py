"""How one operation turns its output's cotangent into gradients of a tensor that all points share.

A rule (`site_rule.py` here) cuts the operation's output into slots, each belonging to one point,
and says what each slot contributes to the gradient of the shared operand.

M is the number of slots, f that of the output's entries in one, (m, n) the shape of a shared weight
matrix, numel the number of entries of any other shared operand.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.layer_rules import LAYER_RULES, stacked
from pinn_ntk.graph.jacobian.site_rule import RuleMaker, SiteRule, chosen
from pinn_ntk.graph.jacobian.site_rule import operand as _other
from pinn_ntk.kernel.factors import Dense, Outer


def find_rules(node: Node, position: int, shape: torch.Size) -> list[SiteRule]:
    """Rules for operand ``position`` of ``node``, of this shape; the same gradients, other slots.

    Larger slots come first; the first rule fits points on axis 0. Empty where there is none.
    """
    maker = _RULES.get(nodes.kind(node))
    if maker is None or nodes.missing(node) or nodes.output_dtype(node).is_complex:
        return []
    rules = maker(node, position, shape)
    return rules if isinstance(rules, list) else [rules] if rules else []


def has_effect(node: Node, position: int, output: int) -> bool:
    """Whether operand ``position`` of ``node`` has a part in that output of it."""
    return nodes.kind(node) != "NativeGroupNormBackward0" or not position or not output


def _matmul(self: Tensor | None, mat2: Tensor | None, position: int, scale: float) -> SiteRule:
    """Rule of self (M, m) @ mat2 (m, n), or of self (m, n) @ mat2 (n, M) when position is 0."""
    if position == 0:
        other = _other(mat2).mT * scale  # (M, n)
        return SiteRule(lambda tensor: tensor.mT, lambda g: Outer((g,), (other,)))
    other = _other(self) * scale if scale != 1 else _other(self)  # (M, m)
    return SiteRule(lambda tensor: tensor, lambda g: Outer((other,), (g,)))


def _mm(node: Node, position: int, _: torch.Size) -> SiteRule:
    return _matmul(nodes.saved(node, "self"), nodes.saved(node, "mat2"), position, 1)


def _addmm(node: Node, position: int, shape: torch.Size) -> SiteRule | list[SiteRule]:
    if position == 0:
        return _broadcast(node, shape, float(nodes.saved(node, "beta")))
    mat1, mat2 = nodes.saved(node, "mat1"), nodes.saved(node, "mat2")
    return _matmul(mat1, mat2, position - 1, float(nodes.saved(node, "alpha")))


def _bmm(node: Node, position: int, shape: torch.Size) -> SiteRule:
    self, mat2 = nodes.saved(node, "self"), nodes.saved(node, "mat2")
    if shape[0] != 1:
        return stacked(self, mat2, position, 1)
    first, second = (None if o is None else o.squeeze(0) for o in (self, mat2))
    rule = _matmul(first, second, position, 1)
    return SiteRule(lambda t: rule.arrange(t.squeeze(0)), rule.contribute)


def _baddbmm(node: Node, position: int, shape: torch.Size) -> SiteRule | list[SiteRule]:
    if position == 0:
        return _broadcast(node, shape, float(nodes.saved(node, "beta")))
    first, second = nodes.saved(node, "batch1"), nodes.saved(node, "batch2")
    return stacked(first, second, position - 1, float(nodes.saved(node, "alpha")))


def _prelu(node: Node, position: int, shape: torch.Size) -> list[SiteRule] | None:
    if position != 1:
        return None
    return _broadcast(node, shape, _other(nodes.saved(node, "self")).clamp(max=0))


def _prelu_backward(node: Node, position: int, shape: torch.Size) -> list[SiteRule] | None:
    """Rule of dx = grad_output * (1 where x > 0, else the slope); operand 2 is the slope."""
    if position != 2:
        return None
    grad_output, x = (_other(nodes.saved(node, name)) for name in ("grad_output", "self"))
    return _broadcast(node, shape, grad_output * (x <= 0))


def _mv(node: Node, position: int, _: torch.Size) -> SiteRule | None:
    if position == 0:
        return None
    matrix = _other(nodes.saved(node, "self"))  # (M, numel)
    return SiteRule(lambda t: t[:, None], lambda g: Dense(g * matrix))


def _add(node: Node, position: int, shape: torch.Size) -> list[SiteRule]:
    sign = -1 if nodes.kind(node) == "SubBackward0" else 1
    return _broadcast(node, shape, sign * float(nodes.saved(node, "alpha")) if position else 1.0)


def _mul(node: Node, position: int, shape: torch.Size) -> list[SiteRule]:
    return _broadcast(node, shape, _other(nodes.saved(node, "self" if position else "other")))


def _div(node: Node, position: int, shape: torch.Size) -> list[SiteRule]:
    divisor = _other(nodes.saved(node, "other"))
    if position == 0:
        return _broadcast(node, shape, divisor.reciprocal())
    return _broadcast(node, shape, -_other(nodes.saved(node, "self")) / divisor.square())


def _layer_norm(node: Node, position: int, shape: torch.Size) -> SiteRule | None:
    """Rule of y = gain * (x - mean) / std + offset; operand 1 is the gain, 2 the offset."""
    arrange = _normalised_slots(shape)
    if position == 2:
        return SiteRule(arrange, Dense)
    if position != 1:
        return None
    mean, rstd = nodes.saved(node, "result1"), nodes.saved(node, "result2")
    hat = arrange((nodes.saved(node, "input") - mean) * rstd).detach()
    return SiteRule(arrange, lambda g: Dense(g * hat))


def _layer_norm_backward(node: Node, position: int, shape: torch.Size) -> SiteRule | None:
    """Rule of dx = rstd (w - mean(w) - hat mean(w hat)), w = grad_out * gain; 4 is the gain."""
    arrange = _normalised_slots(shape)
    if position == 5:  # the offset has no part in the derivative
        return SiteRule(arrange, lambda g: Dense(torch.zeros_like(g)))
    if position != 4:
        return None
    rstd = nodes.saved(node, "rstd")
    hat = ((nodes.saved(node, "input") - nodes.saved(node, "mean")) * rstd).detach()
    hat, grad_out = arrange(hat), arrange(_other(nodes.saved(node, "grad_out")))
    scale = arrange(rstd.detach().expand(nodes.output_shape(node)))

    def contribute(g: Tensor) -> Outer | Dense:
        projected = g - g.mean(1, keepdim=True) - hat * (g * hat).mean(1, keepdim=True)
        return Dense(scale * projected * grad_out)

    return SiteRule(arrange, contribute)


def _normalised_slots(shape: torch.Size) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.reshape(-1, shape.numel())


def _broadcast(node: Node, shape: torch.Size, multiplier: Tensor | float) -> list[SiteRule]:
    """Rules of out = operand * multiplier (+ ...); slots lie along one or all broadcast axes.

    The last rule of an operand that is no vector has slots along all axes but one, each of which
    takes one row of the operand: slot (b, i) of a (B, 1, n) that meets (B, N, n) takes row b.
    """
    out = nodes.output_shape(node)
    padded = (1,) * (len(out) - len(shape)) + tuple(shape)
    spread = [axis for axis in range(len(out)) if padded[axis] != out[axis]]
    kept = [axis for axis in range(len(out)) if axis not in spread]
    cuts = [[axis] for axis in spread] + ([spread] if len(spread) > 1 else [])
    orders = [([*cut, *(a for a in spread if a not in cut), *kept], cut) for cut in cuts]
    rules = [
        _broadcast_rule(out, order, math.prod(out[axis] for axis in cut), shape, multiplier)
        for order, cut in orders
    ]
    wide = [axis for axis in kept if out[axis] != 1]
    last = wide[-1] if len(wide) > 1 else len(out) - 1  # an axis of length 1 is one to take
    several = len(wide) > 1 or (wide and out[last] == 1)
    if spread and several and math.prod(padded[last + 1 :]) == 1:
        rules.append(_row_rule(out, padded, last, multiplier))
    return rules


def _row_rule(
    out: torch.Size, padded: tuple[int, ...], last: int, multiplier: Tensor | float
) -> SiteRule:
    width = out[last]
    count = math.prod(padded) // width

    def arrange(tensor: Tensor) -> Tensor:
        return tensor.expand(out).movedim(last, -1).reshape(-1, width)

    rows = torch.arange(count).view(*padded[:last], 1, *padded[last + 1 :])
    rows = rows.expand(*out[:last], 1, *out[last + 1 :]).movedim(last, -1).reshape(-1)
    other = multiplier if isinstance(multiplier, float) else arrange(multiplier)
    return SiteRule(arrange, lambda g: chosen(rows, count, g * other))


def _broadcast_rule(
    out: torch.Size, order: list[int], slots: int, shape: torch.Size, multiplier: Tensor | float
) -> SiteRule:
    def arrange(tensor: Tensor) -> Tensor:
        return tensor.expand(out).permute(order).reshape(slots, -1)

    other = multiplier if isinstance(multiplier, float) else arrange(multiplier)

    def contribute(g: Tensor) -> Outer | Dense:
        product = g if isinstance(other, float) and other == 1.0 else g * other
        whole = product.shape[1] == shape.numel()
        return Dense(product if whole else product.view(slots, -1, shape.numel()).sum(1))

    return SiteRule(arrange, contribute)


_RULES: dict[str, RuleMaker] = {
    **LAYER_RULES,
    "MmBackward0": _mm,
    "AddmmBackward0": _addmm,
    "BmmBackward0": _bmm,
    "BaddbmmBackward0": _baddbmm,
    "PreluKernelBackward0": _prelu,
    "PreluKernelBackwardBackward0": _prelu_backward,
    "MvBackward0": _mv,
    "AddBackward0": _add,
    "SubBackward0": _add,
    "MulBackward0": _mul,
    "DivBackward0": _div,
    "ExpandBackward0": lambda node, _, shape: _broadcast(node, shape, 1.0),
    "NativeLayerNormBackward0": _layer_norm,
    "NativeLayerNormBackwardBackward0": _layer_norm_backward,
}
