"""Cotangents that few points take part in, as of rows drawn from many: held without the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Thinned(NamedTuple):
    """A tensor that is zero but at some places along an axis."""

    values: Tensor  # as the tensor, with the places alone along that axis
    places: Tensor  # (K,)
    axis: int
    shape: torch.Size

    def full(self) -> Tensor:
        """The tensor."""
        zeros = self.values.new_zeros(self.shape)
        return zeros.index_copy_(self.axis, self.places, self.values)


Cotangent = Tensor | Thinned


def thinned(tensor: Tensor) -> Cotangent:
    """The same in less memory, where half of the places along the longest axis are zero at least.

    >>> thinned(torch.tensor([0.0, 2.0, 0.0, 0.0]))
    Thinned(values=tensor([2.]), places=tensor([1]), axis=0, shape=torch.Size([4]))
    """
    if tensor.numel() < 2:
        return tensor
    axis = max(range(tensor.ndim), key=tensor.shape.__getitem__)
    others = [k for k in range(tensor.ndim) if k != axis]
    taken = tensor.any(dim=others) if others else tensor != 0
    places = taken.nonzero().squeeze(1)
    if 2 * len(places) > tensor.shape[axis]:
        return tensor
    return Thinned(tensor.index_select(axis, places), places, axis, tensor.shape)


def full(cotangent: Cotangent) -> Tensor:
    """All of its places."""
    return cotangent.full() if isinstance(cotangent, Thinned) else cotangent


def alike(cotangents: Sequence[Cotangent]) -> list[Tensor]:
    """Tensors of one shape with the entries of several cotangents, zeros of all left out or not."""
    first = cotangents[0]
    few = [
        c.values
        for c in cotangents
        if isinstance(c, Thinned) and isinstance(first, Thinned)
        if c.axis == first.axis and torch.equal(c.places, first.places)
    ]
    return few if len(few) == len(cotangents) else [full(c) for c in cotangents]
