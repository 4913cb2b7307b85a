"""Both callbacks under manual optimisation: several optimizers, raw backward passes, taps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pinn_ntk import tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.errors import NTKWarning
from tests.pinn import N_PDE, batch, ours, told_once
from tests.zoo import (
    Manual,
    Noted,
    SelfAdaptive,
    TwoNetworks,
    assert_close,
    assert_series,
    assert_terms,
    assert_traces,
    compare,
    make,
    train,
)

EPOCHS = {"steps": -1, "max_epochs": 1, "limit_train_batches": 5}
STEPS = [0, 2, 4]

KINDS: dict[str, tuple[type[Noted], dict[str, Any], dict[str, Any]]] = {
    "manual_backward": (Manual, {"optimizer": "adam"}, {"steps": 5}),
    "raw_with_taps": (Manual, {"optimizer": "adam", "raw": True, "taps": True}, {"steps": 5}),
    "manual_with_taps": (Manual, {"optimizer": "adam", "taps": True}, {"steps": 5}),
    "bare_optimizer": (Manual, {"pl_optimizer": False}, EPOCHS),
    "bare_optimizer_raw": (Manual, {"pl_optimizer": False, "raw": True, "taps": True}, EPOCHS),
    "generator_of_weights": (SelfAdaptive, {}, {"steps": 10}),
    "two_losses": (TwoNetworks, {"manual": True}, {"steps": 10}),
}


@pytest.mark.parametrize("case", KINDS.values(), ids=list(KINDS))
def test_every_loss_is_measured_and_training_the_same(case: Any):
    kind, of_module, of_trainer = case
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(kind, monitor, fit=of_trainer, **of_module)
    assert_traces(monitor, module, STEPS)
    if "pl_optimizer" in of_module:  # Lightning's counter stands still
        assert module.trainer.global_step == 0
        assert_series(monitor, "ntk/drift/parameters", module.moved, STEPS)
        assert module.moved(4) > module.moved(2) > 0
    if of_module.get("raw"):  # no loss to be seen
        assert not [tag for tag in monitor.history if "effective_weight" in tag]
        return
    ones = dict.fromkeys(module.jacobians[0], 1.0)
    assert_terms(monitor, "effective_weight", lambda s: ones | module.effective.get(s, {}), STEPS)


ONE_LOSS = [kind for kind in KINDS if kind != "two_losses"]
"""With two, weights depend on the order in which they come: a test of their own."""


@pytest.mark.filterwarnings("ignore:NTKBalancer. the loss trains weights of its terms .mask.")
@pytest.mark.parametrize("case", ONE_LOSS)
def test_balanced_training_is_that_of_losses_weighted_by_hand(case: str):
    kind, of_module, of_trainer = KINDS[case]
    balancer = NTKBalancer(every_n_steps=2)
    module, hand = compare(kind, balancer, weigh_every=2, fit=of_trainer, **of_module)
    assert balancer.weights == pytest.approx(hand.weights, rel=1e-9)
    plain = make(kind, **of_module)
    with pytest.raises(AssertionError):
        assert_close(module, plain, rel=1e-4)


def test_both_losses_of_a_step_are_weighted():
    """Each loss of its own optimizer; their terms are balanced against each other in the end."""
    module, balancer = make(TwoNetworks, manual=True), NTKBalancer(every_n_steps=1)
    train(module, balancer, steps=6)
    assert set(balancer.weights) == {"pde", "bc", "data"}
    assert balancer.weights == pytest.approx(module.rule(2), rel=1e-9)


# --- Raw backward passes


@pytest.mark.parametrize("callback", [NTKMonitor, NTKBalancer])
def test_an_unseen_backward_pass_is_told_once_after_the_first_epoch(callback: Any):
    fit = {"steps": -1, "max_epochs": 3, "limit_train_batches": 4}
    with told_once(rf"(?s)^{callback.__name__}.*manual_backward.*tap"):
        compare(Manual, callback(every_n_steps=2), fit=fit, raw=True)


def test_the_warning_comes_with_the_first_epoch():
    class Epochs(Manual):
        def on_train_epoch_start(self) -> None:
            counts.append(len(ours(warned)))

    counts: list[int] = []
    module = make(Epochs, raw=True)
    with pytest.warns(NTKWarning) as warned:
        train(module, NTKMonitor(), steps=-1, max_epochs=3, limit_train_batches=2)
    assert counts == [0, 1, 1]


class Accumulating(Manual):
    """Raw backward passes, a term at a time, each with its residual tapped."""

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.note(self.residuals(batch))
        for name, residual in self.residuals(batch).items():
            loss = self.losses({name: tap(residual, name)})[name]
            (self.weights.get(name, 1.0) * loss).backward(retain_graph=True)
        optimizer.step()


def test_taps_of_losses_differentiated_one_by_one():
    monitor = NTKMonitor(every_n_steps=2)
    module, _ = compare(Accumulating, monitor, fit={"steps": 3})
    assert_traces(monitor, module, [0, 2])


def test_taps_of_a_graph_differentiated_before_and_twice():
    """Gradients that pass a tapped residual for other ends are neither weighted nor in the way."""

    class Penalised(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            optimizer = self.optimizers()
            residuals = self.residuals(batch)
            self.note(residuals)
            loss = self.total(self.losses(self.tapped(residuals)))
            optimizer.zero_grad()
            loss.backward(retain_graph=True)
            first = [p.grad.clone() for p in self.parameters()]  # type: ignore[union-attr]
            optimizer.zero_grad()
            loss.backward()
            second = [p.grad for p in self.parameters()]
            self.again = all(map(torch.equal, first, second))
            optimizer.step()

    balancer, monitor = NTKBalancer(every_n_steps=2), NTKMonitor(every_n_steps=2)
    module, _ = compare(Penalised, balancer, monitor, weigh_every=2, fit={"steps": 4}, taps=True)
    assert module.again
    assert_traces(monitor, module, [0, 2, 3])


def test_several_backward_passes_of_one_step_measure_the_first():
    class Twice(Manual):
        """A second pass over other points, as in resampling within a step."""

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            for shift in (0.0, 0.05):
                residuals = self.residuals({name: x + shift for name, x in batch.items()})
                self.descend(residuals, batch_idx, self.optimizers())  # notes the first

    module, monitor = make(Twice), NTKMonitor(every_n_steps=2)
    train(module, monitor, steps=10)
    assert_traces(monitor, module, STEPS)


# --- Losses that cannot be read


class Adversary(Noted):
    """Pointwise weights ascend on a loss of their own, which holds no residual."""

    last = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False
        self.lam = torch.nn.Parameter(torch.ones(N_PDE, 1, dtype=torch.float64))

    def trained(self) -> list[Any]:
        return list(self.net.parameters())

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(p, lr=0.01) for p in (self.net.parameters(), [self.lam])]

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        for optimizer, ascends in zip(self.optimizers(), (self.last, not self.last), strict=True):
            residuals = self.residuals(batch)
            optimizer.zero_grad()
            if ascends:
                self.manual_backward(-(self.lam**2 * residuals["pde"].detach() ** 2).mean())
            else:
                self.note(residuals)
                losses = self.losses(residuals)
                self.log_losses(losses, batch_idx)
                self.manual_backward(self.total(losses))
            optimizer.step()


class Opaque(Adversary):
    """Its second loss passes through a function that nothing is known of."""

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        first, _ = self.optimizers()
        self.descend(self.residuals(batch), batch_idx, first)
        first.zero_grad()
        self.manual_backward(self.net(batch["x"]).mean())
        first.step()


class OpaqueFirst(Opaque):
    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        first, _ = self.optimizers()
        first.zero_grad()
        self.manual_backward(self.net(batch["x"]).mean())
        first.step()
        self.descend(self.residuals(batch), batch_idx, first)


class LastAdversary(Adversary):
    last = True


@pytest.mark.parametrize("kind", [Adversary, LastAdversary, Opaque, OpaqueFirst])
def test_a_loss_that_cannot_be_read_leaves_the_others_of_the_step(kind: Any):
    monitor = NTKMonitor(every_n_steps=2)
    with told_once("NTKMonitor: a loss is left as it is, and others of the step are not: the loss"):
        module, _ = compare(kind, monitor, fit={"steps": 10})
    assert_traces(monitor, module, STEPS)
    balancer = NTKBalancer(every_n_steps=2)
    with told_once("NTKBalancer: a loss is left as it is"):
        _, hand = compare(kind, balancer, weigh_every=2, fit={"steps": 10})
    assert balancer.weights == pytest.approx(hand.weights, rel=1e-9)


class Curriculum(Noted):
    """Warms up on a loss that holds no residual."""

    def total(self, losses: Any) -> Any:
        warm = self.step < 2
        return self.net(batch()["x"]).mean() if warm else super().total(losses)


def test_a_loss_that_can_be_read_only_later_is_measured_from_then_on():
    monitor = NTKMonitor(every_n_steps=1)
    with told_once("the measurement failed with OpaqueLossError.*tried again when next due"):
        module, _ = compare(Curriculum, monitor, fit={"steps": 4})
    assert_traces(monitor, module, [2, 3])


class NoKernel(Noted):
    """Until step 2 a residual is complex, and has no kernel."""

    def losses(self, residuals: Any) -> Any:
        bc = residuals["bc"]
        residuals = residuals | {"bc": torch.complex(bc, 0 * bc) if self.step < 2 else bc}
        return {name: r.abs().square().mean() for name, r in residuals.items()}


def test_a_kernel_that_can_be_read_only_later_is():
    monitor = NTKMonitor(every_n_steps=1)
    with told_once("the kernel failed with ResidualError.*the kernel is tried again when next due"):
        module, _ = compare(NoKernel, monitor, fit={"steps": 4})
    assert_traces(monitor, module, [2, 3])
