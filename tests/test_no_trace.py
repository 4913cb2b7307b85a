"""No trace: whatever way of training, and whatever keeps or computes again what a graph needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import grad, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

from pinn_ntk import LossWeights, tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.kernels import mlp
from tests.pinn import Pinn, fit, same, told_once
from tests.zoo import make, steps_of

# --- What keeps, or computes again, what a graph needs


def again(part: Callable[..., Tensor], *arguments: Any, **options: Any) -> Any:
    return checkpoint(part, *arguments, use_reentrant=False, **options)


def by_layers(net: Any, x: Tensor) -> Tensor:
    for layer in net:
        x = again(layer, x)
    return x


@contextmanager
def counted() -> Iterator[None]:
    """Hooks on saved tensors that tell forward and backward passes apart by what they count."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> int:
        kept[len(kept)] = tensor
        return len(kept) - 1

    with saved_tensors_hooks(pack, lambda number: kept[number]):
        yield


KEEPERS: dict[str, tuple[Callable[[Any, Tensor], Any], Any]] = {
    "plain": (lambda net, x: net(x), nullcontext),
    "checkpointed": (again, nullcontext),
    "by_layers": (by_layers, nullcontext),
    "nested": (lambda net, x: again(lambda y: by_layers(net, y), x, early_stop=False), nullcontext),
    "save_on_cpu": (lambda net, x: net(x), save_on_cpu),
    "own_hooks": (again, counted),
}


def second_grad(u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (u_x,) = torch.autograd.grad(u(x).sum(), x, create_graph=True)
    return torch.autograd.grad(u_x.sum(), x, create_graph=True)[0]


def second_vmap(u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return vmap(grad(lambda y: grad(lambda z: u(z[None])[0, 0])(y)[0]))(x)


def second_jacrev(u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return vmap(jacrev(jacrev(lambda z: u(z[None])[0, 0])))(x)[:, 0]


def second_jvp(u: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    ones = torch.ones_like(x)
    return jvp(lambda y: jvp(u, (y,), (ones,))[1], (x,), (ones,))[1]


# --- Ways of training


class Way(Pinn):
    """A plain network, called through a keeper."""

    keeper = "plain"
    second = staticmethod(second_grad)
    tapped = False

    def __init__(self, dropout: float = 0.0, optimizer: str = "adam") -> None:
        super().__init__(optimizer)
        self.net = mlp(1, 6, 6, 1)
        if dropout:
            self.net.insert(2, nn.Dropout(dropout))

    def u(self, x: Tensor) -> Tensor:
        return KEEPERS[self.keeper][0](self.net, x)  # type: ignore[no-any-return]

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with KEEPERS[self.keeper][1]():
            found = {
                "pde": self.second(self.u, batch["x"]) - batch["x"],
                "bc": self.u(batch["ends"]),
            }
        return {n: tap(r, n) for n, r in found.items()} if self.tapped else found


class Weighs(Way):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.loss_weights = LossWeights(["pde", "bc"])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.losses(self.residuals(batch))
        self.log_dict(losses)
        return self.loss_weights(losses)


class Raw(Way):
    """Backward passes by hand; residuals are tapped."""

    tapped = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer = self.optimizers()
        optimizer.zero_grad()
        losses = self.losses(self.residuals(batch))
        (losses["pde"] + losses["bc"]).backward()
        optimizer.step()


class Tapped(Way):
    tapped = True


class Several(Way):
    """Two optimizer steps a batch, one after the other on a network of its own gradient."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        halves = self.net[:2].parameters(), self.net[2:].parameters()
        return [torch.optim.Adam(half, lr=0.01) for half in halves]

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            losses = self.losses(self.residuals(batch))
            self.log_losses(losses, batch_idx)
            self.manual_backward(losses["pde"] + losses["bc"])
            optimizer.step()


class Hooked(Way):
    """Gradients are clipped, and made noisy, by hooks on parameters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for parameter in self.parameters():
            parameter.register_hook(lambda g: (g + 0.1 * torch.randn_like(g)).clamp(-0.1, 0.1))


WAYS: dict[str, tuple[type[Way], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "automatic": (Way, {}, {}, {}),
    "accumulated": (Way, {}, {"accumulate_grad_batches": 2}, {}),
    "lbfgs": (Way, {"optimizer": "lbfgs"}, {}, {}),
    "wolfe": (Way, {"optimizer": "wolfe"}, {}, {}),
    "loss_weights": (Weighs, {}, {}, {}),
    "manual": (Several, {}, {"steps": 6}, {}),
    "raw": (Raw, {}, {}, {}),
    "tapped": (Tapped, {}, {}, {}),
    "residuals": (Way, {}, {}, {"residuals": "residuals"}),
    "probe": (Way, {}, {}, {"probe": "residuals"}),
    "mixed": (Way, {}, {"precision": "bf16-mixed"}, {}),
    "clipped": (Way, {}, {"gradient_clip_val": 0.1}, {}),
    "anomalies": (Way, {}, {"detect_anomaly": True}, {}),
    "deterministic": (Way, {}, {"deterministic": True}, {}),
    "hooked": (Hooked, {}, {}, {}),
}
"""Name -> module with its options, those of the trainer, those of the monitor."""

HOW: dict[str, dict[str, Any]] = {
    "checkpointed": {"keeper": "checkpointed"},
    "nested": {"keeper": "nested"},
    "save_on_cpu": {"keeper": "save_on_cpu"},
    "own_hooks": {"keeper": "own_hooks"},
    "vmap": {"second": second_vmap},
    "jacrev": {"second": second_jacrev},
    "jvp": {"second": second_jvp},
}


def trained(way: str, *callbacks: pl.Callback, dropout: float = 0.0, **attributes: Any) -> Any:
    kind, of_module, of_trainer, _ = WAYS[way]
    module = make(kind, dropout=dropout, **of_module)
    for name, value in attributes.items():
        setattr(module, name, value)
    torch.manual_seed(2)
    fit(module, *callbacks, **({"steps": 3} | of_trainer))
    module.drawn = torch.rand(2)  # where the generator is in the end
    return module


def assert_no_trace(way: str, **options: Any) -> NTKMonitor:
    monitor = NTKMonitor(every_n_steps=2, **WAYS[way][3])
    module, plain = trained(way, monitor, **options), trained(way, **options)
    assert same(module, plain)
    assert torch.equal(module.drawn, plain.drawn)
    return monitor


@pytest.mark.parametrize("how", HOW.values(), ids=list(HOW))
@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_and_is_measured(way: str, how: dict[str, Any]):
    monitor = assert_no_trace(way, **how)
    assert steps_of(monitor, "ntk/trace/pde") == [0, 2]


@pytest.mark.parametrize("keeper", [keeper for keeper in KEEPERS if keeper != "plain"])
@pytest.mark.parametrize("way", ["automatic", "manual", "raw", "loss_weights"])
def test_balanced_training_is_that_of_the_plain_network(way: str, keeper: str):
    balancer, plain = NTKBalancer(every_n_steps=2), NTKBalancer(every_n_steps=2)
    module = trained(way, balancer, keeper=keeper)
    assert same(module, trained(way, plain))
    assert balancer.weights == plain.weights
    assert not same(module, trained(way))


@pytest.mark.parametrize("keeper", ["checkpointed", "by_layers", "nested"])
def test_dropout_of_what_is_computed_again(keeper: str):
    monitor = assert_no_trace("automatic", keeper=keeper, dropout=0.3)
    assert steps_of(monitor, "ntk/trace/pde") == [0, 2]


class Anew(Way):
    """Draws other numbers when it is computed again, writes into buffers, and logs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("calls", torch.zeros(()))
        self.noisy = False

    def part(self, x: Tensor) -> Tensor:
        self.calls += 1
        noise = 1e-3 * torch.randn(6, dtype=x.dtype) if self.noisy else 0.0
        u = self.net[2:](self.net[:2](x) + noise)
        self.log("size", u.detach().mean(), on_step=False, on_epoch=True, batch_size=1)
        return u

    def u(self, x: Tensor) -> Tensor:
        return again(self.part, x, preserve_rng_state=False)


@pytest.mark.parametrize("kind", [NTKMonitor, NTKBalancer])
def test_what_is_computed_again_draws_writes_and_logs_as_often_as_without(kind: Any):
    def run(*callbacks: pl.Callback, noisy: bool) -> tuple[Anew, float]:
        module = make(Anew)
        module.noisy = noisy
        kept = fit(module, *callbacks, steps=3, max_epochs=1)
        return module, float(kept.callback_metrics["size"])

    with told_once("IncompleteTermsError.*preserve_rng_state"):
        (module, size), (plain, expected) = run(kind(), noisy=True), run(noisy=True)
    assert same(module, plain)
    assert torch.equal(module.calls, plain.calls)
    assert size == expected
    module, _ = run(NTKMonitor(), noisy=False)
    assert torch.equal(module.calls, plain.calls)


@pytest.mark.parametrize("raw", [False, True])
def test_taps_and_keys_within_what_is_computed_again_are_heard_once(raw: bool):
    class Within(Raw):
        def part(self, x: Tensor, name: str) -> Tensor:
            residual = self.net(x)
            loss = (tap(residual, name) if raw else residual).square().mean()
            self.log(name, loss)
            return loss

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            optimizer = self.optimizers()
            optimizer.zero_grad()
            parts = {"a": batch["x"], "b": batch["ends"]}
            losses = [again(self.part, x.clone(), n) for n, x in parts.items()]
            torch.Tensor.backward(sum(losses)) if raw else self.manual_backward(sum(losses))
            optimizer.step()

    monitor, module, plain = NTKMonitor(every_n_steps=1), make(Within), make(Within)
    fit(module, monitor, steps=3)
    fit(plain, steps=3)
    assert same(module, plain)
    assert [tag for tag in monitor.history if "/trace/" in tag] == ["ntk/trace/a", "ntk/trace/b"]
    assert steps_of(monitor, "ntk/trace/a") == [0, 1, 2]


def test_a_network_that_only_a_plain_backward_pass_can_differentiate_is_told_once():
    class Reentrant(Way):
        def u(self, x: Tensor) -> Tensor:
            return checkpoint(self.net, x.clone().requires_grad_(), use_reentrant=True)

        def residuals(self, batch: Any) -> dict[str, Tensor]:
            return {"data": self.u(batch["x"]) - batch["x"], "bc": self.u(batch["ends"])}

    plain = make(Reentrant)
    fit(plain, steps=3)
    for callback in (NTKMonitor(every_n_steps=1), NTKBalancer(every_n_steps=1)):
        module = make(Reentrant)
        with told_once("use_reentrant=False"):
            fit(module, callback, steps=3)
        assert same(module, plain)
