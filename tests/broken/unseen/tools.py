"""What the runs of this package share: a loader of nothing, the error, a short form of `Run`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tests.broken.run import Run

Settings = Mapping[str, Any]


def ticks(steps: int) -> DataLoader[Any]:
    """Numbers that nobody reads."""
    return DataLoader(range(steps), batch_size=None)  # type: ignore[arg-type]


def relative(u: Tensor, truth: Tensor) -> float:
    """Relative error in the L2 norm; infinite where it is not finite."""
    error = float((u.detach().double() - truth.double()).norm() / truth.double().norm())
    return error if math.isfinite(error) else math.inf


def judged(
    name: str, cause: str, problem: Any, settings: Settings, mistake: Settings | None = None
) -> Run:
    return Run(f"unseen-{name}", cause, "set", problem, settings, mistake or {})


def line(low: float, high: float, n: int) -> Tensor:
    return torch.linspace(low, high, n).reshape(-1, 1)
