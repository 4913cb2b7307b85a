"""What is kept of every step of a training: its loss, and how far the optimizer went.

| symbol | meaning |
| --- | --- |
| g | gradient of the loss before clipping, (P,) |
| s | step of the parameters, (P,) |
| lr_eff | -(s . g) / |g|^2, the learning rate of plain descent that goes as far along g |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

BINS = 200
"""Bins of equal width into which the losses of all steps are put, at most."""

HELD = 64
"""Losses that are held on their device before they are read."""

TINY = 1e-300


class Progress:
    """Losses of all steps in bins, and what every so many steps were worth.

    Example:
        >>> progress = Progress()
        >>> for loss in (1.0, 0.1, 0.01, 0.001):
        ...     progress.loss(torch.tensor(loss))
        >>> progress.steps, progress.fallen(0.5)
        (4, 2.0)
    """

    def __init__(self) -> None:
        self.width = 1  # steps a bin
        self.bins: list[list[float]] = []  # n, sum log10, sum d^2, rises; d of steps one by one
        self.travelled = 0.0  # sum of lr_eff over all steps
        self.scheduled = 0.0  # sum of the learning rates over all steps
        self.first = self.last = math.nan  # log10 of the loss
        self.not_finite: int | None = None  # first step whose loss was not
        self._held: list[Tensor] = []
        self._begun: tuple[list[Tensor], list[Tensor], float] | None = None

    @property
    def steps(self) -> int:
        """Steps seen."""
        self._read()
        return int(sum(b[0] for b in self.bins))

    def loss(self, loss: Tensor) -> None:
        """The loss of a step."""
        self._held.append(loss.detach())
        if len(self._held) >= HELD:
            self._read()

    def _read(self) -> None:
        held, self._held = self._held, []
        if held:
            for value in torch.stack([one.double().reshape(()) for one in held]).tolist():
                self._add(value)

    def _add(self, value: float) -> None:
        if not math.isfinite(value):
            if self.not_finite is None:
                self.not_finite = int(sum(b[0] for b in self.bins))
            value = math.inf
        log = math.log10(max(abs(value), TINY)) if math.isfinite(value) else self.last
        change = 0.0 if math.isnan(self.last) else log - self.last
        self.first = log if math.isnan(self.first) else self.first
        self.last = log
        if not self.bins or self.bins[-1][0] >= self.width:
            self.bins.append([0, 0.0, 0.0, 0.0])
        now = self.bins[-1]
        now[0] += 1
        now[1] += log
        now[2] += change**2
        now[3] += change > 0
        if len(self.bins) > BINS and self.bins[-1][0] == self.width:
            self._widen()

    def _widen(self) -> None:
        pairs = [self.bins[i : i + 2] for i in range(0, len(self.bins), 2)]
        self.bins = [[sum(parts) for parts in zip(*pair, strict=True)] for pair in pairs]
        self.width *= 2

    def _window(self, share: float) -> Sequence[list[float]]:
        """The last bins that hold such a share of all steps."""
        self._read()
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
        window = self._window(share)
        return sum(b[3] for b in window) / max(1.0, sum(b[0] for b in window))

    def jitter(self, share: float) -> float:
        """Root mean square change of log10 loss from step to step, over the last ones."""
        window = self._window(share)
        return math.sqrt(sum(b[2] for b in window) / max(1.0, sum(b[0] for b in window)))

    def wants_step(self) -> bool:
        """Whether the step that begins is one to look at, see `step_begins`."""
        seen = int(sum(b[0] for b in self.bins)) + len(self._held)
        return seen < 16 or seen % max(8, self.width) == 0

    def step_begins(self, params: Mapping[str, Tensor], lr: float | None) -> None:
        """The gradients are there, and the optimizer has not moved."""
        raise NotImplementedError

    def step_ends(self, params: Mapping[str, Tensor]) -> None:
        """The optimizer has moved."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError
