"""What callbacks cannot work with, found before training starts, with the next step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch.optim import Optimizer

from pinn_ntk.callbacks.trainer.flavours import MisconfigurationException

if TYPE_CHECKING:
    import pytorch_lightning as pl

SHARDING = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}
"""Strategies that leave only a shard of each parameter on a rank."""


def at_least(owner: str, name: str, value: int, least: int) -> int:
    """The value of an integer argument, if it is large enough."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{owner}: {name} is {value!r}; expected an integer of at least {least}.")
    return value


def unsupported_strategy(trainer: pl.Trainer) -> str | None:
    """Why a rank's live graph does not hold the whole kernel under a strategy; None if it does."""
    strategy = trainer.strategy
    if SHARDING & {kind.__name__ for kind in type(strategy).__mro__}:
        return (
            f"{type(strategy).__name__} shards the parameters, but the kernel needs whole "
            "parameters on every rank; use Trainer(strategy='ddp') or a single device."
        )
    if getattr(strategy, "_ddp_kwargs", {}).get("static_graph"):
        return (
            "DDP with static_graph=True records one backward pass, and differentiating once more "
            "lets its ranks run apart; use DDPStrategy(static_graph=False)."
        )
    return None


def in_other_processes(trainer: pl.Trainer) -> str | None:
    """What it means that a strategy trains in processes which end with the fit; None if not so."""
    kinds = {kind.__name__ for kind in type(trainer.strategy.launcher).__mro__}
    if "_MultiProcessingLauncher" not in kinds:
        return None
    return (
        "this strategy trains in processes of its own (ddp_spawn, ddp_fork, ddp_notebook), and "
        "what this callback keeps (history, weights) stays there. Read its values in "
        "trainer.callback_metrics, in your logger or in a checkpoint; with strategy='ddp' or a "
        "single device the callback has them."
    )


def is_lbfgs(optimizer: Optimizer) -> bool:
    """Whether an optimizer is an L-BFGS, of torch or of another package that calls it so."""
    return any("lbfgs" in kind.__name__.lower() for kind in type(optimizer).__mro__)


def has_lbfgs(trainer: pl.Trainer) -> bool:
    """Whether an optimizer of a trainer is an L-BFGS."""
    return any(is_lbfgs(optimizer) for optimizer in trainer.optimizers)


def check_alone(balancers: Sequence[object]) -> None:
    """Refuse a second balancer."""
    if len(balancers) > 1:
        raise MisconfigurationException(
            "Two NTKBalancer callbacks would multiply their weights; keep one of them."
        )


BY_VALUE = (
    "the line search of L-BFGS compares values of the loss, which stays unweighted: the two would "
    "not belong together. Let the loss hold the weights: self.weights = pinn_ntk.LossWeights(["
    "'pde', 'bc']) in the module's __init__, and return self.weights({'pde': pde_loss, 'bc': "
    "bc_loss}) from training_step; NTKBalancer then updates them after each batch."
)
"""Why weights on gradients are not for optimizers that read the loss."""


def check_optimizers(trainer: pl.Trainer) -> None:
    """Refuse optimizers that read the loss, which a gradient hook leaves unweighted."""
    if has_lbfgs(trainer):
        raise MisconfigurationException(f"NTKBalancer weights gradients, but {BY_VALUE}")
