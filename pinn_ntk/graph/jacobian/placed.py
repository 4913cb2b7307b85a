"""Gradients by one block of a weight each: one code of many, one network of a stack.

| symbol | meaning | shape |
| --- | --- | --- |
| M, R | slots of a site, rows of the residual | |
| W | a weight of ``count`` blocks below one another | (count m, n) |
| block | which of them slot k takes; the others are zero | (M,) |
| left, right | left[k] right[k]^T is its gradient by that one | (M, m), (M, n) |

The zeros are many times the rest, so they are put in for rows of the residual, not for slots. So
are gradients that are many times what the operation gives, as of filters: `Made`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Outer

_COPIES = 2  # of factors while sites are added up, against written-out rows


@dataclass(frozen=True)
class Placed:
    """Gradients of one weight, a block of it a slot; symbols as above."""

    block: Tensor
    count: int
    left: Tensor
    right: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(count m, n)."""
        return self.count * self.left.shape[1], self.right.shape[1]

    @property
    def device(self) -> torch.device:
        """That of the gradients."""
        return self.right.device

    def slice(self, slots: Tensor) -> Placed:
        """Some slots only."""
        return replace(
            self, block=self.block[slots], left=self.left[slots], right=self.right[slots]
        )

    def rows(self) -> Tensor:
        """Gradients written out, a slot each, (M, count m n)."""
        slots = torch.arange(len(self.block), device=self.block.device)[None]
        return self._sum(slots, slots >= 0)

    def by_row(self, slots: Tensor, filled: Tensor) -> Outer | Dense:
        """Gradients of R rows: each the sum of some ``slots`` (S, R), where ``filled``."""
        if _COPIES * len(slots) * sum(self.shape) < math.prod(self.shape):
            lefts = tuple(self._spread(s, f) for s, f in zip(slots, filled, strict=True))
            return Outer(lefts, tuple(self.right[slots]))
        return Dense(self._sum(slots, filled))

    def _spread(self, slots: Tensor, filled: Tensor) -> Tensor:
        """Left factors with the zeros of all other blocks, (R, count m)."""
        out = self.left.new_zeros(len(slots), self.count, self.left.shape[1])
        rows = torch.arange(len(slots), device=out.device)
        out[rows, self.block[slots]] = torch.where(filled[:, None], self.left[slots], 0)
        return out.flatten(1)

    def _sum(self, slots: Tensor, filled: Tensor) -> Tensor:
        m, n = self.left.shape[1], self.right.shape[1]
        rows = torch.arange(slots.shape[1], device=self.right.device)
        out = self.right.new_zeros(len(rows), self.count, m, n)
        for some, live in zip(slots, filled, strict=True):
            left = torch.where(live[:, None], self.left[some], 0)
            out[rows, self.block[some]] += left[:, :, None] * self.right[some][:, None, :]
        return out.flatten(1)


@dataclass(frozen=True)
class Made:
    """Gradients that are written out when they are asked for: slots (k,) -> (k, numel)."""

    count: int
    make: Callable[[Tensor], Tensor]
    device: torch.device

    def slice(self, slots: Tensor) -> Made:
        """Some slots only."""
        kept = torch.arange(self.count, device=self.device)[slots]
        return replace(self, count=len(kept), make=lambda some: self.make(kept[some]))

    def rows(self) -> Tensor:
        """Gradients written out, a slot each, (M, numel)."""
        return self.make(torch.arange(self.count, device=self.device))

    def by_row(self, slots: Tensor, filled: Tensor) -> Dense:
        """As `Placed.by_row`."""
        pairs = zip(slots, filled, strict=True)
        parts = (torch.where(live[:, None], self.make(some), 0) for some, live in pairs)
        total = next(parts)
        for part in parts:
            total += part
        return Dense(total)
