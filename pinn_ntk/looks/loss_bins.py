"""The loss over all steps of a training, in bins of equal width, as many as fit into little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

BINS = 200
"""Bins into which the losses of all steps are put, at most."""

TINY = 1e-300


class LossBins:
    """Mean of log10 loss, its changes from step to step, and how often it rose, bin by bin.

    Example:
        >>> losses = LossBins()
        >>> for loss in (1.0, 0.1, 0.01, 0.001):
        ...     losses.add(loss)
        >>> losses.fallen(0.5), losses.rising(1.0), losses.first, losses.last
        (2.0, 0.0, 0.0, -3.0)
    """

    def __init__(self) -> None:
        self.width = 1  # steps a bin
        self.bins: list[list[float]] = []  # n, sum log10, sum d^2, rises; d from step to step
        self.first = self.last = math.nan  # log10 of the loss
        self.not_finite: int | None = None  # first step whose loss was not
        self._seen = 0

    def add(self, loss: float | None) -> None:
        """The loss of the next step; None where it is not known."""
        finite = loss is not None and math.isfinite(loss)
        if loss is not None and not finite and self.not_finite is None:
            self.not_finite = self._seen
        self._seen += 1
        if loss is not None and finite:
            self._put(math.log10(max(abs(loss), TINY)))

    def _put(self, log: float) -> None:
        change = 0.0 if math.isnan(self.last) else log - self.last
        self.first = log if math.isnan(self.first) else self.first
        self.last = log
        if not self.bins or self.bins[-1][0] >= self.width:
            self.bins.append([0, 0.0, 0.0, 0.0])
        now = self.bins[-1]
        for i, more in enumerate((1, log, change**2, change > 0)):
            now[i] += more
        if len(self.bins) > BINS:
            self._widen()

    def _widen(self) -> None:
        pairs = [self.bins[i : i + 2] for i in range(0, len(self.bins), 2)]
        self.bins = [[sum(parts) for parts in zip(*pair, strict=True)] for pair in pairs]
        self.width *= 2

    def _window(self, share: float) -> Sequence[list[float]]:
        """The last bins that hold such a share of all steps."""
        wanted, found = share * sum(b[0] for b in self.bins), 0.0
        for count in range(1, len(self.bins) + 1):
            found += self.bins[-count][0]
            if found >= wanted:
                return self.bins[-count:]
        return self.bins

    def fallen(self, share: float) -> float:
        """Decades by which the loss fell over the last ``share`` of the steps, on average."""
        window = self._window(share)
        if len(window) < 2:
            return math.nan
        half = len(window) // 2
        before, after = window[:half], window[len(window) - half :]
        mean = [sum(b[1] for b in part) / sum(b[0] for b in part) for part in (before, after)]
        distance = (len(window) - half) / len(window)
        return (mean[0] - mean[1]) / distance

    def rising(self, share: float) -> float:
        """Share of the steps, of the last ones, at which the loss rose."""
        return self._mean(share, 3)

    def jitter(self, share: float) -> float:
        """Root mean square change of log10 loss from step to step, over the last ones."""
        return math.sqrt(self._mean(share, 2))

    def _mean(self, share: float, column: int) -> float:
        window = self._window(share)
        return sum(b[column] for b in window) / max(1.0, sum(b[0] for b in window))

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        ends = {"first": self.first, "last": self.last, "not_finite": self.not_finite}
        bins = [list(one) for one in self.bins]
        return {"width": self.width, "bins": bins, **ends, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.width, self._seen = int(state["width"]), int(state["seen"])
        self.bins = [list(one) for one in state["bins"]]
        self.first, self.last = float(state["first"]), float(state["last"])
        self.not_finite = state["not_finite"]
