"""Learned weights of a loss: leaves that weigh its terms, and that no residual depends on."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.nodes import leaf, origin
from pinn_ntk.graph.terms.paths import nodes_below, trace


def learned_weights(loss: Tensor) -> list[Tensor]:
    """Leaves that are in the loss only as weights of its terms, or as penalties on those.

    >>> import torch
    >>> theta, s = (torch.tensor(2.0, requires_grad=True) for _ in range(2))
    >>> loss = torch.exp(-s) * (theta * torch.ones(3) - 1).square().mean() + s
    >>> [found is s for found in learned_weights(loss)]
    [True]
    """
    found = trace(origin(loss)[0])
    weighing = _leaves(found.asides)
    if not weighing:
        return []
    used = _leaves(origin(head.residual)[0] for head in found.heads)
    return [tensor for key, tensor in weighing.items() if key not in used]


def set_aside(loss: Tensor) -> list[Tensor]:
    """Leaves on which the loss depends by themselves: in penalties, and in weights of its terms.

    >>> import torch
    >>> theta, k = (torch.tensor(2.0, requires_grad=True) for _ in range(2))
    >>> loss = (k * theta * torch.ones(3) - 1).square().mean() + k.square()
    >>> [found is k for found in set_aside(loss)]
    [True]
    """
    return list(_leaves(trace(origin(loss)[0]).asides).values())


def _leaves(roots: Iterable[Node]) -> dict[int, Tensor]:
    found = map(leaf, nodes_below(roots))
    return {id(tensor): tensor for tensor in found if tensor is not None}
