"""Weights of the loss's own beside a balancer's, learned ones, and terms that nothing moves."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import LossWeights
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import N_BC, Pinn, batch, build, fit, ours, told_once
from tests.zoo import Explicit, Noted, make

# --- Weights that the loss holds, or does not


def summed(weights: LossWeights, losses: dict[str, Tensor]) -> Tensor:
    return losses["pde"] + losses["bc"]


def read_off(weights: LossWeights, losses: dict[str, Tensor]) -> Tensor:
    held = weights.as_dict()
    return sum((held[name] * loss for name, loss in losses.items()), start=torch.tensor(0.0))


USES: dict[str, Any] = {
    "called": lambda weights, losses: weights(losses),
    "scaled": lambda weights, losses: 0.1 * weights(losses),
    "read off": read_off,
    "not at all": summed,
}


class Holding(Noted):
    """Holds weights, and makes some use of them."""

    def __init__(self, use: Any, **options: Any) -> None:
        super().__init__(**options)
        self.weights, self.use = LossWeights(["pde", "bc"]).double(), use

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        return self.use(self.weights, losses)


@pytest.mark.parametrize("use", USES)
def test_weights_that_the_loss_does_not_hold_are_told_once(use: str):
    said = r"the weights of pde, bc were written into .*, but those in the loss are what they were"
    with told_once(said) if use == "not at all" else contextlib.nullcontext():
        fit(make(Holding, use=USES[use]), NTKBalancer(every_n_steps=2), steps=6)


# --- Own weights


class Own(Pinn):
    """The loss is a function of the residuals."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.loss = loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        self.log_losses(self.losses(residuals), batch_idx)
        return self.loss(residuals["pde"], residuals["bc"])


def mean(r: Tensor) -> Tensor:
    return r.square().mean()


def causal(r: Tensor) -> Tensor:
    return torch.linspace(0, -9, len(r))[:, None].exp()


def half(b: Tensor) -> Tensor:
    return (torch.arange(len(b)) % 4 == 0)[:, None].double()


MULTIPLIES: dict[str, tuple[Any, str]] = {
    "one": (lambda r, b: mean(r) + 100 * mean(b), "bc 100 x 4.77 = 477"),
    "both": (lambda r, b: 0.1 * mean(r) + 10 * mean(b), "pde 0.1 x 1.27 = 0.127, bc 10 x"),
    "inside": (lambda r, b: mean(r) + (100 * b.square()).mean(), "bc 100 x 4.77 = 477"),
    "buffer": (
        lambda r, b: (torch.tensor([1.0, 50.0]) * torch.stack([mean(r), mean(b)])).sum(),
        "bc 50 x",
    ),
    "sums": (lambda r, b: r.square().sum() + mean(b), r"number: pde\), and its .*pde 6 x 1.27"),
    "beside causal weights": (
        lambda r, b: (causal(r) * r.square()).mean() + 100 * mean(b),
        "bc 100 x 4.77 = 477",
    ),
    "l1": (lambda r, b: mean(r) + 30 * b.abs().mean(), "term_1 30 x 4.77"),
}


@pytest.mark.parametrize("kind", MULTIPLIES)
def test_own_weights_that_multiply_are_told_once_with_both_numbers(kind: str):
    loss, numbers = MULTIPLIES[kind]
    module, balancer = make(Own, loss), NTKBalancer(every_n_steps=2)
    with told_once(rf"the loss weighs its terms itself.*{numbers}.*include=\["):
        fit(module, balancer, NTKMonitor(), steps=5)
    plain = NTKBalancer()
    fit(build(), plain, steps=1)
    (weight,) = [w for name, w in balancer.weights.items() if name != "pde"]
    assert weight > 1.0
    first = balancer.history["ntk/weight/pde"][0][1]
    assert first == pytest.approx(plain.weights["pde"], rel=1e-10)


SILENT: dict[str, Any] = {
    "means": lambda r, b: mean(r) + mean(b),
    "sum over N": lambda r, b: r.square().sum() / len(r) + b.square().sum() * (1 / len(b)),
    "mean over terms": lambda r, b: torch.stack([mean(r), mean(b)]).mean(),
    "a common factor": lambda r, b: 1e4 * (mean(r) + mean(b)),
    "three sides": lambda r, b: mean(r) + 3 * mean(b),
    "pointwise": lambda r, b: mean(r) + (torch.linspace(1, 90, N_BC)[:, None] * b.square()).mean(),
    "causal": lambda r, b: (causal(r) * r.square()).mean() + mean(b),
    "masked mean": lambda r, b: mean(r) + (half(b) * b.square()).sum() / half(b).sum(),
    "rounding": lambda r, b: mean(r) + (1 + 1e-6) * mean(b),
    "a norm": lambda r, b: mean(r) + b.norm(),
}


@pytest.mark.parametrize("loss", SILENT.values(), ids=list(SILENT))
@pytest.mark.parametrize("accumulate", [1, 4])
def test_weights_that_do_not_matter_are_not_told(loss: Any, accumulate: int):
    balancer = NTKBalancer(every_n_steps=1, keep_stable=False)  # 1e4 times a loss is not stable
    fit(make(Own, loss), balancer, steps=2, accumulate_grad_batches=accumulate)


def test_sums_fit_the_convention_of_sums():
    def sums(r: Tensor, b: Tensor) -> Tensor:
        return r.square().sum() + b[:1].square().sum()

    fit(make(Own, sums), NTKBalancer(convention="sum"), steps=2)
    with told_once("the loss weighs its terms itself"):
        fit(make(Own, sums), NTKBalancer(), steps=2)


def test_own_weights_of_terms_left_out_and_those_of_loss_weights_do_not_multiply():
    weighted = make(Own, lambda r, b: mean(r) + 100 * mean(b))
    fit(weighted, NTKBalancer(include="pde"), steps=2)
    fit(make(Explicit, initial={"pde": 1.0, "bc": 100.0}), NTKBalancer(), steps=2)


# --- Learned weights


class Uncertain(Pinn):
    """sum_a exp(-s_a) L_a + s_a (Kendall, Gal, Cipolla 2018)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.s = nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = self.losses(self.residuals(batch))
        self.log_losses(losses, batch_idx)
        return (torch.exp(-self.s) * torch.stack(list(losses.values())) + self.s).sum()


def test_learned_weights_get_the_gradient_of_the_unweighted_loss_and_that_is_told_once():
    module, plain = make(Uncertain), make(Uncertain)
    losses = plain.losses(plain.residuals(batch()))
    means = torch.stack(list(losses.values())).detach()
    kept: list[Tensor] = []
    module.on_after_backward = lambda: kept.append(module.s.grad.clone())
    balancer = NTKBalancer()
    with told_once(r"the loss trains weights of its terms \(s\).*that of the unweighted loss"):
        fit(module, balancer, steps=2)
    torch.testing.assert_close(kept[0], 1 - torch.exp(-plain.s).detach() * means)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_penalties_and_inverse_coefficients_are_no_learned_weights(weight_decay: float):
    def loss(module: Any, r: Tensor, b: Tensor) -> Tensor:
        penalty = sum(p.square().sum() for p in module.net.parameters())
        return mean(r) + mean(b) + weight_decay * penalty

    module = make(Own, lambda r, b: loss(module, r, b))
    fit(module, NTKBalancer(), steps=2)


# --- Terms that nothing moves


def hard(b: Tensor) -> Tensor:
    return b * 0


def sine(b: Tensor) -> Tensor:
    """A hard constraint u = sin(pi x) net(x), at x = 1."""
    return b * math.sin(math.pi)


class Third(Own):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        third = self.loss(residuals["bc"], residuals["bc"])
        losses = self.losses(residuals | {"wall": third})
        self.log_losses(losses, batch_idx)
        return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("constraint", [hard, sine], ids=["zero", "rounding"])
def test_one_term_that_nothing_moves_stops_nothing(constraint: Any, dtype: torch.dtype):
    module, balancer = make(Third, lambda b, _: constraint(b), dtype=dtype), NTKBalancer()
    data = [batch(dtype)] * 4
    with told_once("no trained parameter moves the residual of wall"):
        fit(module, balancer, steps=3, batches=data)
    plain = NTKBalancer()
    fit(build(dtype=dtype), plain, steps=1, batches=data)
    assert balancer.weights == pytest.approx(plain.weights | {"wall": 1.0}, rel=1e-6)


def test_where_nothing_moves_any_term_the_weights_stay():
    class Still(Pinn):
        def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: 0 * r for name, r in super().residuals(batch).items()}

    balancer = NTKBalancer(every_n_steps=1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit(make(Still), balancer, steps=3)
    (said,) = ours(warned)
    assert re.search("weighting the loss failed with ValueError: the cost of term .* is 0", said)
    assert set(balancer.weights.values()) == {1.0}
