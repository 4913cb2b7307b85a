"""Weights reach the terms they are meant for, however the loss and its logging change."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pinn_ntk import tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.errors import ArgumentError, NTKWarning
from tests.by_hand import Weighted, gradient
from tests.pinn import Pinn, batch, build, fit, same
from tests.zoo import make


class Changing(Pinn):
    """Three terms are logged; even batches train on pde + ic, odd ones on pde + bc."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        residuals = super().residuals(batch)
        return residuals | {"ic": 0.1 * self.net(3 * batch["ends"]) - 1}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = self.losses(self.residuals(batch))
        self.log_losses(losses, batch_idx)
        self.plain = {name: gradient(loss, self) for name, loss in losses.items()}
        return losses["pde"] + losses["bc" if batch_idx % 2 else "ic"]


class Checked(NTKBalancer):
    """Compares the gradient of each step with the sum of its weighted terms."""

    steps = 0

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_after_backward(trainer, pl_module)
        gradient = torch.cat([p.grad.flatten() for p in pl_module.parameters()])  # type: ignore[union-attr]
        used = ("pde", "bc" if trainer.global_step % 2 else "ic")
        expected = sum(self.weights[name] * pl_module.plain[name] for name in used)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
        self.steps += 1


def test_a_loss_that_changes_under_the_same_keys_is_weighted_by_name():
    balancer = Checked(every_n_steps=3)
    fit(make(Changing), balancer, NTKMonitor(every_n_steps=1), steps=8)
    assert balancer.steps == 8
    assert balancer.weights["ic"] > 3 * balancer.weights["bc"] > 3


class Late(Pinn):
    """The terms are logged at every fourth batch, not at the first one."""

    def log_losses(self, losses: dict[str, Tensor], batch_idx: int) -> None:
        if batch_idx % 4 == 3:
            super().log_losses(losses, batch_idx)


class LateByHand(Weighted, Late):
    pass


@pytest.mark.parametrize("every", [1, 3, 5])
def test_terms_that_are_logged_late_keep_their_weights(every: int):
    hand, balanced = make(LateByHand, every), make(Late)
    balancer = NTKBalancer(every_n_steps=every)
    fit(hand, steps=12)
    fit(balanced, balancer, steps=12)
    assert same(hand, balanced)
    assert balancer.weights == dict(zip(("pde", "bc"), hand.weights.values(), strict=True))


def test_a_monitor_with_names_of_its_own_sees_the_weights_in_force():
    balancer, monitor = NTKBalancer(), NTKMonitor(names=["a", "b"])
    fit(build(), balancer, monitor, steps=1)
    own = [monitor.history[f"ntk/effective_weight/{name}"][0, 1] for name in ("a", "b")]
    assert own == pytest.approx(list(balancer.weights.values()), rel=1e-12)


@pytest.mark.parametrize("options", [{"include": "bc"}, {"params": "net.2.*"}])
def test_no_step_size_of_a_part_of_the_loss(options: dict[str, str]):
    monitor = NTKMonitor(**options)  # type: ignore[arg-type]
    fit(build(), monitor, steps=1)
    assert "ntk/trace/bc" in monitor.history
    assert "ntk/max_stable_lr" not in monitor.history


def test_both_terms_of_one_tapped_residual_are_weighted():
    class Both(Pinn):
        """The boundary residual enters the loss squared and as absolute value."""

        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
            pde, bc = (tap(r, name) for name, r in self.residuals(batch).items())
            return pde.square().mean() + bc.square().mean() + bc.abs().mean()

        def on_after_backward(self) -> None:
            self.gradient = torch.cat([p.grad.flatten() for p in self.parameters()])

    module, balancer = make(Both), NTKBalancer()
    residuals = module.residuals(batch())
    pde = gradient(residuals["pde"].square().mean(), module)
    bc = gradient(residuals["bc"].square().mean() + residuals["bc"].abs().mean(), module)
    fit(module, balancer, steps=1)
    expected = balancer.weights["pde"] * pde + balancer.weights["bc"] * bc
    torch.testing.assert_close(module.gradient, expected, rtol=1e-12, atol=1e-14)


class Strange(Pinn):
    """Its residuals go by other names than its logged terms."""

    def other(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"my_{name}": r for name, r in self.residuals(batch).items()}

    def nothing(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {}


def test_residuals_that_fit_no_term_are_said_and_not_logged_as_weights():
    module, balancer = Strange(), NTKBalancer(residuals="other")
    with pytest.warns(NTKWarning, match=r"my_pde(.|\n)*only \['pde', 'bc'\]"):
        fit(module, balancer, steps=2)
    assert not balancer.history


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["data*"]}, r"include=\['data\*'\] matches none of the terms \['pde', 'bc'\]"),
        ({"residuals": "nothing"}, "'nothing' returned an empty dict"),
    ],
)
@pytest.mark.parametrize("callback", [NTKMonitor, NTKBalancer])
def test_nothing_to_measure_is_refused(callback: type, options: dict[str, object], message: str):
    with pytest.raises(ArgumentError, match=message):
        fit(Strange(), callback(**options), steps=2)


@pytest.mark.parametrize("callback", [NTKMonitor, NTKBalancer])
def test_names_are_a_list(callback: type):
    with pytest.raises(ValueError, match=r"expected a list, as in \['pde'\]"):
        callback(names="pde")
