"""Optimizers by their step."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch


def adam(lr: float, **options: Any) -> Any:
    return partial(torch.optim.Adam, lr=lr, **options)


def sgd(lr: float, **options: Any) -> Any:
    return partial(torch.optim.SGD, lr=lr, **options)
