"""What residuals depend on besides points and parameters: which changes its digest tells."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pinn_ntk import LossWeights
from pinn_ntk.callbacks.step.step_inputs import StepInputs
from pinn_ntk.looks.digest import RandomStates, digest

CPU = torch.device("cpu")


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.net[2].requires_grad_(False)
        self.weights = LossWeights(["pde"])
        self.lazy = nn.LazyLinear(2)
        self.register_buffer("scale", torch.ones(2, dtype=torch.complex64).conj())
        self.register_buffer("sparse", torch.eye(2).to_sparse(), persistent=False)

    def setting(self, batch: Any, *, of_batch: bool = True) -> str:
        named = self.named_parameters()
        trained = {n: p for n, p in named if p.requires_grad and "lazy" not in n}
        return StepInputs(self, batch).setting(self, trained, batch=of_batch)


def scaled(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.mul_(2)


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        (lambda m, b: scaled(m.scale), True),
        (lambda m, b: scaled(m.sparse), True),
        (lambda m, b: scaled(m.net[2].weight), True),
        (lambda m, b: scaled(b["x"]), True),
        (lambda m, b: b["more"][0].fill(3.0), True),
        (lambda m, b: b.update(number=10**400), True),
        (lambda m, b: b.update(flag=False), True),
        (lambda m, b: m.net[0].requires_grad_(False), True),  # frozen from then on
        (lambda m, b: scaled(m.net[0].weight), False),
        (lambda m, b: m.net[1].running_mean.add_(1), False),
        (lambda m, b: m.weights.update({"pde": 7.0}), False),
        (lambda m, b: b.update(name="other"), False),
        (lambda m, b: None, False),
    ],
)
def test_which_changes_are_told(change: Callable[[Any, Any], None], tells: bool):
    module = Module()
    batch = {"x": torch.ones(2, 1), "more": [np.zeros(3)], "number": 1, "flag": True, "name": "a"}
    before = module.setting(batch)
    change(module, batch)
    assert (module.setting(batch) != before) == tells


def test_on_a_probe_the_batch_does_not_count():
    module = Module()
    found = {module.setting(torch.full((2,), x), of_batch=False) for x in (1.0, 2.0)}
    assert found == {module.setting(None)}


DRAWS: list[Callable[[], Any]] = [
    lambda: torch.rand(1),
    np.random.rand,
    random.random,
    lambda: torch.nn.functional.dropout(torch.ones(2), training=True),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_random_states_tell_a_draw_and_go_back(draw: Callable[[], Any]):
    module = Module()
    before, inputs = RandomStates.now(CPU), StepInputs(module, None)
    assert not RandomStates.now(CPU).drawn_since(before)
    assert not inputs.drew_numbers(module)
    first = draw()
    after = RandomStates.now(CPU)
    assert after.drawn_since(before)
    assert inputs.drew_numbers(module)
    before.restore(CPU)  # a state that was kept has not gone on with its generator
    assert not RandomStates.now(CPU).drawn_since(before)
    assert RandomStates.now(CPU).drawn_since(after)
    assert torch.equal(torch.as_tensor(draw()), torch.as_tensor(first))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex64])
def test_a_digest_changes_with_any_bit(dtype: torch.dtype):
    params = {"w": torch.ones(3, 2, dtype=dtype), "b": torch.zeros((), dtype=dtype)}
    before = digest(params)
    assert digest({name: p.clone() for name, p in params.items()}) == before
    params["w"][2, 1] *= 1 + 2**-7
    assert digest(params) != before


def test_a_digest_tells_names_shapes_and_dtypes():
    zeros = [torch.zeros(2), torch.zeros(1, 2), torch.zeros(2, dtype=torch.int32)]
    found = {digest({name: tensor}) for name in "ab" for tensor in zeros}
    assert len(found | {digest({}), digest({"w": torch.ones(0)})}) == 8


@pytest.mark.gpu
def test_a_draw_on_the_device_is_told():
    device = torch.device("cuda", 0)
    before = RandomStates.now(device)
    first = torch.rand(3, device=device)
    assert RandomStates.now(device).drawn_since(before)
    before.restore(device)
    assert torch.equal(torch.rand(3, device=device), first)
