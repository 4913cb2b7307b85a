"""Which optimizers and strategies callbacks cannot work with; see test_routes.py for a fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from torch import nn

from pinn_ntk.callbacks.base import MisconfigurationException
from pinn_ntk.callbacks.checks import check_optimizers, has_lbfgs, unsupported_strategy


class FullBatchLBFGS(torch.optim.Optimizer):
    """What a package of line searches calls its own."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


class MyLBFGS(torch.optim.LBFGS):
    pass


class Lookalike(torch.optim.SGD):
    pass


def run_with(*kinds: type[torch.optim.Optimizer]) -> pl.Trainer:
    optimizers = [kind(nn.Linear(1, 1).parameters()) for kind in kinds]
    return cast("pl.Trainer", SimpleNamespace(optimizers=optimizers))


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ([], False),
        ([torch.optim.Adam, Lookalike], False),
        ([torch.optim.LBFGS], True),
        ([torch.optim.Adam, MyLBFGS], True),
        ([FullBatchLBFGS], True),
    ],
)
def test_lbfgs_is_recognised_and_refused(kinds: list[type[torch.optim.Optimizer]], found: bool):
    trainer = run_with(*kinds)
    assert has_lbfgs(trainer) is found
    if not found:
        check_optimizers(trainer)
        return
    with pytest.raises(MisconfigurationException, match=r"pinn_ntk\.LossWeights\(\['pde', 'bc'\]"):
        check_optimizers(trainer)


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy])
def test_sharding_strategies_and_their_subclasses_have_a_reason(kind: type[Strategy]):
    for strategy in (kind, type("Derived", (kind,), {})):
        made = strategy.__new__(strategy)  # to make one in earnest takes a GPU
        reason = unsupported_strategy(cast("pl.Trainer", SimpleNamespace(strategy=made)))
        assert reason is not None
        assert reason.startswith(f"{strategy.__name__} shards the parameters")
        assert "Trainer(strategy='ddp')" in reason


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (SingleDeviceStrategy(), None),
        (DDPStrategy(), None),
        (DDPStrategy(static_graph=False), None),
        (DDPStrategy(static_graph=True), "use DDPStrategy(static_graph=False)."),
    ],
)
def test_other_strategies(strategy: Strategy, reason: str | None):
    said = unsupported_strategy(cast("pl.Trainer", SimpleNamespace(strategy=strategy)))
    assert said is None if reason is None else said.endswith(reason)
