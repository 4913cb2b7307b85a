"""The exact way that always works: one vector-Jacobian product a residual row.

Rows are batched over the live graph where every operation in it allows that, else taken one by
one. Cost and memory grow with rows times parameters, so this is the fallback, not the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MAX_CHUNK = 64
"""Rows differentiated in one batched pass at most."""


def row_gradients(residual: Tensor, leaves: Mapping[str, Tensor], budget: int) -> dict[str, Tensor]:
    """Gradient of every residual entry with respect to every leaf.

    Args:
        residual: Live residual of any shape with R entries.
        leaves: Parameter name -> leaf tensor.
        budget: Bytes that one chunk of row gradients may take.

    Returns:
        Parameter name -> (R, numel); leaves that the residual does not depend on are left out.
    """
    wanted = list(leaves.values())
    numel = sum(leaf.numel() for leaf in wanted)
    chunk = max(1, min(MAX_CHUNK, budget // (numel * residual.element_size())))
    parts = [_chunk(residual, wanted, start, chunk) for start in range(0, residual.numel(), chunk)]
    result = {}
    for index, name in enumerate(leaves):
        columns = [part[index] for part in parts]
        if any(column is not None for column in columns):
            result[name] = torch.cat([c.reshape(len(c), -1) for c in columns if c is not None])
    return result


def _chunk(
    residual: Tensor, leaves: Sequence[Tensor], start: int, size: int
) -> tuple[Tensor | None, ...]:
    stop = min(start + size, residual.numel())
    basis = torch.zeros(
        stop - start, residual.numel(), dtype=residual.dtype, device=residual.device
    )
    basis[torch.arange(stop - start), torch.arange(start, stop)] = 1
    basis = basis.view(stop - start, *residual.shape)
    try:
        return _vjp(residual, leaves, basis, batched=True)
    except RuntimeError as error:
        if is_freed(error):
            raise
        rows = [_vjp(residual, leaves, row, batched=False) for row in basis]
        return tuple(None if c[0] is None else torch.stack(c) for c in zip(*rows, strict=True))


def _vjp(
    residual: Tensor, leaves: Sequence[Tensor], cotangent: Tensor, *, batched: bool
) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(
        residual,
        leaves,
        cotangent,
        retain_graph=True,
        allow_unused=True,
        is_grads_batched=batched,
    )


def is_freed(error: RuntimeError) -> bool:
    """Whether autograd says that the graph was freed by an earlier backward pass."""
    return "backward through the graph a second time" in str(error)
