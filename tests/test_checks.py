"""What callbacks cannot work with: optimizers, strategies, traces of ranks; weights in the loss.

See test_residual_function.py and test_balancer.py for fits.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from pytorch_lightning.strategies.launchers import (
    _MultiProcessingLauncher,
    _SubprocessScriptLauncher,
)
from torch import nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

from pinn_ntk import LossWeights
from pinn_ntk.callbacks.trainer.checks import (
    check_optimizers,
    has_lbfgs,
    in_other_processes,
    unsupported_strategy,
)
from pinn_ntk.callbacks.trainer.flavours import MisconfigurationException
from pinn_ntk.callbacks.weighting.distributed import from_all_ranks
from pinn_ntk.callbacks.weighting.weights_in_loss import WeightsInLoss
from pinn_ntk.errors import NTKWarning


class FullBatchLBFGS(Optimizer):
    """What a package of line searches calls its own: it relies on a state filled at the start."""

    def __init__(self, params: Any, lr: float = 1.0) -> None:
        super().__init__(params, {"lr": lr})
        self.state["all"].update(lr=lr, steps=0, directions=[])

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        state = self.state["all"]
        state["steps"] += 1
        state["directions"].append(state["lr"])


MyLBFGS = type("MyLBFGS", (LBFGS,), {})
Lookalike = type("Lookalike", (SGD,), {})


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ([], False),
        ([Adam, Lookalike], False),
        ([LBFGS], True),
        ([Adam, MyLBFGS], True),
        ([FullBatchLBFGS], True),
    ],
)
def test_lbfgs_is_recognised_and_refused(kinds: list[type[Optimizer]], found: bool):
    trainer = SimpleNamespace(optimizers=[kind(nn.Linear(1, 1).parameters()) for kind in kinds])
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
        reason = unsupported_strategy(SimpleNamespace(strategy=made))
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
    said = unsupported_strategy(SimpleNamespace(strategy=strategy))
    assert said is None if reason is None else said.endswith(reason)


@pytest.mark.parametrize(
    ("start_method", "apart"), [("popen", False), ("spawn", True), ("fork", True)]
)
def test_strategies_whose_processes_end_with_the_fit(start_method: Any, apart: bool):
    launchers = {"popen": _SubprocessScriptLauncher, "spawn": _MultiProcessingLauncher}
    launcher = launchers.get(start_method, _MultiProcessingLauncher)
    for kind in (launcher, type("Derived", (launcher,), {})):
        strategy = SimpleNamespace(launcher=kind.__new__(kind))
        said = in_other_processes(SimpleNamespace(strategy=strategy))
        assert (said is not None) is apart
    assert in_other_processes(SimpleNamespace(strategy=SingleDeviceStrategy())) is None


# --- Weights in the loss


def test_every_lbfgs_forgets_the_loss_of_the_old_weights_and_no_other_optimizer_does():
    weight = nn.Parameter(torch.ones(2))

    def closure() -> torch.Tensor:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = (weight**4).sum()
        loss.backward()
        return loss

    packaged = FullBatchLBFGS([weight], lr=0.5)
    optimizers = [LBFGS([weight]), Adam([weight]), packaged]
    for optimizer in optimizers:
        optimizer.step(closure)
    written = WeightsInLoss(LossWeights(["pde", "bc"]))
    trainer = SimpleNamespace(optimizers=optimizers)
    written.write(trainer)  # nothing is new
    assert all(optimizer.state for optimizer in optimizers)
    assert packaged.state["all"]["steps"] == 1
    written.prepare({"bc": 3.0})
    written.write(trainer)
    assert written.as_dict() == {"pde": 1.0, "bc": 3.0}
    assert not optimizers[0].state
    assert optimizers[1].state
    assert packaged.state == {"all": {"lr": 0.5, "steps": 0, "directions": []}}
    for optimizer in optimizers:
        optimizer.step(closure)
    assert packaged.state["all"]["steps"] == 1


def test_weights_that_cannot_be_written_are_tried_once():
    written = WeightsInLoss(LossWeights(["pde", "bc"]).half())
    trainer = SimpleNamespace(optimizers=[])
    written.prepare({"pde": 2.0, "bc": 1e6})
    with pytest.raises(ValueError, match=r"'bc' is 1000000\.0, inf in torch\.float16"):
        written.write(trainer)
    written.write(trainer)
    assert written.as_dict() == {"pde": 1.0, "bc": 1.0}
    written.prepare({"pde": 4.0})
    written.write(trainer)
    assert written.as_dict() == {"pde": 4.0, "bc": 1.0}


# --- Traces of ranks

NAMED = {"pde": (2.0, 3), "bc": (5.0, 1)}
UNNAMED = {"term_0": (1.0, 4), "bc": (5.0, 1)}


def gathered(monkeypatch: pytest.MonkeyPatch, ranks: list[Any], *warn: Any) -> list[Any]:
    """What each rank makes of the traces of all."""

    def gather(result: list[Any], local: Any) -> None:
        assert local in ranks
        result[:] = ranks

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    trainer = SimpleNamespace(world_size=len(ranks))
    return [from_all_ranks(trainer, rank, *warn) for rank in ranks]


@pytest.mark.parametrize(
    ("ranks", "unclear"),
    [
        ([NAMED, UNNAMED], "term_0"),
        ([UNNAMED, NAMED, NAMED], "term_0"),
        ([UNNAMED, {"bc": (5.0, 1)}], "term_0"),
        ([UNNAMED, {"term_10": (1.0, 4), "bc": (5.0, 1)}], "term_0, term_10"),
    ],
)
def test_terms_that_only_some_ranks_have_named_are_not_added_up(
    ranks: list[Any], unclear: str, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    assert gathered(monkeypatch, ranks, told.append) == [None] * len(ranks)
    assert len(told) == len(ranks)
    assert set(told) == {told[0]}
    assert told[0].startswith(f"the ranks disagree on {unclear}, a name")
    assert "Log the terms on all ranks, or pass names=[...]" in told[0]
    with pytest.warns(NTKWarning, match=f"^NTKBalancer: the ranks disagree on {unclear}, "):
        gathered(monkeypatch, ranks)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([NAMED, {"pde": (1.0, 3)}], {"pde": (3.0, 6), "bc": (5.0, 1)}),
        ([UNNAMED, UNNAMED], {"term_0": (2.0, 8), "bc": (10.0, 2)}),
        ([UNNAMED, {}], UNNAMED),  # nothing to mix up
        ([{"a_term_1": (1.0, 1)}, {"bc": (2.0, 1)}], {"a_term_1": (1.0, 1), "bc": (2.0, 1)}),
        ([{}, {}], {}),
        ([NAMED, UNNAMED, None], None),
    ],
)
def test_other_traces_are_added_up_by_name(
    ranks: list[Any], expected: Any, monkeypatch: pytest.MonkeyPatch
):
    assert gathered(monkeypatch, ranks) == [expected] * len(ranks)
