"""LossWeights: sum and gradient by hand, updates beside live graphs, checkpoints."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import LossWeights
from pinn_ntk.taps import listen, unlisten

NAMES = ["pde", "bc", "ic"]


def double(**initial: float) -> LossWeights:
    return LossWeights(NAMES, initial).double()


def terms(**values: float) -> dict[str, Tensor]:
    return {n: torch.tensor(v, dtype=torch.float64, requires_grad=True) for n, v in values.items()}


@pytest.mark.parametrize(
    ("initial", "losses", "total"),
    [
        ({}, {"pde": 0.5}, 0.5),
        ({}, {"pde": 0.5, "bc": 0.25, "ic": 1.0}, 1.75),
        ({"bc": 8.0}, {"pde": 0.5, "bc": 0.25}, 2.5),
        ({"bc": 8.0, "pde": 0.25}, {"bc": 0.25}, 2.0),  # a term is absent
        ({"bc": 8.0}, {"ic": -1.0, "bc": 0.25, "pde": 0.0}, 1.0),  # another order
    ],
)
def test_sum_and_gradient(initial: dict[str, float], losses: dict[str, float], total: float):
    weights, given = double(**initial), terms(**losses)
    loss = weights(given)
    assert (loss.item(), loss.shape, loss.dtype) == (total, (), torch.float64)
    assert list(weights.parameters()) == []  # nothing is trained
    assert not weights["bc"].requires_grad
    gradients = torch.autograd.grad(loss, list(given.values()))
    assert [g.item() for g in gradients] == [initial.get(name, 1.0) for name in given]


def test_the_sum_is_to_the_last_bit_the_one_written_out():
    weights, values = double(pde=0.1, bc=3.7, ic=1e5), terms(ic=0.3, pde=1.7, bc=1e-9)
    written = weights["ic"] * values["ic"] + weights["pde"] * values["pde"]
    written += weights["bc"] * values["bc"]
    assert torch.equal(weights(values), written)


@pytest.mark.parametrize("read", [lambda w, x: w({"bc": x}), lambda w, x: w["bc"] * x])
def test_a_graph_made_before_an_update_keeps_its_weight(read):
    weights = double(bc=2.0)
    x = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    before = read(weights, x)
    buffer = weights.values
    weights.update({"bc": 5.0})
    assert weights.values is buffer
    after = read(weights, x)
    assert [torch.autograd.grad(loss, x)[0].item() for loss in (before, after)] == [2.0, 5.0]
    assert (before.item(), after.item()) == (6.0, 15.0)


def test_update_sets_what_is_given_and_nothing_else():
    weights = double(pde=0.1)
    weights.update({"ic": 1e-300, "bc": 7})
    assert weights.as_dict() == {"pde": pytest.approx(0.1, rel=1e-7), "bc": 7.0, "ic": 1e-300}
    before = weights.values.clone()
    weights.update({})
    assert torch.equal(weights.values, before)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_and_positive_are_refused_as_a_whole(bad: float):
    weights = double(bc=2.0)
    with pytest.raises(ValueError, match=r"weight of 'ic' is .* expected a finite positive number"):
        weights.update({"bc": 3.0, "ic": bad})
    assert weights.as_dict() == {"pde": 1.0, "bc": 2.0, "ic": 1.0}
    with pytest.raises(ValueError, match="expected a finite positive number"):
        LossWeights(NAMES, {"ic": bad})


@pytest.mark.parametrize(
    ("dtype", "weight"),
    [(torch.float16, 1e5), (torch.float16, 1e-9), (torch.float32, 1e39), (torch.bfloat16, 1e-41)],
)
def test_a_weight_has_to_survive_the_dtype(dtype: torch.dtype, weight: float):
    weights = LossWeights(NAMES).to(dtype)
    with pytest.raises(ValueError, match=f"in {dtype}"):
        weights.update({"bc": weight})
    assert weights.as_dict() == dict.fromkeys(NAMES, 1.0)


def test_a_double_loss_stays_double_under_single_weights():
    loss = LossWeights(["pde"], {"pde": 2.0})({"pde": torch.tensor(1 / 3, dtype=torch.float64)})
    assert (loss.dtype, loss.item()) == (torch.float64, 2 / 3)


@pytest.mark.parametrize("names", [[], ["pde", "bc", "pde"], "pde"])
def test_names_that_are_refused(names):
    with pytest.raises(ValueError, match="LossWeights: names is"):
        LossWeights(names)
    assert LossWeights(name for name in NAMES).names == tuple(NAMES)


def test_unknown_names_are_refused():
    weights = double()
    asks = (weights, weights.__getitem__, weights.update)
    for ask, given in zip(asks, (terms(bd=1.0), "bd", {"pde": 2.0, "bd": 1.0}), strict=True):
        with pytest.raises(KeyError, match=r"no term 'bd'; it has \('pde', 'bc', 'ic'\)"):
            ask(given)
    assert weights.as_dict()["pde"] == 1.0
    with pytest.raises(ValueError, match=r"initial has \['bd'\]"):
        LossWeights(NAMES, {"bd": 1.0})


@pytest.mark.parametrize(
    ("value", "said"), [(torch.zeros(3), r"\(3,\)"), (torch.zeros(0), r"\(0,\)"), (0.5, "float")]
)
def test_a_term_that_is_not_one_number_is_refused(value, said: str):
    with pytest.raises(ValueError, match=f"'bc' is {said}; reduce the residual first"):
        double()({"bc": value})
    with pytest.raises(ValueError, match="no loss terms; expected some of"):
        double()({})


def test_checkpoint_of_the_module_that_holds_it():
    def build(**initial: float) -> nn.Module:
        return nn.ModuleDict({"net": nn.Linear(1, 1), "weights": LossWeights(NAMES, initial)})

    buffer = io.BytesIO()
    torch.save(build(bc=2.5).state_dict(), buffer)
    buffer.seek(0)
    module = build()
    module.load_state_dict(torch.load(buffer, weights_only=True))
    assert module["weights"].as_dict() == {"pde": 1.0, "bc": 2.5, "ic": 1.0}
    assert repr(module["weights"]) == "LossWeights(pde=1, bc=2.5, ic=1)"


def test_listeners_hear_of_the_terms_without_their_weights():
    heard, given = [], terms(bc=0.25, pde=0.5)
    notes = SimpleNamespace(weighted=lambda name, loss: heard.append((name, loss is given[name])))
    listen(notes)
    try:
        double(bc=8.0)(given)
    finally:
        unlisten(notes)
    assert heard == [("bc", True), ("pde", True)]


@pytest.mark.gpu
def test_on_a_gpu_updates_stay_there():
    weights = LossWeights(NAMES).cuda()
    weights.update({"bc": 3.0})
    assert weights.values.is_cuda
    assert weights({"bc": torch.tensor(2.0, device="cuda")}).item() == 6.0
