"""How far the kernel and the parameters have moved since the first measurement.

||K(n) - K(0)||_F / ||K(0)||_F and ||theta(n) - theta(0)|| / ||theta(0)||: Wang, Yu, Perdikaris
2022, section 7.1 and Fig. 2. Near zero, training follows the linear theory of the first kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def relative_change(now: Tensor, start: Tensor) -> float:
    """||now - start|| / ||start|| over all entries, in float64; NaN where ``start`` is zero."""
    if now.shape != start.shape:
        raise ValueError(
            f"expected two tensors of one shape, got {tuple(now.shape)} and {tuple(start.shape)}; "
            "drift is only defined on the same points."
        )
    return change_of_parts([(now, start, 1.0)])


def change_of_parts(parts: Iterable[tuple[Tensor, Tensor, float]]) -> float:
    """The same over several tensors together: now, start and how often each counts."""
    change = size = 0.0
    for now, start, times in parts:
        root = math.sqrt(times)
        moved = (now.double() - start).detach().double()
        change = math.hypot(change, root * float(moved.norm()))
        size = math.hypot(size, root * float(start.detach().double().norm()))
    return change / size if size else math.nan


class Drift:
    """Drift of named tensors, each relative to the first value seen under its name.

    Example:
        >>> drift = Drift()
        >>> drift.update({"pde": torch.tensor([3.0, 4.0])})
        {'pde': 0.0}
        >>> drift.update({"pde": torch.tensor([3.0, 5.0])})
        {'pde': 0.2}
    """

    def __init__(self) -> None:
        self.start: dict[str, Tensor] = {}

    def update(self, tensors: Mapping[str, Tensor]) -> dict[str, float]:
        """Drift of each tensor; one seen for the first time, or with another shape, starts at 0."""
        result = {}
        for name, tensor in tensors.items():
            if name not in self.start or self.start[name].shape != tensor.shape:
                self.start[name] = tensor.detach().clone()
            result[name] = relative_change(tensor, self.start[name])
        return result


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """All entries of the tensors in one vector, float64, detached."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors.values()])
