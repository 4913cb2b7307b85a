"""What stands in for the trainer in a copy of a module: plain values, and loggers that are deaf."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from pinn_ntk.looks.plain import is_plain

if TYPE_CHECKING:
    import pytorch_lightning as pl

VALUES = (
    "global_step", "current_epoch", "max_steps", "max_epochs", "min_steps", "min_epochs",
    "world_size", "global_rank", "local_rank", "node_rank", "num_nodes", "num_devices",
    "is_global_zero", "is_last_batch", "num_training_batches", "accumulate_grad_batches",
    "log_every_n_steps", "gradient_clip_val", "gradient_clip_algorithm", "precision",
    "default_root_dir", "training", "validating", "testing", "predicting", "evaluating",
    "sanity_checking", "fast_dev_run", "overfit_batches", "limit_train_batches",
)  # fmt: skip
"""Of the trainer, as they were when the batch began."""


class Silent:
    """Takes every call and does nothing, as a logger that nobody reads."""

    def __getattr__(self, name: str) -> Silent:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> Silent:
        return self

    def __deepcopy__(self, _: Any) -> Silent:
        return self


class StandIn:
    """A trainer that can be read and not used."""

    progress_bar_callback = None

    def __init__(self, trainer: pl.Trainer) -> None:
        known = {name: getattr(trainer, name, None) for name in VALUES}
        own = {name: v for name, v in vars(trainer).items() if not name.startswith("_")}
        plain = {name: value for name, value in (own | known).items() if is_plain(value)}
        vars(self).update(copy.deepcopy(plain))  # of subclasses, too, which steps may ask for
        self.loggers = [Silent() for _ in trainer.loggers]
        self.logger = self.loggers[0] if self.loggers else None
        self.callback_metrics: dict[str, Any] = {}
        self.lr_scheduler_configs = [_rates(c.scheduler) for c in trainer.lr_scheduler_configs]
        self.optimizers = list(map(Settings, trainer.optimizers))
        self.strategy = SimpleNamespace(_lightning_optimizers=self.optimizers)

    def state_dict(self) -> dict[str, Any]:
        """The values."""
        return {name: value for name, value in vars(self).items() if name in VALUES}

    def of_state(self, state: Mapping[str, Any]) -> StandIn:
        """The same with the values of a state."""
        other: StandIn = object.__new__(StandIn)
        vars(other).update({**vars(self), **state})
        return other

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"trainer.{name} is not there when a step is run again")

    def __deepcopy__(self, _: Any) -> StandIn:
        return self


def _rates(schedule: Any) -> SimpleNamespace:
    """The learning rates that a schedule has set last."""
    last = list(getattr(schedule, "_last_lr", []))
    return SimpleNamespace(scheduler=SimpleNamespace(get_last_lr=lambda: list(last)))


class ReachedError(BaseException):
    """A step that moves the parameters itself has come to where it does so."""

    def __init__(self, loss: Tensor | None = None) -> None:
        super().__init__("no optimizer moves when a step is run again")
        self.loss = loss


class Settings(Optimizer):
    """The settings of an optimizer, without what it trains."""

    def __init__(self, optimizer: Optimizer) -> None:
        groups = optimizer.param_groups
        self.param_groups = [{k: v for k, v in g.items() if k != "params"} for g in groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """There is nothing to be zeroed."""

    def step(self, closure: Any = None) -> Any:
        """None is taken; a closure is called, which may come to a backward pass."""
        if closure is not None:
            return closure()
        raise ReachedError
