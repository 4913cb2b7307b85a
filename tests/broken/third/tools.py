"""Small things that the scripts share: a loader of step numbers, the relative error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

NO_NET: Mapping[str, Any] = MappingProxyType({})


def counter(steps: int) -> DataLoader[Any]:
    """One number for each step."""
    return DataLoader(range(steps), batch_size=None)


def rel_l2(pred: Tensor, true: Tensor) -> float:
    err = float((pred.double() - true.double()).norm() / true.double().norm())
    return err if math.isfinite(err) else math.inf


def diff(y: Tensor, x: Tensor, order: int = 1) -> Tensor:
    """Repeated derivative of one column by one column."""
    for _ in range(order):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y
