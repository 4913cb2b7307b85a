"""The exact way that always works: one vector-Jacobian product a residual row.

Rows are batched over the live graph where every operation in it allows that, else taken one by
one. Cost and memory grow with rows times parameters, so this is the fallback, not the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.functional import one_hot

from pinn_ntk.graph.jacobian.sizes import live_bytes
from pinn_ntk.graph.subclasses import dense

MAX_CHUNK = 64
"""Rows differentiated in one batched pass at most."""

BATCHED = 2**21
"""Bytes of cotangents above which rows in one pass are no faster than one by one (2 MiB)."""


def row_gradients(
    residual: Tensor, leaves: Mapping[str, Tensor], budget: int, rows: Tensor | None = None
) -> dict[str, Tensor]:
    """Gradient of residual entries by every leaf, name -> (r, numel), unused leaves left out.

    ``rows`` (r,) are the places of the entries in the flattened residual, all where left out.
    Besides the result, a batch of rows takes at most ``budget`` bytes, or one row what it takes.
    """
    if rows is None:
        rows = torch.arange(residual.numel())
    rows, wanted = rows.to(residual.device), list(leaves.values())
    each = sum(leaf.shape.numel() for leaf in wanted) * residual.element_size()
    most = min(budget // max(1, each), min(budget, BATCHED) // max(1, live_bytes(residual)))
    chunks = rows.split(max(1, min(MAX_CHUNK, most)))
    bases = (one_hot(some, residual.numel()).to(residual.dtype) for some in chunks)
    cotangents = (basis.view(-1, *residual.shape) for basis in bases)
    filled: dict[str, Tensor] = {}
    done = 0
    for columns in pulled_in_turn(residual, wanted, cotangents):
        for name, leaf, column in zip(leaves, wanted, columns, strict=True):
            if column is not None:
                if name not in filled:
                    filled[name] = leaf.new_zeros(len(rows), leaf.shape.numel())
                filled[name][done : done + len(column)] = column.reshape(len(column), -1)
        done += len(chunks[0])
    return filled


def batched_vjp(
    output: Tensor | GradientEdge, leaves: Sequence[Tensor], cotangents: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of each leaf for each of ``cotangents``, at once or one by one, as autograd can."""
    return next(pulled_in_turn(output, leaves, [cotangents]))


def pulled_in_turn(
    output: Tensor | GradientEdge, leaves: Sequence[Tensor], chunks: Iterable[Tensor]
) -> Iterator[tuple[Tensor | None, ...]]:
    """The same for one chunk after the other; a graph that takes no batch is not asked again."""
    batched = True

    def pull(cotangent: Tensor, *, batched: bool) -> tuple[Tensor | None, ...]:
        options = {"retain_graph": True, "allow_unused": True, "is_grads_batched": batched}
        found = torch.autograd.grad(output, leaves, cotangent, **options)
        return tuple(None if g is None else dense(g) for g in found)

    for chunk in chunks:
        found = None
        try:
            found = pull(chunk, batched=True) if batched and len(chunk) > 1 else None
        except RuntimeError as error:
            if is_freed(error):
                raise
            batched = False
        if found is None:
            rows = [pull(cotangent, batched=False) for cotangent in chunk]
            found = tuple(stacked(column) for column in zip(*rows, strict=True))
        yield found


def stacked(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Gradients of one leaf in one tensor; autograd gives None for some that are zero."""
    like = next((gradient for gradient in gradients if gradient is not None), None)
    if like is None:
        return None
    return torch.stack([torch.zeros_like(like) if g is None else g for g in gradients])


def is_freed(error: RuntimeError) -> bool:
    """Whether autograd says that the graph was freed by an earlier backward pass."""
    return "backward through the graph a second time" in str(error)
