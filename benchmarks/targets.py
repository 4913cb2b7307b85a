"""Bounds that the figures of `benchmarks.kernel` are held against, and its contestants by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Record, extra_in_units, ratio

STEP, BACKWARD = "training step", "backward pass"
FULL, SCRATCH = "full kernel", "full kernel from scratch"
TORCH_FUNC, LEAN, ROWS = "torch.func", "torch.func, lean", "rows in batches"

Records = Mapping[str, Record]


@dataclass(frozen=True)
class Target:
    """A bound that a figure is held against."""

    text: str
    value: Callable[[Records], float]  # KeyError where a contestant did not run
    bound: float
    at_most: bool = True  # else at least
    size: tuple[int, int] = (500, 256)  # width and points for which it is meant
    dtypes: tuple[str, ...] = ("float32", "float64")

    def judged(self, records: Records) -> dict[str, Any]:
        """The target, its figure and whether it is met; both None where nothing was run."""
        stated = {"text": self.text, "bound": self.bound, "at_most": self.at_most}
        try:
            value = self.value(records)
        except KeyError:
            return {**stated, "value": None, "met": None}
        met = value <= self.bound if self.at_most else value >= self.bound
        return {**stated, "value": value, "met": met}


def _steps(name: str) -> Callable[[Records], float]:
    return lambda records: ratio(records[name].wall_s, records[STEP].wall_s)


def _memory(more: str) -> Callable[[Records], float]:
    return lambda records: records[more].peak_bytes / records[FULL].peak_bytes


def _faster(records: Records) -> float:
    """How many times less a full kernel takes than the faster of both torch.func forms."""
    return min(ratio(records[peer].wall_s, records[FULL].wall_s) for peer in (TORCH_FUNC, LEAN))


def _certificate(records: Records) -> float:
    times = (records[name].wall_s for name in ("factors, certified", "factors", BACKWARD))
    return extra_in_units(*times)


def _large(name: str, seconds: float, megabytes: float) -> tuple[Target, Target]:
    options: dict[str, Any] = {"size": (512, 512), "dtypes": ("float64",)}
    return (
        Target(f"{name}, seconds", lambda records: records[name].median_s, seconds, **options),
        Target(f"{name}, MB", lambda records: records[name].peak_bytes / 1e6, megabytes, **options),
    )


TARGETS = (
    Target("factors and trace, training steps", _steps("factors, trace"), 0.6),
    Target("full kernel, training steps", _steps(FULL), 2.5),
    Target("torch.func (faster form) / full kernel, time", _faster, 20, at_most=False),
    Target("torch.func / full kernel, memory", _memory(TORCH_FUNC), 20, at_most=False),
    Target("torch.func, lean / full kernel, memory", _memory(LEAN), 20, at_most=False),
    Target("certificate, backward passes", _certificate, 1.0),
    *_large(FULL, 0.65, 200),
    *_large(SCRATCH, 0.65, 200),
)
