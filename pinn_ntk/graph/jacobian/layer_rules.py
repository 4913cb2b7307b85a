"""Rules (`rules.py` here) for layers beside the linear one.

Stacked matrices: slot (b, i) is point i of matrix b, and its gradient the outer product with that
matrix alone, a block of all matrices below one another. Embeddings and other choices of rows: a
gradient of the row chosen alone. Convolutions: sums over the patches that a filter meets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.functional import unfold

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.placed import Made, Placed
from pinn_ntk.graph.jacobian.site_rule import RuleMaker, SiteRule, chosen, operand
from pinn_ntk.kernel.factors import Dense, Outer


def stacked(self: Tensor | None, mat2: Tensor | None, position: int, scale: float) -> SiteRule:
    """Rule of self (B, M, m) @ mat2 (B, m, n), or of self (B, m, n) @ mat2 (B, n, M) at 0."""
    other = operand(mat2).mT if position == 0 else operand(self)  # (B, M, k)
    count, points, _ = other.shape
    slots = (other * scale if scale != 1 else other).flatten(0, 1)
    blocks = torch.arange(count, device=other.device).repeat_interleave(points)

    def arrange(tensor: Tensor) -> Tensor:
        return (tensor.mT if position == 0 else tensor).flatten(0, 1)

    def contribute(g: Tensor) -> Placed:
        left, right = (g, slots) if position == 0 else (slots, g)
        return Placed(blocks, count, left, right)

    return SiteRule(arrange, contribute)


def _embedding(node: Node, _: int, shape: torch.Size) -> SiteRule | None:
    if nodes.saved(node, "scale_grad_by_freq") or nodes.saved(node, "sparse"):
        return None
    numbers = nodes.saved(node, "indices")
    rule = _rows_chosen(numbers, shape)
    padding = nodes.signed(nodes.saved(node, "padding_idx"))
    if padding < 0:
        return rule
    kept = (numbers.reshape(-1, 1) != padding).to(nodes.output_dtype(node))
    return SiteRule(rule.arrange, lambda g: rule.contribute(g * kept))


def _index_select(node: Node, _: int, shape: torch.Size) -> SiteRule | None:
    if nodes.signed(nodes.saved(node, "dim")) % len(shape) != 0:
        return None
    return _rows_chosen(nodes.saved(node, "index"), shape)


def _index(node: Node, _: int, shape: torch.Size) -> SiteRule | None:
    first, *others = nodes.saved(node, "indices")
    if first is None or first.dtype != torch.int64 or any(i is not None for i in others):
        return None
    return _rows_chosen(first % shape[0], shape)


def _rows_chosen(numbers: Tensor, shape: torch.Size) -> SiteRule:
    width = shape[1:].numel()
    return SiteRule(
        lambda tensor: tensor.reshape(-1, width), lambda g: chosen(numbers, shape[0], g)
    )


def _trilinear(node: Node, position: int, shape: torch.Size) -> SiteRule | None:
    """Rule of sum(i1 * i2 * i3), each with axes of length 1 put in, summed over some axes."""
    names = ("i1", "i2", "i3")
    spread = [list(nodes.saved(node, f"expand{k}")) for k in (1, 2, 3)]
    summed = sorted(nodes.saved(node, "sumdim"))
    if len(spread[position]) != 1 or spread[position][0] in summed:
        return None
    axis = spread[position][0]
    first, second = (
        _with_axes(operand(nodes.saved(node, names[k])), spread[k])
        for k in range(3)
        if k != position
    )
    other = first * second  # entries of the product, but for the operand
    before = sum(k < axis for k in range(axis) if k not in summed)
    out = nodes.output_shape(node)

    def arrange(tensor: Tensor) -> Tensor:
        return tensor.movedim(before, 0).reshape(out[before], -1)

    def contribute(g: Tensor) -> Made:
        rest = [size for k, size in enumerate(out) if k != before]

        def make(slots: Tensor) -> Tensor:
            some = _with_axes(g[slots].view(len(slots), *rest).movedim(0, before), summed)
            product = (some * other.index_select(axis, slots)).movedim(axis, 0)
            return product.expand(-1, *shape).flatten(1)

        return Made(len(g), make, g.device)

    return SiteRule(arrange, contribute)


def _with_axes(tensor: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(axes):
        tensor = tensor.unsqueeze(axis)
    return tensor


def _group_norm(node: Node, position: int, shape: torch.Size) -> SiteRule | None:
    """Rule of y = gain * (x - mean) / std + offset by groups of channels; 1 is the gain."""
    if position not in (1, 2):
        return None
    x = operand(nodes.saved(node, "input"))
    mean, rstd = nodes.saved(node, "result1"), nodes.saved(node, "result2")
    grouped = x.reshape(*mean.shape, -1)
    hat = ((grouped - mean[..., None]) * rstd[..., None]).reshape(len(x), -1).detach()

    def contribute(g: Tensor) -> Outer | Dense:
        product = g * hat if position == 1 else g
        return Dense(product.view(len(g), shape.numel(), -1).sum(2))

    return SiteRule(lambda tensor: tensor.reshape(len(x), -1), contribute)


def _convolution(node: Node, position: int, shape: torch.Size) -> list[SiteRule] | None:
    """Rule of a convolution in one or two dimensions; operand 1 is the filter, 2 the offset."""
    if nodes.saved(node, "transposed") or len(nodes.output_shape(node)) not in (3, 4):
        return None
    out = nodes.output_shape(node)
    if position == 2:
        by_sample = SiteRule(
            lambda t: t.reshape(len(t), -1), lambda g: Dense(g.view(len(g), out[1], -1).sum(2))
        )
        return [by_sample, SiteRule(_by_place, Dense)]
    if position != 1:
        return None
    signal = operand(nodes.saved(node, "input"))
    by_sample = SiteRule(
        lambda t: t.reshape(len(t), -1),
        lambda g: _filters(node, g.view(len(g), out[1], -1), signal, shape),
    )
    if nodes.saved(node, "groups") != 1:
        return [by_sample]
    by_place = SiteRule(
        _by_place, lambda g: Outer((g,), (_by_place(_patches(node, signal, shape)),))
    )
    few = math.prod(out[2:]) <= min(shape[0], shape[1:].numel())
    return [by_place, by_sample] if few else [by_sample, by_place]


def _convolution_backward(node: Node, position: int, shape: torch.Size) -> SiteRule | None:
    """Rule of the first derivative: the same sum, with the derivative's cotangent as the input."""
    if nodes.saved(node, "transposed") or position not in (1, 2):
        return None
    out = nodes.output_shape(node)
    if len(out) not in (3, 4):
        return None
    if position == 1:  # the input has no part in its own derivative
        return None
    outer = operand(nodes.saved(node, "grad_output")).flatten(2)  # (N, O, L)

    def contribute(g: Tensor) -> Made:
        return _filters(node, outer, g.view(out), shape)

    return SiteRule(lambda t: t.reshape(len(t), -1), contribute)


def _by_place(tensor: Tensor) -> Tensor:
    """Every place of every sample a slot, (N L, O)."""
    return tensor.flatten(2).transpose(1, 2).flatten(0, 1)


def _filters(node: Node, outer: Tensor, signal: Tensor, shape: torch.Size) -> Made:
    """Gradients of the filters, a sample each, from (N, O, L) and (N, I, ...).

    What a filter meets is many times the signal, so no more is laid out at once than it gives.
    """
    groups, numel = nodes.saved(node, "groups"), shape.numel()
    met = shape[1:].numel() * groups * outer.shape[2]  # numbers of one sample

    def make(samples: Tensor) -> Tensor:
        return torch.cat([some(part) for part in samples.split(len(samples) * numel // met or 1)])

    def some(samples: Tensor) -> Tensor:
        pair = outer[samples], _patches(node, signal[samples], shape)
        grouped: list[Tensor] = [x.unflatten(1, (groups, -1)) for x in pair]
        return (grouped[0] @ grouped[1].mT).flatten(1)

    return Made(len(outer), make, outer.device)


def _patches(node: Node, signal: Tensor, shape: torch.Size) -> Tensor:
    """What the filter meets at each place, (N, I k, L)."""
    flat = len(shape) == 3
    kernel = tuple(shape[2:])
    stride, padding, dilation = (
        tuple(nodes.saved(node, name)) for name in ("stride", "padding", "dilation")
    )
    if not flat:
        return unfold(signal, kernel, dilation, padding, stride)
    row = signal.unsqueeze(2)  # a picture of one line
    return unfold(row, (1, *kernel), (1, *dilation), (0, *padding), (1, *stride))


LAYER_RULES: dict[str, RuleMaker] = {
    "EmbeddingBackward0": _embedding,
    "IndexSelectBackward0": _index_select,
    "IndexBackward0": _index,
    "TrilinearBackward0": _trilinear,
    "NativeGroupNormBackward0": _group_norm,
    "ConvolutionBackward0": _convolution,
    "ConvolutionBackwardBackward0": _convolution_backward,
}
