"""What is refused before training starts, with the reason and the next step."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

SHARDING = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}
"""Strategies that leave only a shard of each parameter on a rank."""


def at_least(owner: str, name: str, value: int, least: int) -> int:
    """Check an integer argument.

    Args:
        owner: Name of the callback, for the message.
        name: Name of the argument.
        value: What was given.
        least: Smallest value allowed.

    Returns:
        The value.

    Raises:
        ValueError: It is no integer, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{owner}: {name} is {value!r}; expected an integer of at least {least}.")
    return value


def check_strategy(owner: str, trainer: pl.Trainer) -> None:
    """Refuse strategies under which the live graph of a rank does not hold the whole kernel.

    Raises:
        MisconfigurationException: Parameters are sharded, or DDP records its graph once.
    """
    kinds = {kind.__name__ for kind in type(trainer.strategy).__mro__}
    if kinds & SHARDING:
        raise MisconfigurationException(
            f"{owner} needs whole parameters on every rank, but {type(trainer.strategy).__name__} "
            "shards them; use Trainer(strategy='ddp') or leave the callback out."
        )
    if getattr(trainer.strategy, "_ddp_kwargs", {}).get("static_graph"):
        raise MisconfigurationException(
            f"{owner} differentiates the loss once more, which lets the ranks of DDP with "
            "static_graph=True run apart; use DDPStrategy(static_graph=False)."
        )


def check_optimizers(trainer: pl.Trainer) -> None:
    """Refuse optimizers that read the loss, which a gradient hook leaves unweighted.

    Raises:
        MisconfigurationException: L-BFGS is among them.
    """
    if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in trainer.optimizers):
        raise MisconfigurationException(
            "NTKBalancer weights gradients, but the line search of L-BFGS compares values of the "
            "loss, which stays unweighted: the two would not belong together. Train with Adam or "
            "SGD under NTKBalancer first, then multiply the loss terms of the L-BFGS fit by the "
            "weights that NTKBalancer.weights holds, and leave the callback out there."
        )
