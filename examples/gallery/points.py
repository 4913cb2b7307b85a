"""Points to train on and to test on: samplers of a box, and batches drawn anew at each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from pytorch_lightning import LightningDataModule
from torch import Generator, Tensor
from torch.utils.data import DataLoader

Batch = dict[str, Tensor]
"""Points (N, n_in) by the part of the problem that they are for."""


@dataclass(frozen=True)
class Box:
    """A box with the corners ``low`` and ``high``, such as ``Box((0.0, -1.0), (1.0, 1.0))``."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def mean(self) -> list[float]:
        """Mean of points uniform in the box, a number for each input."""
        return [(low + high) / 2 for low, high in zip(self.low, self.high, strict=True)]

    @property
    def std(self) -> list[float]:
        """Their standard deviation."""
        return [(high - low) / math.sqrt(12) for low, high in zip(self.low, self.high, strict=True)]

    def inside(self, count: int, generator: Generator) -> Tensor:
        """Points uniform in the box, (count, n_in)."""
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        return low + (high - low) * torch.rand(count, len(low), generator=generator)

    def side(self, count: int, axis: int, value: float, generator: Generator) -> Tensor:
        """Points uniform on the side where the input ``axis`` has this value, (count, n_in)."""
        points = self.inside(count, generator)
        points[:, axis] = value
        return points

    def boundary(self, count: int, generator: Generator, axes: Sequence[int]) -> Tensor:
        """Points uniform on both sides along each of ``axes``, in turns, (count, n_in)."""
        sides = [(axis, end[axis]) for axis in axes for end in (self.low, self.high)]
        if count < len(sides):
            raise ValueError(f"{count} boundary points; expected one a side, {len(sides)} or more.")
        points = self.inside(count, generator)
        for number, (axis, value) in enumerate(sides):
            points[number :: len(sides), axis] = value
        return points

    def grid(self, count: int) -> Tensor:
        """A grid with its ends, ``count`` points an axis, the last input fastest."""
        axes = [torch.linspace(*ends, count) for ends in zip(self.low, self.high, strict=True)]
        return torch.cartesian_prod(*axes).view(-1, len(axes))  # (count^n_in, n_in)


class Draws:
    """Batches of points, drawn anew at each step: a loader that goes on where a checkpoint was.

    Batch i is drawn with a seed of its own, so it is the same in every run and after a restart.
    """

    def __init__(self, points: Points, steps: int) -> None:
        self.points, self.steps, self.done = points, steps, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        while self.done < self.steps:
            self.done += 1
            yield self.points.draw(self.done)
        self.done = 0

    def state_dict(self) -> dict[str, int]:
        """How many batches were handed out."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind them."""
        self.done = state["done"]


class Points(LightningDataModule):
    """Points to train on, and those of ``test``, on which the error is taken.

    A problem sets ``test``, (N, n_in), ``seed`` and ``steps``, and says in ``draw`` what is in a
    batch. With other than new points at each step it has its own ``train_dataloader`` instead.
    """

    test: Tensor
    seed: int = 0
    steps: int  # batches of an epoch, of which there is one; the command line sets it

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number."""
        raise NotImplementedError

    def generator(self, number: int) -> Generator:
        """The random numbers of the batch of this number."""
        return torch.Generator().manual_seed(1_000_003 * self.seed + number)

    def train_dataloader(self) -> Draws | DataLoader[Batch]:
        """A single epoch of ``steps`` batches: each start of one costs time."""
        return Draws(self, self.steps)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """All test points in one batch."""
        return DataLoader([self.test], batch_size=None)


class BoxPoints(Points):
    """Points of a box, drawn anew at each step.

    Args:
        box: Where they lie.
        n_test: Points an axis of the grid on which the error is taken.
        seed: Seed of the points.
        steps: Number of batches; the command line sets it to ``trainer.max_steps``.
    """

    def __init__(self, box: Box, n_test: int = 100, seed: int = 0, steps: int = 1000) -> None:
        super().__init__()
        self.seed, self.steps = seed, steps
        self.test = box.grid(n_test)  # (n_test^n_in, n_in)
