"""The exact way that always works: one vector-Jacobian product a residual row.

Rows are batched over the live graph where every operation in it allows that, else taken one by
one. Cost and memory grow with rows times parameters, so this is the fallback, not the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.functional import one_hot

from pinn_ntk.graph.subclasses import dense

MAX_CHUNK = 64
"""Rows differentiated in one batched pass at most."""


def row_gradients(residual: Tensor, leaves: Mapping[str, Tensor], budget: int) -> dict[str, Tensor]:
    """Gradient of every residual entry by every leaf, name -> (R, numel), unused leaves left out.

    One chunk of row gradients takes at most ``budget`` bytes.
    """
    wanted = list(leaves.values())
    numel = sum(leaf.shape.numel() for leaf in wanted)
    chunk = max(1, min(MAX_CHUNK, budget // max(1, numel * residual.element_size())))
    chunks = torch.arange(residual.numel(), device=residual.device).split(chunk)
    parts = []
    for rows in chunks:
        basis = one_hot(rows, residual.numel()).to(residual.dtype)
        parts.append(batched_vjp(residual, wanted, basis.view(-1, *residual.shape)))
    result = {}
    for name, leaf, *columns in zip(leaves, wanted, *parts, strict=True):
        if any(column is not None for column in columns):
            filled = [
                leaf.new_zeros(len(rows), leaf.shape.numel())
                if g is None
                else g.reshape(len(rows), -1)
                for rows, g in zip(chunks, columns, strict=True)
            ]
            result[name] = torch.cat(filled)
    return result


def batched_vjp(
    output: Tensor | GradientEdge, leaves: Sequence[Tensor], cotangents: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of each leaf for each of ``cotangents``, at once or one by one, as autograd can."""

    def pull(cotangent: Tensor, *, batched: bool) -> tuple[Tensor | None, ...]:
        options = {"retain_graph": True, "allow_unused": True, "is_grads_batched": batched}
        found = torch.autograd.grad(output, leaves, cotangent, **options)
        return tuple(None if g is None else dense(g) for g in found)

    try:
        return pull(cotangents, batched=True)
    except RuntimeError as error:
        if is_freed(error):
            raise
        rows = [pull(cotangent, batched=False) for cotangent in cotangents]
        return tuple(stacked(column) for column in zip(*rows, strict=True))


def stacked(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Gradients of one leaf in one tensor; autograd gives None for some that are zero."""
    like = next((gradient for gradient in gradients if gradient is not None), None)
    if like is None:
        return None
    return torch.stack([torch.zeros_like(like) if g is None else g for g in gradients])


def is_freed(error: RuntimeError) -> bool:
    """Whether autograd says that the graph was freed by an earlier backward pass."""
    return "backward through the graph a second time" in str(error)
