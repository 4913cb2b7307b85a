"""Terms that are logged and part of the loss, but from which no gradient flows: said once, by name.

And what must not be taken for one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss, mse_loss, softplus

from pinn_ntk import LossWeights, NTKWarning, tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import Pinn, fit, ours, same, told_once

Losses = dict[str, Tensor]


class Slip(Pinn):
    """A training step of somebody's own; ``step(self, pde, bc)`` gets both residuals alive."""

    def __init__(self, step: Callable[[Slip, Tensor, Tensor], Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.step = step
        self.s = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.weights = LossWeights(["pde", "bc"]) if "weights" in step.__name__ else None

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        return self.step(self, residuals["pde"], residuals["bc"])

    def all(self, **losses: Any) -> Any:
        """Log the terms, and add them up."""
        self.log_dict(losses)
        return sum(losses.values())


def build(step: Callable[..., Any]) -> Slip:
    torch.manual_seed(1)
    return Slip(step)


def no_create_graph(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None].requires_grad_()
    (u_x,) = torch.autograd.grad(m.net(x).sum(), x, create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), x)
    return m.all(pde=(u_xx - 1).square().mean(), bc=bc.square().mean())


def no_create_graph_but_points(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    """The source term depends on the points, which require a gradient: there is a graph."""
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None].requires_grad_()
    (u_x,) = torch.autograd.grad(m.net(x).sum(), x, create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), x)
    return m.all(pde=(u_xx - torch.sin(x)).square().mean(), bc=bc.square().mean())


def detached(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.detach().square().mean(), bc=bc.square().mean())


def item(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.square().mean().item(), bc=bc.square().mean())


def item_of_both_logged(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    losses = {"pde": pde.detach().square().mean(), "bc": bc.square().mean()}
    for name, value in losses.items():
        m.log(name, value.item())
    m.log("total", sum(losses.values()).item())
    m.log("lr", 0.001)
    return losses["bc"] + losses["pde"]


def no_grad(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    with torch.no_grad():
        lost = pde.square().mean()
    return m.all(pde=lost, bc=bc.square().mean())


def weighted(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    m.log_dict({"pde": (lost := pde.detach().square().mean()), "bc": (kept := bc.square().mean())})
    return 100 * lost + kept


def two(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    ic = bc[:2].detach().square().mean()
    return m.all(ic=ic, pde=pde.detach().square().mean(), bc=bc.square().mean())


def own_weights(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    losses = {"pde": pde.detach().square().mean(), "bc": bc.square().mean()}
    m.log_dict(losses)
    return m.weights(losses)


def learned_weight(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    m.log_dict({"pde": (lost := pde.detach().square().mean()), "bc": (kept := bc.square().mean())})
    return torch.exp(-m.s) * lost + m.s + kept


NAMED: dict[Callable[..., Any], str] = {
    no_create_graph: r"'pde' has no gradient and is not trained: \S+ of the loss \S+ depends on no",
    no_create_graph_but_points: "'pde' has a gradient by the points alone, by no trained",
    detached: "'pde' has no gradient and is not trained",
    item: "'pde' has no gradient and is not trained",
    item_of_both_logged: "'pde' has no gradient and is not trained",
    no_grad: "'pde' has no gradient and is not trained",
    weighted: r"'pde' \(times 100\) has no gradient and is not trained",
    two: "'ic' and 'pde' have no gradient and are not trained",
    learned_weight: "'pde' has no gradient: only learned weights before it are trained",
    own_weights: "'pde' has no gradient and is not trained",
}


@pytest.mark.parametrize("step", NAMED, ids=lambda step: step.__name__)
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}], ids=["", "accumulated"])
def test_the_term_is_named_once_with_the_line_to_change(step: Any, options: dict[str, Any]):
    with told_once(f"^NTKMonitor: {NAMED[step]}.*create_graph=True.*item"):
        fit(build(step), NTKMonitor(every_n_steps=2), steps=4, **options)


def test_monitor_and_balancer_say_it_once_together_and_training_is_the_same():
    with told_once("^NTKBalancer: 'pde' has no gradient and is not trained"):
        fit(module := build(detached), NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2))
    fit(bare := build(detached))
    assert same(module, bare)  # the one term that is trained has weight 1
    with told_once("^NTKBalancer: 'pde' has no gradient"):
        fit(build(detached), NTKBalancer())
    with told_once("^NTKMonitor: 'pde' has no gradient"):  # in each fit
        fit(build(detached), NTKMonitor())


def integer(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.square().mean(), bc=bc.square().mean()) + (pde > 0).sum() + 1


def added_after_the_log(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    total = m.all(pde=pde.square().mean(), bc=bc.square().mean())
    m.log("loss", total)
    return total + bc[:1].detach().square().mean()


def constant_on_purpose(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.square().mean(), bc=bc.square().mean()) + 1.0


@pytest.mark.parametrize("step", [integer, added_after_the_log, constant_on_purpose])
def test_what_is_not_logged_is_said_by_its_size(step: Any):
    said = r"^NTKMonitor: \d\S* of the loss \d\S* depends on no parameter, and nothing is logged"
    with told_once(said):
        fit(build(step), NTKMonitor(every_n_steps=2), steps=4)


def mean_of_nothing(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.square().mean(), bc=bc[bc.detach() > 1e9].square().mean())


def mse_of_nothing(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.square().mean(), bc=mse_loss(bc[:0], torch.zeros(0, 1).double()))


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("step", [mean_of_nothing, mse_of_nothing])
@pytest.mark.parametrize("kind", [NTKMonitor, NTKBalancer])
def test_an_empty_set_of_points_is_named(step: Any, kind: Any):
    with told_once(
        "the loss is nan at this step, though .*: 'bc' has no rows, and a mean of nothing"
    ):
        fit(build(step), kind(every_n_steps=2), steps=4)


def nan_without_a_graph(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.square().mean(), bc=bc.detach()[:0].square().mean())


def test_a_nan_that_was_logged_is_named():
    with told_once("the loss is nan at this step, though .* are finite: 'bc' is nan"):
        fit(build(nan_without_a_graph), NTKMonitor(every_n_steps=2), steps=4)


# --- What must not be taken for one


def learned_weights(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    m.all(pde=pde.square().mean(), bc=bc.square().mean())
    return torch.exp(-m.s) * pde.square().mean() + m.s + bc.square().mean() / (2 * m.s**2)


def learned_weights_of_losses_taken_out(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    total = m.all(pde=(first := pde.square().mean()), bc=bc.square().mean())
    m.log("pde_now", first.detach())
    return total + m.s * first.detach() + 1e-3 * m.s**2


def penalties(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    l2 = sum(p.square().sum() for p in m.parameters())
    l1 = sum(p.abs().sum() for p in m.parameters())
    return m.all(pde=pde.square().mean(), bc=bc.square().mean()) + 1e-3 * l2 + 1e-4 * l1 + m.s**4


def barrier(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.square().mean()) - torch.log(1 + bc.square().mean()) / 10


def other_phi(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    huber = huber_loss(pde, torch.zeros_like(pde), delta=0.1)
    cosh = torch.log(torch.cosh(bc)).mean()
    return m.all(pde=huber, bc=cosh) + pde.norm() + bc.square().mean().sqrt() + pde.abs().max()


def log_of_the_loss(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return torch.log(m.all(pde=pde.square().mean(), bc=bc.square().mean()) + 1e-6)


def ascent(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return -softplus(m.s) * pde.square().mean() + bc.square().mean()


def tapped(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=tap(pde, "pde").square().mean(), bc=bc.square().mean())


def normalised(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    first = pde.square().mean()
    return m.all(pde=first / first.detach(), bc=bc.square().mean())


def numbers_beside(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    m.log_dict({"lr": 1e-3, "bc_weight": 3.0, "error": (pde.detach() - 1).norm().item()})
    return m.all(pde=pde.square().mean()) + 3.0 * bc.square().mean()


HONEST = [
    *(
        learned_weights,
        learned_weights_of_losses_taken_out,
        penalties,
        barrier,
        other_phi,
        log_of_the_loss,
        ascent,
        tapped,
    ),
    *(normalised, numbers_beside),
]


@pytest.mark.parametrize("step", HONEST, ids=lambda step: step.__name__)
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}],
    ids=["", "accumulated", "half"],
)
def test_nothing_is_said_where_all_is_trained(step: Any, options: dict[str, Any]):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", NTKWarning)
        fit(build(step), NTKMonitor(every_n_steps=2), steps=4, **options)
    assert [said for said in ours(warned) if re.search("no gradient|depends on no|nan", said)] == []


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("route", [{}, {"residuals": "residuals"}, {"probe": "residuals"}])
def test_nothing_is_said_on_other_routes(optimizer: str, route: dict[str, str]):
    torch.manual_seed(1)
    fit(Pinn(optimizer), NTKMonitor(every_n_steps=2, **route), steps=4)


def tapped_without_a_graph(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return tap(pde.detach(), "pde").square().mean() + tap(bc, "bc").square().mean()


def watched(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    tap(pde.detach(), "watched")
    return m.all(pde=tap(pde, "pde").square().mean(), bc=tap(bc, "bc").square().mean())


def test_what_is_tapped_without_a_graph_is_named_if_it_is_in_the_loss():
    with told_once("^NTKMonitor: 'pde' has no gradient and is not trained"):
        fit(build(tapped_without_a_graph), NTKMonitor(), steps=2)
    fit(build(watched), NTKMonitor(), steps=2)


def squared_by_mse(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    zero = torch.zeros((), dtype=torch.float64)
    return m.all(pde=mse_loss(pde.square().mean(), zero), bc=bc.square().mean())


def squared_by_power(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    return m.all(pde=pde.square().mean() ** 2, bc=bc.square().mean())


def integral(m: Slip, pde: Tensor, bc: Tensor) -> Any:
    """Constraints on integrals and single points, roots of means, powers of other things."""
    root = pde.square().mean().sqrt()
    return m.all(pde=(pde.square().mean() - 1) ** 2, bc=bc.mean() ** 2, rms=root**2) + bc[0, 0] ** 2


@pytest.mark.parametrize("step", [squared_by_mse, squared_by_power])
def test_a_loss_that_is_squared_again_is_named_and_a_constraint_is_not(step: Any):
    with told_once(
        r"^NTKMonitor: 'pde' \(6 rows\): the square of one number that is a sum or mean"
    ):
        fit(build(step), NTKMonitor(every_n_steps=2), steps=4)
    fit(build(integral), NTKMonitor(every_n_steps=2), steps=4)
