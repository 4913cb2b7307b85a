"""A run: a problem with its settings, the planted mistake, and how it is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from tests.broken.pinn import Pinn

FAILS, WORKS = 0.2, 0.1
"""Relative error of the solution from which a run failed, and up to which it works."""

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": -1,
}
CHATTER = (".*does not have many workers.*", ".*training batches.*logging interval.*")


@dataclass
class Setup:
    """All that a training needs; `callbacks` makes those that belong to the run, a balancer say."""

    module: Pinn
    loader: DataLoader[Any]
    trainer: dict[str, Any]
    callbacks: Callable[[], list[pl.Callback]]
    seed: int

    def fit(self, *callbacks: pl.Callback, **trainer: Any) -> float:
        """Train, with callbacks of the caller, and give the error that is left."""
        options = QUIET | self.trainer | trainer
        torch.manual_seed(self.seed + 1)
        with warnings.catch_warnings():
            for message in CHATTER:
                warnings.filterwarnings("ignore", message)
            pl.Trainer(callbacks=[*self.callbacks(), *callbacks], **options).fit(
                self.module, self.loader
            )
        return self.module.error()


@dataclass(frozen=True)
class Run:
    """One case as data.

    `settings` are the arguments of the problem, with ``steps``, ``trainer`` (arguments of the
    Trainer) and ``callbacks``; `mistake` is what differs in the broken run: other arguments, or
    under ``problem`` another class. An empty `mistake` is a healthy run.
    """

    name: str
    cause: str
    half: Literal["set", "judge"]
    problem: type[Pinn]
    settings: Mapping[str, Any]
    mistake: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def build(self, seed: int = 0) -> Setup:
        """The run as its cause says: broken, stopped early, or healthy."""
        return set_up(self.problem, merged(self.settings, self.mistake), seed)

    def cured(self, seed: int = 0) -> Setup | None:
        """The twin without the mistake."""
        return set_up(self.problem, self.settings, seed) if self.mistake else None


def merged(settings: Mapping[str, Any], mistake: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the mistake in place; of the network's arguments only those that differ."""
    net = {**settings.get("net", {}), **mistake.get("net", {})}
    return {**settings, **mistake, "net": net}


def set_up(problem: type[Pinn], settings: Mapping[str, Any], seed: int) -> Setup:
    options = dict(settings)
    problem = options.pop("problem", problem)
    steps, trainer = options.pop("steps"), options.pop("trainer", {})
    callbacks = options.pop("callbacks", list)
    torch.manual_seed(seed)
    module = problem(**options)
    loader = module.loader(steps)
    return Setup(module, loader, {"max_steps": steps, **trainer}, callbacks, seed)
