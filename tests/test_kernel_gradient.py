"""The kernel gradient against steps of gradient descent, and slopes against hand and autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from pinn_ntk import NTK, ResidualError, empirical_ntk, find_terms, kernel_gradient, loss_gradients
from pinn_ntk.analysis.kernel_gradient import term_gradients
from tests.asserts import assert_near
from tests.cases import CASES, Case
from tests.kernels import IN_FLOAT64, Movable, built, by_autograd, explicit, two_terms
from tests.losses import LOSSES, Loss, of_each
from tests.networks import NETWORKS
from tests.operators import grad, laplacian, points

pytestmark = IN_FLOAT64


@pytest.mark.parametrize("case", CASES, ids=str)
def test_slopes_make_up_the_gradient_of_the_loss(case: Case) -> None:
    residuals, leaves, kernel = built(case)
    for name, loss in LOSSES.items():
        total = sum(loss(residuals).values())
        parts = term_gradients(kernel, loss_gradients(total, residuals))
        found = torch.stack(list(parts.values())).sum(0)
        scale = max(float(part.norm()) for part in parts.values())
        expected = by_autograd({"": total}, leaves)[0]
        assert_near(found, expected, 1e-12, f"sum of J^T g, {name}", scale)


FOUND = LOSSES | {"log_cosh": of_each(lambda r: r.cosh().log().mean())}  # of r, not of r / size


@pytest.mark.parametrize("loss", FOUND.values(), ids=FOUND)
def test_slopes_are_those_of_the_terms_found(loss: Loss) -> None:
    net = NETWORKS["mlp"](1, 1)
    x = points(6, 1)
    residuals = {"pde": laplacian(net(x), x), "bc": net(points(4, 1, seed=1)).squeeze(1) - 1}
    total = sum(loss(residuals).values())
    found = find_terms(total, names=list(residuals))
    for name, slope in loss_gradients(total, residuals).items():
        assert torch.equal(found[name].residual, residuals[name])
        assert_near(slope, found[name].slope, 1e-14, f"slope of {name}")


LossOf = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]


def one_from_another(w: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """L = r^2 + 3 s^2 with r = 5 s: dL/ds at fixed r is 6 s, not 6 s + 50 s."""
    s = w[:1] + 1
    r = 5 * s
    return (r.square() + 3 * s.square()).sum(), {"r": r, "s": s}


def coupled(w: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """L = (sum r) (sum s): no sum of terms, but differentiable in both."""
    r, s = w[:2] * 3, w[:1]
    return r.sum() * s.sum(), {"r": r, "s": s}


def of_one_split(w: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    r, s = (2 * w).split([2, 1])
    return r.square().sum() + s.sum(), {"r": r, "s": s}


def clipped(w: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    r = w * torch.tensor([1.5, 6.0, 0.075])  # 3, -6, 0.3
    return huber_loss(r, torch.zeros(3), reduction="sum", delta=0.5), {"r": r}


SLOPES: dict[str, tuple[LossOf, dict[str, list[float]]]] = {
    "one_from_another": (one_from_another, {"r": [30.0], "s": [18.0]}),
    "coupled": (coupled, {"r": [2.0, 2.0], "s": [3.0]}),
    "of_one_split": (of_one_split, {"r": [8.0, -4.0], "s": [1.0]}),
    "clipped": (clipped, {"r": [0.5, -0.5, 0.3]}),
}


@pytest.mark.parametrize("case", SLOPES)
def test_slopes_by_hand(case: str) -> None:
    build, expected = SLOPES[case]
    slopes = loss_gradients(*build(torch.tensor([2.0, -1.0, 4.0], requires_grad=True)))
    assert slopes.keys() == expected.keys()
    for name, slope in slopes.items():
        assert slope.tolist() == pytest.approx(expected[name], rel=1e-15)


def test_slopes_leave_graph_and_gradients_alone() -> None:
    w = torch.tensor([2.0, -1.0], requires_grad=True)
    r = w * 3
    loss = r.square().sum()
    first = loss_gradients(loss, r)["residual"]
    assert torch.equal(loss_gradients(loss, {"r": r})["r"], first)
    assert w.grad is None
    assert not first.requires_grad
    loss.backward()
    assert w.grad.tolist() == [36.0, -18.0]


def unseen(w: Tensor) -> object:
    return loss_gradients((3 * w).sum(), {"pde": 3 * w})


def twins(w: Tensor) -> object:
    r = 3 * w
    return loss_gradients(r.sum(), {"pde": r, "bc": r})


def freed(w: Tensor) -> object:
    r = 3 * w
    loss = r.square().sum()
    loss.backward()
    return loss_gradients(loss, {"pde": r})


UNFIT: list[tuple[Callable[[Tensor], object], type[Exception], str]] = [
    (unseen, ValueError, r"does not depend on residual 'pde'.*computed anew"),
    (twins, ValueError, r"'pde' and 'bc' are one tensor.*find_terms"),
    (freed, ValueError, r"graph of the loss is freed"),
    (lambda w: loss_gradients(w * 3, {"pde": w}), ValueError, r"shape \(2,\); expected"),
    (lambda w: loss_gradients(w.detach().sum(), w), ValueError, "loss has no graph"),
    (lambda w: loss_gradients(3.0, {"pde": w}), TypeError, "loss is a float"),
    (lambda w: loss_gradients(w.sum(), w.detach()), ResidualError, "does not require grad"),
]


@pytest.mark.parametrize(("ask", "error", "message"), UNFIT)
def test_what_has_no_slope_is_refused(ask, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(torch.tensor([2.0, -1.0], requires_grad=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_agree_with_blocks(case: Case) -> None:
    residuals, _, kernel = built(case)
    generator = torch.Generator().manual_seed(3)
    random = partial(torch.randn, generator=generator)
    slopes = {name: random(r.shape, dtype=r.dtype) for name, r in residuals.items()}
    found = kernel_gradient(kernel, slopes)
    assert list(found) == list(kernel.terms)
    for a in kernel.terms:
        parts = [kernel[a, b] @ slopes[b].flatten() for b in kernel.terms]
        scale = sum(kernel[a, b].norm() * slopes[b].norm() for b in kernel.terms)
        assert_near(found[a], sum(parts), 1e-12, f"kernel gradient of {a}", float(scale))
        assert torch.equal(kernel_gradient(kernel, slopes, at=a), found[a])


def test_a_term_without_slope_has_no_part_in_the_loss() -> None:
    kernel, slope = explicit(data=3 * torch.eye(1, 2), unseen=torch.eye(2)), torch.tensor([2.0])
    alone = kernel_gradient(kernel, {"data": slope})
    both = kernel_gradient(kernel, {"data": slope, "unseen": torch.zeros(2)})
    for found in (alone, both):
        assert found["data"].tolist() == [18.0]
        assert found["unseen"].tolist() == [6.0, 0.0]


class Flow(Movable):
    """A network of two outputs, trained on a PDE and on values, and looked at elsewhere."""

    def __init__(self) -> None:
        self.net = NETWORKS["mlp"](2, 2)

    def residuals(self) -> dict[str, Tensor]:
        x, other = points(7, 2), points(6, 2, seed=9)
        u, v = self.net(x).split(1, dim=1)
        first = grad(u, x)
        pde = torch.cat([laplacian(u, x) - v, first[:, :1] + u * v], dim=1)  # (7, 2)
        trained = {"pde": pde, "data": self.net(points(5, 2, seed=1)) - 0.3}  # (5, 2)
        unseen = self.net(other)
        return trained | {"unseen": unseen, "u_xx": laplacian(unseen[:, :1], other)}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_error_of_a_finite_step_falls_as_its_square(loss: Loss) -> None:
    """f(theta - lr grad) - f(theta) + lr * kernel_gradient, on trained and on unseen points."""
    flow = Flow()
    before = flow.residuals()
    residuals = {term: before[term] for term in ("pde", "data")}
    kernel = empirical_ntk(before, flow.net, certify=False)
    total = sum(loss(residuals).values())
    moved = kernel_gradient(kernel, loss_gradients(total, residuals))
    gradient = list(torch.autograd.grad(total, list(flow.net.parameters())))
    rates = [4e-3 / float(sum(g.square().sum() for g in gradient)) ** 0.5 / 2**k for k in range(4)]
    for term, start in before.items():
        errors = []
        for lr in rates:
            change = flow.moved(gradient, -lr)[term] - start.detach()
            predicted = -lr * moved[term].reshape(start.shape)
            errors.append(float((change - predicted).norm() / predicted.norm()) * lr)
        halvings = [one / other for one, other in pairwise(errors)]
        assert halvings == pytest.approx([4.0] * 3, rel=0.05), f"{term}: {errors}"


def test_a_model_linear_in_its_parameters_takes_the_step_exactly() -> None:
    a, x = torch.randn(3, requires_grad=True), torch.randn(8, 3)
    kernel = empirical_ntk({"data": x[:5] @ a - 1, "unseen": x[5:] @ a}, [a])
    slopes = {"data": torch.sign(x[:5] @ a - 1)}
    (gradient,) = torch.autograd.grad((x[:5] @ a - 1).abs().sum(), a)
    change = -0.37 * kernel_gradient(kernel, slopes, at="unseen")
    assert_near(change, (x[5:] @ (a - 0.37 * gradient) - x[5:] @ a).detach(), 1e-14, "change")


def test_float32_slopes_meet_a_float64_kernel() -> None:
    slopes = {"pde": torch.tensor([[0.5], [-1.0]]).float()}
    moved = kernel_gradient(two_terms(), slopes, at="pde")
    assert_near(moved, torch.tensor([4.5, -9.0]), 0.0, "kernel gradient")


WRONG: list[tuple[Mapping[str, object], str | None, type[Exception], str]] = [
    ({}, None, ValueError, r"slopes is empty.*\['pde', 'bc'\]"),
    ({"ic": torch.ones(1)}, None, ValueError, r"term 'ic', which this kernel lacks"),
    ({"pde": torch.ones(1)}, None, ValueError, r"'pde' has shape \(1,\), 1 .* expected 2"),
    ({"bc": 1.0}, None, TypeError, r"slope of term 'bc' is a float"),
    ({"bc": torch.ones(1)}, "ic", KeyError, r"no term 'ic' in this kernel; it has \['pde'"),
]


@pytest.mark.parametrize(("slopes", "at", "error", "message"), WRONG)
def test_errors_name_the_cause(slopes, at: str | None, error, message: str) -> None:
    with pytest.raises(error, match=message):
        kernel_gradient(two_terms(), slopes, at=at)


def test_no_block_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = two_terms()
    monkeypatch.setattr(NTK, "__getitem__", None)
    assert kernel_gradient(kernel, {"bc": torch.ones(1)}, at="pde").tolist() == [3.0, 0.0]


def test_results_lie_on_the_device_of_the_kernel(device: torch.device) -> None:
    net = nn.Linear(2, 1).to(device)
    r = net(torch.ones(3, 2, device=device))
    kernel = empirical_ntk({"data": r}, net)
    moved = kernel_gradient(kernel, {"data": torch.ones(3)}, at="data")
    assert moved.device.type == device.type
    assert moved.tolist() == [9.0, 9.0, 9.0]  # 3 (x . x + 1)
    slopes = loss_gradients(r.sum(), {"data": r})
    assert slopes["data"].device.type == device.type
    assert kernel_gradient(kernel, slopes, at="data").tolist() == [9.0, 9.0, 9.0]
