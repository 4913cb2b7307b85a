"""NTKBalancer in a real Trainer, against a module that weights its own loss by hand."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from pinn_ntk import empirical_ntk
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.weights.trace import Convention
from tests.by_hand import Weighted, gradient, wang_weights
from tests.pinn import Pinn, batch, build, calling, fit, same, told_once
from tests.scripts import python
from tests.written import column
from tests.zoo import Manual, Noted, make, train

# --- The weights, and that they act


def test_first_weights_are_those_of_the_unweighted_kernel_at_the_first_step():
    module, balancer = build(), NTKBalancer()
    expected = wang_weights(module.residuals(batch()), module)
    fit(module, balancer, steps=1)
    assert balancer.weights == pytest.approx(expected, rel=1e-12)
    assert list(balancer.weights) == ["pde", "bc"]
    assert balancer.weights["bc"] > 2  # the case has something to balance


BY_HAND: list[tuple[Convention, float, dict[str, Any], dict[str, Any]]] = [
    *(
        (*rule, {"optimizer": optimizer}, {"steps": 50})
        for optimizer in ("sgd", "adam")
        for rule in (("sum", 0.0), ("mean", 0.0), ("rate", 0.0), ("sum", 0.9))
    ),
    *(
        ("sum", 0.0, {"log": log}, {"steps": 12})
        for log in ("tensor", "item", "dict", "sparse", "none")
    ),
    ("sum", 0.0, {}, {"steps": 6, "accumulate_grad_batches": 2}),
]
"""Convention, ema, options of the module and of the fit."""


@pytest.mark.parametrize(("convention", "ema", "options", "of_fit"), BY_HAND, ids=str)
def test_training_equals_a_loss_weighted_by_hand(
    convention: Convention, ema: float, options: dict[str, Any], of_fit: dict[str, Any]
):
    every = 1000 if "accumulate_grad_batches" in of_fit else 5
    hand = make(Weighted, every, convention, ema, **options)
    balanced, plain = build(**options), build(**options)
    balancer = NTKBalancer(every_n_steps=every, convention=convention, ema=ema)
    fit(hand, **of_fit)
    fit(balanced, balancer, **of_fit)
    assert same(hand, balanced)
    names = ("term_0", "term_1") if options.get("log") == "none" else ("pde", "bc")
    assert balancer.weights == dict(zip(names, hand.weights.values(), strict=True))
    fit(plain, **of_fit)
    assert not same(plain, balanced)


def test_losses_are_logged_unweighted_and_weights_when_updated(tmp_path: Path):
    def note(run: pl.Trainer, *_: Any) -> None:
        metrics = run.callback_metrics.items()
        logged.append({k: float(v) for k, v in metrics if not k.startswith("ntk/")})

    logged: list[dict[str, float]] = []
    module, logger = build(), CSVLogger(tmp_path)
    first = {n: loss.item() for n, loss in module.losses(module.residuals(batch())).items()}
    balancer = NTKBalancer(every_n_steps=3)
    fit(module, balancer, calling(on_train_batch_end=note), steps=5, logger=logger)
    assert logged[0] == first
    written = {n: column(logger.log_dir, f"ntk/weight/{n}") for n in ("pde", "bc")}
    assert list(written["pde"]) == [0, 3]
    assert {name: values[3] for name, values in written.items()} == balancer.weights


# --- Other losses


class Late(Pinn):
    """ "bc" is absent from odd batches, "data" joins at batch 2."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        residuals = super().residuals(batch)
        if self.global_step % 2:
            del residuals["bc"]
        if self.global_step >= 2:
            residuals["data"] = self.net(batch["x"][:2]) - 1
        return residuals


def weights_in_force(module: Pinn, every: int, steps: int) -> list[dict[str, float]]:
    """Those whose gradient was accumulated in each step."""
    found: list[dict[str, float]] = []
    balancer = NTKBalancer(every_n_steps=every)
    note = calling(on_after_backward=lambda *_: found.append(dict(balancer.weights)))
    fit(module, balancer, note, steps=steps)
    return found


def test_absent_terms_keep_their_weight_until_they_are_there_and_new_ones_start_at_one():
    first, second, third, fourth, fifth, sixth = weights_in_force(Late(), every=3, steps=6)
    assert first == second
    assert third == first | {"data": 1.0}
    assert fourth["bc"] == first["bc"]  # absent at the update of step 3
    assert fourth["data"] > 1.0
    assert fourth["pde"] != first["pde"]
    assert fifth["bc"] != fourth["bc"]  # made up for
    assert sixth == fifth


def test_absent_terms_count_with_their_last_trace():
    balancer = NTKBalancer(every_n_steps=1)
    module = Late()
    expected = wang_weights(module.residuals(batch()), module)
    fit(module, balancer, steps=2)
    # Without the trace of "bc" the only term of step 1 would have weight 1.
    assert balancer.weights["bc"] == pytest.approx(expected["bc"], rel=1e-12)
    assert balancer.weights["pde"] > 1.0


class MinMax(Pinn):
    """Every batch: descend in the network, then ascend in the weights by the negated loss."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.gradients: list[Tensor] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        losses = self.losses(self.residuals(batch))
        self.log_losses(losses, batch_idx)
        loss = losses["pde"] + losses["bc"]
        for sign in (1, 1, -1):
            self.zero_grad()
            self.manual_backward(sign * loss, retain_graph=True)
            self.gradients.append(torch.cat([p.grad.flatten() for p in self.parameters()]))
        self.optimizers().step()


def test_a_graph_backpropagated_again_is_weighted_once_and_ascending_terms_never():
    module, balancer = make(MinMax), NTKBalancer()
    pde, bc = (gradient(loss, module) for loss in module.losses(module.residuals(batch())).values())
    fit(module, balancer, steps=1)
    first, again, ascent = module.gradients
    weighted = balancer.weights["pde"] * pde + balancer.weights["bc"] * bc
    torch.testing.assert_close(first, weighted, rtol=1e-12, atol=1e-14)
    assert torch.equal(again, first)
    torch.testing.assert_close(ascent, -(pde + bc), rtol=1e-12, atol=1e-14)


class Retries(MinMax):
    """The first backward pass of a batch fails, say for want of memory, and is done again."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        self.fail = True
        with pytest.raises(MemoryError):
            super().training_step(batch, batch_idx)
        self.fail = False
        super().training_step(batch, batch_idx)

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.fail:
            self.kept = super().residuals(batch)
        return self.kept

    def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.fail:
            self.kept_losses = super().losses(residuals)
        return self.kept_losses

    def backward(self, loss: Tensor, **options: Any) -> None:  # type: ignore[override]
        if self.fail:
            raise MemoryError
        super().backward(loss, **options)


def test_a_backward_pass_done_again_is_weighted_once():
    plain, module = make(MinMax), make(Retries)
    fit(plain, NTKBalancer(), steps=1)
    fit(module, NTKBalancer(), steps=1)
    assert torch.equal(module.gradients[0], plain.gradients[0])


class Again(Pinn):
    """Differentiates its loss before, in and after the backward pass of the step."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.loss = super().training_step(batch, batch_idx)
        self.before = torch.autograd.grad(self.loss, list(self.parameters()), retain_graph=True)
        return self.loss

    def backward(self, loss: Tensor) -> None:  # type: ignore[override]
        loss.backward(retain_graph=True)

    def on_after_backward(self) -> None:
        self.after = torch.autograd.grad(self.loss, list(self.parameters()))
        self.within = [p.grad.clone() for p in self.parameters() if p.grad is not None]


def test_hooks_do_not_outlive_the_backward_pass():
    module = Again()
    fit(module, NTKBalancer(), steps=1)
    assert all(torch.equal(a, b) for a, b in zip(module.before, module.after, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(module.before, module.within, strict=True))


class Silent(Pinn):
    """Nothing depends on the parameters in the boundary term until step 3."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        residuals = super().residuals(batch)
        if 2 <= self.global_step < 4:
            residuals["bc"] = residuals["bc"] * 0
        return residuals


def test_a_term_that_nothing_moves_is_left_out_until_something_does():
    with told_once("no trained parameter moves the residual of bc .trace 0."):
        found = weights_in_force(Silent(), every=1, steps=6)
    assert [weights["bc"] for weights in found[1:4]] == [found[1]["bc"]] * 3
    assert [weights["pde"] for weights in found[2:4]] == [1.0, 1.0]  # it is alone
    assert found[4]["bc"] != found[3]["bc"]
    assert found[4]["pde"] > 1.0


class Broken(Pinn):
    """NaN in the boundary term at steps 2 and 3."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        residuals = super().residuals(batch)
        if 2 <= self.global_step < 4:
            residuals["bc"] = residuals["bc"].where(residuals["bc"] > 1e9, math.nan)
        return residuals

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            parameter.grad.nan_to_num_(nan=0.0)


@pytest.mark.parametrize(("every", "kept"), [(2, [0, 1, 2, 3]), (3, [2, 3])])
def test_failing_updates_keep_the_last_weights_and_are_made_up_for(every: int, kept: list[int]):
    with told_once("weighting the loss failed with ResidualError: .*NaN"):
        found = weights_in_force(Broken(), every=every, steps=6)
    assert [found[step] for step in kept] == [found[kept[0]]] * len(kept)
    assert found[4] != found[3]
    assert found[5] == found[4]


BOUNDS = [(0.0, 2.0), (1.5, math.inf), (3.0, 4.0), (0.0, 3.0), (2.0, math.inf), (1.5, 2.5)]


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_weights_stay_within_bounds(low: float, high: float):
    free, bounded = NTKBalancer(), NTKBalancer(min_weight=low, max_weight=high)
    fit(build(), free, steps=1)
    fit(build(), bounded, steps=1)
    expected = {name: min(max(weight, low), high) for name, weight in free.weights.items()}
    assert bounded.weights == expected
    assert bounded.weights != free.weights


# --- Together with the monitor


@pytest.mark.parametrize("order", [1, -1])
def test_monitor_sees_the_unweighted_kernel_and_the_weighted_curvature(order: int):
    alone, together = NTKMonitor(every_n_steps=2), NTKMonitor(every_n_steps=2)
    balancer = NTKBalancer(every_n_steps=2)
    fit(build(), alone, steps=1)
    fit(build(), *[together, balancer][::order], steps=1)
    for tag in ("ntk/trace/pde", "ntk/lambda_max/bc", "ntk/log10_condition/pde"):
        assert together.history[tag].tolist() == alone.history[tag].tolist()
    start = build()
    kernel = empirical_ntk(start.residuals(batch()), start)
    curvature = {n: 2 * balancer.weights[n] / kernel.rows(n) for n in kernel}
    top = torch.linalg.eigvalsh(kernel.weighted_matrix(curvature))[-1]
    assert together.history["ntk/max_stable_lr"][0][1] == pytest.approx(2 / float(top), rel=1e-10)


@pytest.mark.parametrize("order", [1, -1])
def test_monitor_does_not_disturb_the_balancer(order: int):
    balanced, watched = build(optimizer="adam"), build(optimizer="adam")
    fit(balanced, NTKBalancer(every_n_steps=7), steps=20)
    callbacks = [NTKMonitor(every_n_steps=3), NTKBalancer(every_n_steps=7)]
    fit(watched, *callbacks[::order], steps=20)
    assert same(balanced, watched)


# --- State, refusals, arguments


def test_another_module_starts_anew_and_the_same_goes_on():
    balancer, module = NTKBalancer(every_n_steps=100, ema=0.5), build()
    fit(module, balancer, steps=1)
    first = dict(balancer.weights)
    fit(module, balancer, steps=1)
    second = dict(balancer.weights)
    assert second != first
    fit(build(), balancer, steps=1)
    assert balancer.weights == first


def test_lbfgs_is_refused_with_the_reason():
    with pytest.raises(MisconfigurationException, match=r"line search of L-BFGS(.|\n)*LossWeights"):
        fit(build(optimizer="lbfgs"), NTKBalancer())


class TakesOver(Noted):
    """Trains by L-BFGS from step 3 on, and by the first optimizer again from step 5 on."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 3:
            self.first = self.trainer.optimizers
            self.trainer.strategy.optimizers = [torch.optim.LBFGS(self.parameters(), lr=0.1)]
        elif batch_idx == 5:
            self.trainer.strategy.optimizers = self.first


def test_an_lbfgs_that_takes_over_trains_the_loss_as_it_is():
    monitor, balancer = NTKMonitor(every_n_steps=1), NTKBalancer(every_n_steps=2)
    with told_once(r"NTKBalancer: an L-BFGS has taken over.* line search .*LossWeights"):
        train(make(TakesOver), monitor, balancer, steps=7)
    assert balancer.history["ntk/weight/bc"][:, 0].tolist() == [0, 2, 5, 6]
    effective = monitor.history["ntk/effective_weight/bc"][:, 1]
    assert effective[3:5] == pytest.approx(1.0)
    assert (abs(effective[[0, 1, 2, 5, 6]] - 1) > 0.1).all()


@pytest.mark.parametrize(
    ("kind", "options", "steps", "weighed"),
    [
        (TakesOver, {}, 3, True),
        (TakesOver, {}, 5, False),
        (TakesOver, {}, 7, True),
        (Manual, {"raw": True}, 3, False),
        (Manual, {"raw": True, "taps": True}, 3, False),  # put on, and not seen by the monitor
    ],
)
def test_weights_that_are_not_put_on_are_not_said_to_be_in_force(
    kind: Any, options: dict[str, bool], steps: int, weighed: bool
):
    route = {"residuals": "residuals"} if options == {"raw": True} else {}
    monitor, balancer = (k(every_n_steps=1, **route) for k in (NTKMonitor, NTKBalancer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(make(kind, **options), monitor, balancer, steps=steps)
    assert ("Weights in force" in monitor.panel.summary()) is weighed


def test_two_balancers_are_refused():
    class Mine(NTKBalancer):
        pass

    with pytest.raises(MisconfigurationException, match="would multiply their weights"):
        fit(build(), NTKBalancer(), Mine())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps is 0; expected an integer of at least 1"),
        ({"rule": "gradnorm"}, r"rule is 'gradnorm'; expected one of \('trace', 'largest"),
        ({"convention": "median"}, "convention is 'median'; expected one of"),
        ({"ema": 1.0}, r"ema is 1\.0; expected a number in \[0, 1\)"),
        ({"min_weight": 2.0, "max_weight": 1.0}, "expected 0 <= min_weight < max_weight"),
        ({"min_weight": -1.0}, r"min_weight is -1\.0"),
        ({"ema": -0.1}, r"ema is -0\.1; expected a number in \[0, 1\)"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        NTKBalancer(**options)


TWO_RANKS = """
import torch
from tests.pinn import N_PDE, Pinn, batch, fit
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

class Sharded(Pinn):
    def residuals(self, batch):
        mine = slice(self.global_rank, None, self.trainer.world_size)
        return super().residuals({name: points[mine] for name, points in batch.items()})

if __name__ == "__main__":
    torch.manual_seed(1)
    module, balancer, monitor = Sharded(), NTKBalancer(every_n_steps=3), NTKMonitor()
    run = fit(module, monitor, balancer, steps=6, devices=2, strategy="ddp")
    total = sum(float(p.detach().abs().sum()) for p in module.parameters())
    weights = balancer.weights
    trace = float(run.callback_metrics["ntk/trace/pde"])
    ratio = float(run.callback_metrics["ntk/predicted_decrease_ratio"])  # of step 0, from rank 0
    print(f"RESULT {weights['pde']!r} {weights['bc']!r} {total!r} {trace!r} {ratio!r}", flush=True)
"""


@pytest.mark.slow
def test_two_ranks_agree_with_each_other_and_with_one(tmp_path: Path):
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    results = re.findall(r"RESULT (\S+) (\S+) (\S+) (\S+) (\S+)", python(script).stdout)
    assert len(results) == 2
    assert results[0] == results[1]
    assert float(results[0][4]) == pytest.approx(1, abs=0.2)
    module, balancer = build(), NTKBalancer(every_n_steps=3)
    fit(module, balancer, steps=6)
    total = sum(float(p.detach().abs().sum()) for p in module.parameters())
    expected = [balancer.weights["pde"], balancer.weights["bc"], total]
    assert [float(number) for number in results[0][:3]] == pytest.approx(expected, rel=1e-10)
