"""What a rule is: how the result of one operation is cut into slots, and what each contributes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.jacobian.placed import Made, Placed
from pinn_ntk.kernel.factors import Dense, Outer


@dataclass(frozen=True)
class SiteRule:
    """What one operation does with one shared operand.

    ``arrange`` brings an output-shaped tensor into slots, (M, f). ``contribute`` turns an arranged
    cotangent into gradients of the operand, a slot each: `Outer` with one (M, m) and one (M, n),
    `Placed`, `Made`, or `Dense` (M, numel).
    """

    arrange: Callable[[Tensor], Tensor]
    contribute: Callable[[Tensor], Outer | Placed | Made | Dense]


RuleMaker: TypeAlias = Callable[[Node, int, torch.Size], SiteRule | list[SiteRule] | None]
"""Node, position and shape of a shared operand -> the rules that fit, larger slots first."""


def operand(saved: Tensor | None) -> Tensor:
    """A saved operand without its graph."""
    if saved is None:
        raise RuntimeError("torch did not save the other operand of a trained one")
    return saved.detach()


def chosen(numbers: Tensor, count: int, right: Tensor) -> Placed:
    """Each slot takes one of ``count`` rows of the operand, and has that gradient there."""
    ones = torch.ones(len(right), 1, dtype=right.dtype, device=right.device)
    return Placed(numbers.reshape(-1).to(right.device), count, ones, right)
