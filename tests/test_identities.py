"""Functions that hand on what they get: DDP before a loss, backward hooks at a module."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import empirical_ntk, find_terms
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.step.recorder import Recorder
from tests.asserts import assert_is_ntk_of
from tests.kernels import mlp
from tests.scripts import python
from tests.zoo import Noted, assert_series, assert_traces, compare


class _DDPSink(torch.autograd.Function):
    """As torch puts it behind the forward pass under DDP, by the same name."""

    @staticmethod
    def forward(ctx: Any, _: object, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(tensor.clone() for tensor in inputs)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *gradients)


def hooked(module: nn.Module) -> nn.Module:
    module.register_full_backward_hook(lambda *_: None)
    return module


class Sunk(Noted):
    """The loss and what comes with it pass through DDP."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss, outputs = super().training_step(batch, batch_idx), self.net(batch["x"])
        _, outputs, loss, _ = _DDPSink.apply(None, outputs.detach(), outputs, loss, loss.detach())
        return {"loss": loss, "outputs": outputs}


class Hooked(Noted):
    """Somebody watches the gradients at modules, that of the loss among them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for part in self.net[1:]:
            hooked(part)
        self.mse = hooked(nn.MSELoss())

    def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.mse(r, torch.zeros_like(r)) for name, r in residuals.items()}

    def residuals(self, batch: Any) -> dict[str, Tensor]:
        return {"pde": self.net(batch["x"]) - batch["x"], "bc": self.net(batch["ends"])}


@pytest.mark.parametrize("fit", [{}, {"accumulate_grad_batches": 2}], ids=["", "accumulated"])
@pytest.mark.parametrize("kind", [Sunk, Hooked])
def test_training_is_measured_and_balanced_as_without(kind: Any, fit: dict[str, Any]):
    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    module, hand = compare(kind, monitor, balancer, weigh_every=2, fit={"steps": 5, **fit})
    assert_traces(monitor, module, [0, 2, 4])
    assert balancer.weights == pytest.approx(hand.weights, rel=1e-9)
    assert_series(monitor, "ntk/effective_weight/bc", lambda s: module.rule(s)["bc"], [0, 2, 4])
    compare(kind, NTKMonitor(every_n_steps=2), fit=fit)


def test_the_way_to_the_terms_does_not_lead_into_other_outputs():
    net = mlp(1, 5, 1)
    r = net(torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None])
    _, sunk, size = _DDPSink.apply(None, net(torch.ones_like(r)), r.square().mean(), r.abs().sum())
    loss = 3 * sunk / 2
    terms = find_terms(loss, names={"pde": sunk, "size": size})
    assert {name: float(term.weight[0]) for name, term in terms.items()} == {"pde": 3 / 8}
    assert terms["pde"].residual is r
    recorder = Recorder()
    recorder.begin()
    recorder.heard("pde", sunk)
    assert list(recorder.terms(loss, check=True)) == ["pde"]


def test_hooks_at_modules_leave_the_kernel_on_the_fast_path():
    net, x = mlp(1, 6, 6, 1), torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    for part in net[1:]:
        hooked(part)
    x.requires_grad_()
    u = net(x)
    (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    residuals = {"pde": u_x - x.detach(), "bc": net(x.detach()[:2])}
    kernel = empirical_ntk(residuals, net)  # a fallback would warn
    assert_is_ntk_of(kernel, residuals, net)


UNUSED = """
import torch
from tests.pinn import Pinn, fit
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

class Unused(Pinn):
    def __init__(self):
        super().__init__()
        self.spare = torch.nn.Linear(2, 2).double()

if __name__ == "__main__":
    torch.manual_seed(1)
    module, balancer, monitor = Unused(), NTKBalancer(every_n_steps=2), NTKMonitor()
    strategy = "ddp_find_unused_parameters_true"
    run = fit(module, monitor, balancer, steps=4, devices=2, strategy=strategy)
    trace = float(run.callback_metrics["ntk/trace/pde"])
    print(f"RESULT {balancer.weights['pde']!r} {balancer.weights['bc']!r} {trace!r}", flush=True)
"""


@pytest.mark.slow
def test_parameters_that_no_loss_uses_under_two_processes(tmp_path: Path):
    script = tmp_path / "unused.py"
    script.write_text(UNUSED)
    results = re.findall(r"RESULT (\S+) (\S+) (\S+)", python(script).stdout)
    assert len(results) == 2
    assert results[0] == results[1]
    pde, bc, trace = map(float, results[0])
    assert 1 / pde + 1 / bc == pytest.approx(1, rel=1e-9)
    assert trace > 0
