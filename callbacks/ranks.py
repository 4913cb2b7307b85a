"""Traces of all ranks, so that every rank sets the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import pytorch_lightning as pl

Traces = dict[str, tuple[float, int]]
"""Term -> trace of its block, number of its rows."""


def from_all_ranks(trainer: pl.Trainer, local: Traces | None) -> Traces | None:
    """Sum of the traces and rows of all ranks; every rank must call it at the same step.

    Args:
        trainer: The trainer of this rank.
        local: Traces of this rank, None where its measurement failed.

    Returns:
        The same on all ranks: the sums, or None where any measurement failed.
    """
    if trainer.world_size == 1:
        return local
    gathered: list[Traces | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, local)
    known = [traces for traces in gathered if traces is not None]
    return total(known) if len(known) == len(gathered) else None


def total(ranks: Iterable[Mapping[str, tuple[float, int]]]) -> Traces:
    """Sum of traces and rows by term.

    Args:
        ranks: Traces of each rank; a term may be absent on some.

    Returns:
        Term -> sum of its traces, sum of its rows.

    Example:
        >>> total([{"pde": (2.0, 3)}, {"pde": (1.0, 3), "bc": (5.0, 1)}])
        {'pde': (3.0, 6), 'bc': (5.0, 1)}
    """
    result: Traces = {}
    for traces in ranks:
        for name, (trace, rows) in traces.items():
            before, rows_before = result.get(name, (0.0, 0))
            result[name] = (before + trace, rows_before + rows)
    return result
