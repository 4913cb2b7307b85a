"""Costs of the terms, of all ranks, so that every rank sets the same weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from pinn_ntk.errors import warn as _give
from pinn_ntk.looks.step_terms import UNNAMED
from pinn_ntk.weights.rule import Costs

if TYPE_CHECKING:
    import pytorch_lightning as pl


def _warn(message: str) -> None:
    _give(f"NTKBalancer: {message}", stacklevel=3)


def from_all_ranks(
    trainer: pl.Trainer, local: Costs | None, warn: Callable[[str], None] = _warn
) -> Costs | None:
    """Sum over all ranks, which must all call it; None where one failed or names are unclear."""
    if trainer.world_size == 1:
        return local
    gathered: list[Costs | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, local)
    known = [costs for costs in gathered if costs is not None]
    if len(known) < len(gathered):
        return None
    unclear = ambiguous([{n for n, (_, rows) in costs.items() if rows} for costs in known])
    if unclear:
        warn(
            f"the ranks disagree on {', '.join(unclear)}, a name that a term gets by its place in "
            "the loss when it is not logged; costs of different terms would be added up, so the "
            "weights stay as they are. Log the terms on all ranks, or pass names=[...]."
        )
        return None
    return total(known)


def ambiguous(ranks: Iterable[Collection[str]]) -> list[str]:
    """Names of unlogged terms that are present on some ranks and absent on others.

    Such a term may go by a name of its own on another rank, where it was logged.

    Example:
        >>> ambiguous([["pde", "bc"], ["pde", "term_1"], ["pde"]])
        ['term_1']
        >>> ambiguous([["pde", "term_1"], ["pde", "term_1"], []])
        []
    """
    present = [set(names) for names in ranks if names]
    everywhere = set.intersection(*present) if present else set()
    partly = set().union(*present) - everywhere
    return sorted(name for name in partly if UNNAMED.fullmatch(name))


def total(ranks: Iterable[Mapping[str, tuple[float, int]]]) -> Costs:
    """Sum of costs and rows by term.

    Example:
        >>> total([{"pde": (2.0, 3)}, {"pde": (1.0, 3), "bc": (5.0, 1)}])
        {'pde': (3.0, 6), 'bc': (5.0, 1)}
    """
    result: Costs = {}
    for costs in ranks:
        for name, (cost, rows) in costs.items():
            before, rows_before = result.get(name, (0.0, 0))
            result[name] = (before + cost, rows_before + rows)
    return result


def largest_of_all_ranks(trainer: pl.Trainer, number: float) -> float:
    """The largest of a number over all ranks, which must all call it."""
    if trainer.world_size == 1:
        return number
    gathered: list[float] = [number] * trainer.world_size
    torch.distributed.all_gather_object(gathered, number)
    return max(gathered)
