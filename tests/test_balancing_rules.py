"""NTKBalancer with each rule in a real Trainer, against modules that weigh their loss by hand."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn

import pinn_ntk
from pinn_ntk import Balancing, LossWeights, reference_ntk, tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.weights.pointwise import Pointwise
from pinn_ntk.weights.residual_decay import ResidualDecay
from tests.pinn import ONE_BATCH, Pinn, batch, build, fit, same, told_once
from tests.scripts import python
from tests.zoo import make

SCALAR = ("trace", "largest_eigenvalue", "gradient_norm", "residual_decay")


class ByHand(Pinn):
    """Weighs its loss by a `Balancing` of its own every third step."""

    def __init__(self, balancing: Balancing, **options: Any):
        super().__init__(**options)
        self.balancing = balancing

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        if batch_idx % 3 == 0:
            loss = torch.stack(list(self.losses(residuals).values())).sum()
            self.balancing.update(pinn_ntk.look(loss, self, names=list(residuals), step=batch_idx))
        weights = self.balancing.weights or {"pde": 1.0, "bc": 1.0}
        losses = {n: (weights[n] * r.square()).mean() for n, r in residuals.items()}
        return losses["pde"] + losses["bc"]


@pytest.mark.parametrize("rule", [*SCALAR, "none"])
@pytest.mark.parametrize(
    "options", [{}, {"ema": 0.7, "max_change": 1.05, "warmup_steps": 2}], ids=str
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_equals_a_loss_weighted_by_hand(rule: Any, options: Any, optimizer: str):
    hand = make(ByHand, Balancing(rule, **options), optimizer=optimizer)
    balanced, plain = build(optimizer=optimizer), build(optimizer=optimizer)
    balancer = NTKBalancer(every_n_steps=3, rule=rule, **options)
    if options and rule != "none":  # the first update is at the end of the warm-up, by hand at 3
        balancer = NTKBalancer(steps=[3, 6, 9, 12], rule=rule, **options | {"warmup_steps": 3})
    for module, callbacks in ((hand, []), (balanced, [balancer]), (plain, [])):
        fit(module, *callbacks, steps=12)
    ours, theirs = (list(m.parameters()) for m in (balanced, hand))
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
    assert same(plain, balanced) == (rule == "none")
    if rule != "none":
        assert balancer.weights == pytest.approx(hand.balancing.weights, rel=1e-7)


@pytest.mark.parametrize("rule", SCALAR)
def test_weights_in_the_loss_are_no_part_of_the_next(rule: Any):
    """Weights written into `LossWeights` give the same training as weights on gradients."""

    class Explicit(Pinn):
        def __init__(self, **options: Any):
            super().__init__(**options)
            self.weights = LossWeights(["pde", "bc"])
            self.weights.double()

        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
            losses = self.losses(self.residuals(batch))
            self.log_losses(losses, batch_idx)
            return self.weights(losses)

    explicit, on_gradients = make(Explicit), build()
    first, second = (NTKBalancer(every_n_steps=1, rule=rule) for _ in range(2))
    fit(explicit, first, steps=2)
    fit(on_gradients, second, steps=1)
    at_start = {n: first.history[f"ntk/weight/{n}"][0, 1] for n in ("pde", "bc")}
    assert at_start == pytest.approx(second.weights, rel=1e-6)  # of the same parameters


@pytest.mark.parametrize("rule", [*SCALAR, "pointwise"])
def test_the_monitor_beside_it_changes_nothing(rule: Any):
    alone, beside = build(optimizer="adam"), build(optimizer="adam")
    fit(alone, NTKBalancer(every_n_steps=3, rule=rule), steps=9)
    fit(beside, NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=3, rule=rule), steps=9)
    assert same(alone, beside)


@pytest.mark.parametrize("rule", [*SCALAR, "pointwise"])
def test_a_run_that_is_resumed_goes_on_as_without_a_stop(rule: Any, tmp_path: Path):
    def balancer() -> NTKBalancer:
        return NTKBalancer(every_n_steps=2, rule=rule, ema=0.5, max_change=1.2)

    whole, halves = build(optimizer="adam"), build(optimizer="adam")
    fit(whole, balancer(), steps=10, **ONE_BATCH)
    run = fit(halves, balancer(), steps=5, **ONE_BATCH)
    run.save_checkpoint(tmp_path / "half.ckpt")
    again = build(optimizer="adam")
    fit(again, balancer(), steps=10, ckpt=tmp_path / "half.ckpt", **ONE_BATCH)
    assert same(whole, again)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning")
def test_another_rule_takes_over_a_checkpoint_at_once(tmp_path: Path):
    first = build()
    fit(first, NTKBalancer(every_n_steps=2), steps=5, **ONE_BATCH).save_checkpoint(
        tmp_path / "half.ckpt"
    )
    other = NTKBalancer(every_n_steps=1000, rule="gradient_norm")
    fit(build(), other, steps=7, ckpt=tmp_path / "half.ckpt", **ONE_BATCH)
    assert list(other.history["ntk/weight/bc"][:, 0]) == [0.0, 2.0, 4.0, 5.0]


def test_steps_at_which_weights_move():
    balancer = NTKBalancer(every_n_steps=2, warmup_steps=3, freeze_after=7)
    fit(build(), balancer, steps=12)
    assert list(balancer.history["ntk/weight/pde"][:, 0]) == [3, 4, 6]


def test_no_update_after_the_freeze_even_of_one_that_failed(tmp_path: Path):
    balancer = NTKBalancer(every_n_steps=1, freeze_after=0)
    fit(build(), balancer, steps=4)
    assert list(balancer.history["ntk/weight/pde"][:, 0]) == [0]


def test_none_measures_nothing():
    balancer = NTKBalancer(rule="none")
    fit(build(), balancer, steps=4)
    assert not balancer.weights
    assert not balancer.history


def test_a_rule_of_ones_own_and_its_name_on_the_terminal(caplog: pytest.LogCaptureFixture):
    balancer = NTKBalancer(rule=ResidualDecay(floor=0.5))
    caplog.set_level("INFO")
    fit(build(), balancer, steps=2)
    assert "weighed by residual decay every 500 steps" in caplog.text
    assert "floor" in repr(balancer)


# --- Points


class PointsByHand(Pinn):
    """Weighs each point by 1 / K_ii, and terms by trace of what is left, in every step."""

    loss_of: Any = staticmethod(lambda r, w: (w * r.square()).mean())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        step = pinn_ntk.look(None, self, residuals=residuals)
        if batch_idx == 0:
            self.weights = Balancing(Pointwise()).update(step)
        w = {n: Pointwise().points(step, n).view(r.shape) for n, r in residuals.items()}
        return torch.stack([
            self.weights[n] * self.loss_of(r, w[n]) for n, r in residuals.items()
        ]).sum()  # fmt: skip


SQUARES: dict[str, Any] = {
    "square": lambda r: r.square().mean(),
    "product": lambda r: (r * r).mean(),
    "pow": lambda r: (r**2).sum() / r.numel(),
    "mse": lambda r: nn.functional.mse_loss(r, torch.zeros_like(r)),
    "swapped": lambda r: nn.functional.mse_loss(torch.zeros_like(r), r),
    "dot": lambda r: r.flatten() @ r.flatten() / r.numel(),
    "no reduction": lambda r: nn.functional.mse_loss(
        r, torch.zeros_like(r), reduction="none"
    ).mean(),
    "abs squared": lambda r: r.abs().square().mean(),
}


class Written(Pinn):
    def __init__(self, square: Any, **options: Any):
        super().__init__(**options)
        self.square = square

    def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.square(r) for name, r in residuals.items()}


@pytest.mark.parametrize("square", SQUARES.values(), ids=list(SQUARES))
def test_points_are_weighed_as_by_hand(square: Any):
    hand, balanced, plain = make(PointsByHand), make(Written, square), build()
    fit(hand, steps=6)
    fit(balanced, NTKBalancer(rule="pointwise"), steps=6)
    fit(plain, NTKBalancer(), steps=6)
    for p, q, other in zip(*(m.parameters() for m in (hand, balanced, plain)), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
        assert not torch.allclose(q, other, rtol=1e-6)


def test_points_of_other_losses_are_weighed_too():
    def huber(r: Tensor, w: Tensor | float = 1.0) -> Tensor:
        return (w * nn.functional.huber_loss(r, torch.zeros_like(r), reduction="none")).mean()

    hand = make(PointsByHand)
    hand.loss_of = huber
    balanced = make(Written, huber)
    fit(hand, steps=4)
    fit(balanced, NTKBalancer(rule="pointwise"), steps=4)
    for p, q in zip(hand.parameters(), balanced.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_points_that_are_tapped_are_weighed():
    class Tapped(Pinn):
        def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
            return super().losses({n: tap(r, n) for n, r in residuals.items()})

    hand, balanced = make(PointsByHand), make(Tapped)
    fit(hand, steps=4)
    fit(balanced, NTKBalancer(rule="pointwise"), steps=4)
    for p, q in zip(hand.parameters(), balanced.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


class Raw(Pinn):
    """Taps, and a backward pass that Lightning does not see."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        residuals = {n: tap(r, n) for n, r in self.residuals(batch).items()}
        optimizer = self.optimizers()
        optimizer.zero_grad()
        torch.stack(list(self.losses(residuals).values())).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("beside", [False, True])
def test_points_are_weighed_in_a_raw_backward_pass(beside: bool):
    hand, balanced = make(PointsByHand), make(Raw)
    monitors = [NTKMonitor(every_n_steps=2)] if beside else []
    fit(hand, steps=4)
    fit(balanced, *monitors, NTKBalancer(rule="pointwise"), steps=4)
    for p, q in zip(hand.parameters(), balanced.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_a_rule_that_gives_other_than_a_weight_a_point_is_named():
    class Wrong(Pointwise):
        def points(self, look: Any, term: str) -> Tensor:
            return torch.ones(3)

    with told_once("rule 'pointwise' gives 3 weights for the 6 points of 'pde'"):
        fit(build(), NTKBalancer(rule=Wrong(), keep_stable=False), steps=2)


@pytest.mark.parametrize("rule", [*SCALAR, "pointwise", "none"])
def test_callbacks_can_be_pickled_after_a_fit(rule: Any):
    balancer = NTKBalancer(rule=rule)
    fit(build(), balancer, steps=2)
    assert pickle.loads(pickle.dumps(balancer)).weights == balancer.weights


def test_a_norm_has_no_points_and_is_said_to_have_none():
    module = make(Written, lambda r: r.norm(dim=0).square().mean())
    with told_once("its points cannot be weighed one by one"):
        fit(module, NTKBalancer(rule="pointwise"), steps=3)


def test_points_and_weights_in_the_loss_do_not_go_together():
    module = build()
    module.weights = LossWeights(["pde", "bc"])
    with pytest.raises(MisconfigurationException, match="weighs single points, and the LossWeigh"):
        fit(module, NTKBalancer(rule="pointwise"), steps=1)


def test_the_monitor_sees_the_weights_of_points():
    """Its largest stable learning rate is that of the operator with them."""
    module, monitor = build(), NTKMonitor(every_n_steps=1)
    residuals = module.residuals(batch())
    step = pinn_ntk.look(None, module, residuals=residuals)
    rule = Pointwise()
    weights = Balancing(rule).update(step)
    D = torch.cat([2 * weights[n] * rule.points(step, n) / len(r) for n, r in residuals.items()])
    K = reference_ntk(residuals, module)
    matrix = torch.cat([torch.cat([K[a, b] for b in residuals], 1) for a in residuals])
    bound = 2 / float(torch.linalg.eigvalsh(D.sqrt()[:, None] * matrix * D.sqrt())[-1])
    fit(module, monitor, NTKBalancer(rule="pointwise", keep_stable=False), steps=1)
    assert monitor.history["ntk/max_stable_lr"][0, 1] == pytest.approx(bound, rel=1e-6)


# --- Stability


class Fast(Pinn):
    lr = 0.5

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def test_weights_that_would_let_descent_diverge_are_scaled_down_and_said(tmp_path: Path):
    free, kept = make(Fast), make(Fast)
    left, balancer = NTKBalancer(every_n_steps=1, keep_stable=False), NTKBalancer(every_n_steps=1)
    monitor = NTKMonitor(every_n_steps=1)
    with told_once("no trained parameter moves the residual of pde"):  # it diverged: all saturated
        fit(free, left, steps=60)
    with told_once("with the new weights the learning rate 0.5 lies above the largest"):
        fit(kept, monitor, balancer, steps=60, logger=CSVLogger(tmp_path))
    bounds = monitor.history["ntk/max_stable_lr"][:, 1]
    assert bounds.min() >= 0.5
    losses = {}
    for module in (free, kept):
        found = module.losses(module.residuals(batch()))
        losses[module] = float(sum(v.detach() for v in found.values()))
    assert losses[kept] < 1.0
    assert not losses[free] < 10 * losses[kept]  # it diverged, or is far off
    ratio = {b: b.history["ntk/weight/bc"][0, 1] / b.history["ntk/weight/pde"][0, 1]
             for b in (left, balancer)}  # fmt: skip
    assert ratio[left] == pytest.approx(ratio[balancer], rel=1e-9)  # ratios are kept


class Two(pl.LightningModule):
    """pde = a (w0 - x0), bc = b (w1 - x1), in one loss, in turns, or in two backward passes."""

    def __init__(self, lr: float, how: str = "sum", scales: Any = lambda _: (10.0, 1.0)) -> None:
        super().__init__()
        self.lr, self.how, self.scales = lr, how, scales
        self.w = nn.Linear(2, 1, bias=False).double()
        self.automatic_optimization = how != "manual"
        with torch.no_grad():
            self.w.weight.zero_()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        a, b = self.scales(batch_idx)
        one = torch.eye(2, dtype=torch.float64)
        losses = {"pde": (a * (self.w(one[:1]) - 0.5)).square().mean(),
                  "bc": (b * (self.w(one[1:]) - 2)).square().mean()}  # fmt: skip
        if self.how == "turns":
            losses = dict([list(losses.items())[batch_idx % 2]])
        self.log_dict(losses)
        if self.how != "manual":
            return torch.stack(list(losses.values())).sum()
        self.optimizers().zero_grad()
        for loss in losses.values():
            self.manual_backward(loss, retain_graph=True)
        self.optimizers().step()
        return None


@pytest.mark.parametrize("how", ["sum", "turns", "manual"])
@pytest.mark.parametrize("rule", ["trace", "gradient_norm"])
def test_terms_that_are_measured_apart_share_one_factor(how: str, rule: Any):
    module, balancer = Two(0.05, how), NTKBalancer(every_n_steps=1000, rule=rule)
    with told_once("with the new weights the learning rate 0.05 lies above"):
        fit(module, balancer, steps=200)
    a, b = balancer.weights["pde"] * 200, balancer.weights["bc"] * 2  # curvatures of both terms
    assert 0.05 * max(a, b) < 2
    assert bool(module.w.weight.isfinite().all())
    assert float(module.w.weight[0, 0].detach()) == pytest.approx(0.5, abs=0.05)


def test_ratios_follow_the_rule_where_weights_are_scaled_down():
    """Costs turn over by 1e8; an update is limited by the rule's weights, not by scaled ones."""
    module = Two(1.0, scales=lambda step: (100.0, 1.0) if step < 10 else (1.0, 100.0))
    balancer = NTKBalancer(every_n_steps=5)
    with told_once("with the new weights the learning rate 1 lies above"):
        fit(module, balancer, steps=60)
    assert balancer.weights["pde"] / balancer.weights["bc"] == pytest.approx(1e4, rel=1e-6)


def test_weights_are_scaled_as_the_learning_rate_rises():
    class Warm(Two):
        def configure_optimizers(self) -> Any:
            sgd = torch.optim.SGD(self.parameters(), lr=0.02)
            rises = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: 1e-3 + step / 40)
            return {"optimizer": sgd, "lr_scheduler": {"scheduler": rises, "interval": "step"}}

    module, balancer = Warm(0.0), NTKBalancer(freeze_after=0)
    with told_once("with the new weights the learning rate"):
        fit(module, balancer, steps=200)
    first = float(balancer.history["ntk/weight/pde"][0, 1])
    assert balancer.weights["pde"] < 0.5 * first
    assert bool(module.w.weight.isfinite().all())


def test_a_scaled_run_goes_on_as_without_a_stop(tmp_path: Path):
    """The bound is followed as the learning rate rises, and known after a restart."""

    class Rising(Two):
        def configure_optimizers(self) -> Any:
            sgd = torch.optim.SGD(self.parameters(), lr=0.02)
            rises = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: 0.1 + step / 10)
            return {"optimizer": sgd, "lr_scheduler": {"scheduler": rises, "interval": "step"}}

    whole, half, again = Rising(0.0), Rising(0.0), Rising(0.0)
    said = "with the new weights the learning rate"
    with told_once(said):
        fit(whole, NTKBalancer(), steps=16, **ONE_BATCH)
    with told_once(said):
        run = fit(half, NTKBalancer(), steps=8, **ONE_BATCH)
    run.save_checkpoint(tmp_path / "half.ckpt")
    with told_once(said):
        fit(again, NTKBalancer(), steps=16, ckpt=tmp_path / "half.ckpt", **ONE_BATCH)
    assert same(whole, again)
    assert not same(whole, half)


def test_a_new_term_shares_the_factor_of_the_others():
    class Late(Two):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx < 2:
                loss = (100 * self.w.weight[:, 0] - 1).square().mean()
                self.log("pde", loss)
                return loss
            return super().training_step(batch, batch_idx)

    balancer = NTKBalancer()
    with told_once("with the new weights the learning rate"):
        run = fit(Late(0.05), balancer, steps=2)
    factor = balancer.weights["pde"]
    assert factor < 0.1
    assert balancer.weight_of("new") == factor
    assert run.global_step == 2


def test_weights_of_points_are_held_against_the_bound_too():
    """Fifty rows e_0 and fifty rows 6.3 e_j: with the weights of points the bound is half."""

    class Rows(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Linear(51, 1, bias=False).double()
            eye = torch.eye(51, dtype=torch.float64)
            self.rows = torch.cat([eye[:1].repeat(50, 1), 40**0.5 * eye[1:]])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1.9)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return (self.w(self.rows) - 1).square().mean()

    module = Rows()
    with told_once("with the new weights the learning rate 1.9 lies above"):
        fit(module, NTKBalancer(rule="pointwise"), steps=100)
    assert float((module.w(module.rows) - 1).square().mean().detach()) < 0.5


def test_where_no_bound_is_known_it_is_said_to_who_asked():
    class Absolute(Fast):
        def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
            return {n: r.abs().mean() for n, r in residuals.items()}

    fit(make(Absolute), NTKBalancer(), steps=2)
    with told_once("keep_stable=True is without effect here"):
        fit(make(Absolute), NTKBalancer(keep_stable=True), steps=2)


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_no_other_optimizer_is_held_against_the_bound_unless_asked_for(optimizer: str):
    class Other(Fast):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            if optimizer == "adam":
                return torch.optim.Adam(self.parameters(), lr=self.lr)
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.5)

    free, asked = NTKBalancer(), NTKBalancer(keep_stable=True)
    fit(make(Other), free, steps=1)
    with told_once("with the new weights the learning rate"):
        fit(make(Other), asked, steps=1)
    factors = {n: asked.weights[n] / free.weights[n] for n in free.weights}
    assert factors["pde"] == pytest.approx(factors["bc"])
    assert factors["bc"] < 1


def test_a_stable_learning_rate_is_left_alone():
    module, balancer = build(), NTKBalancer(every_n_steps=1)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=1e-5)
    plain = NTKBalancer(every_n_steps=1, keep_stable=False)
    fit(module, balancer, steps=3)
    other = build()
    other.configure_optimizers = lambda: torch.optim.SGD(other.parameters(), lr=1e-5)
    fit(other, plain, steps=3)
    assert balancer.weights == plain.weights


def test_rule_from_yaml(tmp_path: Path):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(NTKBalancer, "balancer")
    named = parser.parse_string("balancer: {rule: residual_decay, ema: 0.9, warmup_steps: 5}")
    assert named.balancer.rule == "residual_decay"
    rule = "{class_path: pinn_ntk.weights.residual_decay.ResidualDecay, init_args: {floor: 0.3}}"
    given = parser.instantiate_classes(parser.parse_string(f"balancer: {{rule: {rule}}}"))
    assert given.balancer.rule == ResidualDecay(floor=0.3)


# --- Several processes

TWO_RANKS = """
import torch
from tests.pinn import Pinn, fit
from pinn_ntk.callbacks import NTKBalancer

class Apart(Pinn):
    def residuals(self, batch):
        shift = 0.3 * self.global_rank
        found = super().residuals({"x": batch["x"] - shift, "ends": batch["ends"] + shift})
        return found | {"pde": found["pde"] + 0 * self.net[-1].bias}  # DDP wants all parameters

if __name__ == "__main__":
    for rule in ("trace", "largest_eigenvalue", "gradient_norm", "residual_decay", "pointwise"):
        torch.manual_seed(1)
        module, balancer = Apart(), NTKBalancer(every_n_steps=2, rule=rule)
        fit(module, balancer, steps=5, devices=2, strategy="ddp")
        digest = sum(float(p.detach().sum()) for p in module.parameters())
        print(f"\\nRESULT {rule} {balancer.weights!r} {digest!r}\\n", flush=True)
"""


@pytest.mark.slow
def test_all_processes_set_the_same_weights(tmp_path: Path):
    file = tmp_path / "two_ranks.py"
    file.write_text(TWO_RANKS)
    results = re.findall(r"RESULT (\w+) (\{.*?\}) (\S+)", python(file).stdout)
    assert len(results) == 2 * 5
    assert len(set(results)) == 5  # both ranks have the same weights and parameters
    assert all(ast.literal_eval(weights)["bc"] > 1.1 for _, weights, _ in results)


def test_terms_that_cannot_be_measured_are_not_said_to_be_absent():
    """A run that diverged says so, and not that its terms were in no batch."""

    class Diverges(Pinn):
        def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
            bad = float("nan") if self.global_step > 3 else 1.0
            return super().losses({n: r * bad for n, r in residuals.items()})

    options = {"max_epochs": -1, "limit_train_batches": 2}
    with told_once("weighting the loss failed with ResidualError"):
        fit(make(Diverges), NTKBalancer(every_n_steps=4), steps=24, **options)
