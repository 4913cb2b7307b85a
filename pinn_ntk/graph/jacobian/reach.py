"""How far one row of a residual reaches: how many rows can have slots of their own at all.

A row of a network with batch normalisation or attention depends on every point, one of a stencil on
a few. Where one row takes k of the n entries of a tensor, no more than n / k rows can be told apart
there, whichever these are, and sets of more rows need not be tried.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from pinn_ntk.graph.jacobian.climb import cotangents_at
from pinn_ntk.graph.jacobian.piece import Piece
from pinn_ntk.graph.jacobian.sizes import in_groups
from pinn_ntk.graph.walk import Edge

SLACK = 2
"""How much farther the row that is looked at may reach than the others."""


def most_apart(piece: Piece, shared: Collection[Edge], room: int) -> float:
    """Most rows that can be told apart at one of the tensors ``shared``, by the reach of one row.

    Takes one backward pass; ``room`` is for the cotangents it brings, in bytes.
    """
    counted = piece.counts().nonzero().squeeze(1)
    middle = counted[len(counted) // 2, None]
    most = 0.0
    for targets in in_groups(list(shared), room):
        found = cotangents_at(piece, middle, torch.ones(1, device=middle.device), set(targets))
        for target in targets:
            taken = int(found[target].count_nonzero()) if target in found else 0
            most = max(most, SLACK * target.shape.numel() / taken if taken else math.inf)
    return most
