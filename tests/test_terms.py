"""Loss terms read off the graph: kind, residual, weight and slope of each, and what is refused.

Slopes are compared with autograd's own derivative of phi.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pinn_ntk import OpaqueLossError, find_terms
from pinn_ntk.graph.terms import loss_nodes
from pinn_ntk.graph.terms.completeness import completeness_error
from tests.idioms import IDIOMS, Problem

PHI: dict[str, Callable[[Tensor], Tensor]] = {
    "square": lambda r: r.abs() ** 2,
    "abs": torch.abs,
    "smooth_l1": lambda r: torch.where(r.abs() < 1, r**2 / 2, r.abs() - 0.5),
    "log_cosh": lambda r: torch.log(torch.cosh(r)),
}


@pytest.mark.parametrize("idiom", IDIOMS)
def test_kind_residual_and_weight(problem: Problem, idiom: str):
    loss, expected = IDIOMS[idiom](problem)
    terms = list(find_terms(loss).values())
    assert [term.kind for term in terms] == [kind for kind, _, _ in expected]
    for term, (_, residual, weight) in zip(terms, expected, strict=True):
        assert type(term.residual) is Tensor
        assert torch.equal(term.residual, residual)
        assert term.residual.requires_grad
        full = torch.as_tensor(weight, dtype=torch.float64).expand(residual.shape)
        assert term.weight.shape == term.slope.shape == residual.shape
        torch.testing.assert_close(term.weight, full, rtol=1e-14, atol=0)


@pytest.mark.parametrize("idiom", IDIOMS)
def test_slope_is_the_derivative_through_this_term_alone(problem: Problem, idiom: str):
    """And all terms make up the gradient."""
    loss, _ = IDIOMS[idiom](problem)
    terms = find_terms(loss, check=False)
    assert completeness_error(loss, terms) < 1e-14
    for term in terms.values():
        if term.kind in PHI:
            r = term.residual.detach().requires_grad_()
            (slope,) = torch.autograd.grad((term.weight * PHI[term.kind](r)).sum(), r)
            torch.testing.assert_close(term.slope, slope, rtol=1e-14, atol=1e-300)


def test_slope_of_huber_is_clipped(problem: Problem):
    loss, _ = IDIOMS["huber delta"](problem)
    (term,) = find_terms(loss).values()
    assert (problem.r.abs() > 0.2).any()
    assert torch.equal(term.slope, problem.r.clamp(-0.2, 0.2))


def test_slope_of_a_norm_has_unit_length_by_point(problem: Problem):
    r = torch.cat([problem.r, 0 * problem.s @ problem.data(1, 2)])
    (term,) = find_terms(r.norm(dim=1).sum()).values()
    expected = problem.r / problem.r.norm(dim=1, keepdim=True)
    torch.testing.assert_close(term.slope[:5], expected.detach(), rtol=1e-14, atol=0)
    assert torch.equal(term.slope[5:], problem.zeros(3, 2))


def test_value_mean_and_total_of_the_users_own_tensor(problem: Problem):
    r = problem.r
    first, second = find_terms(3 * (r**2).mean() + r.norm(dim=1).mean()).values()
    assert first.residual is r
    torch.testing.assert_close(first.value, 3 * (r**2).mean().detach())
    torch.testing.assert_close(first.mean, (r**2).mean().detach())
    torch.testing.assert_close(first.total, (r**2).sum().detach())
    torch.testing.assert_close(second.value, r.norm(dim=1).mean().detach())
    torch.testing.assert_close(second.mean, second.value)
    torch.testing.assert_close(second.total, 5 * second.value)


def test_head_is_where_a_factor_weighs_the_term(problem: Problem):
    def gradient(loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, list(problem.net.parameters()), retain_graph=True)

    pde, bc = (problem.r**2).mean(), functional.mse_loss(problem.s, problem.zeros(3, 1))
    weighted = gradient(8 * pde + bc)
    loss = pde + bc
    find_terms(loss)["term_0"].head.register_prehook(lambda grads: (8 * grads[0],))
    assert all(map(torch.equal, gradient(loss), weighted))


SIGNS = [[1.0], [-1.0], [-1.0], [-1.0], [0.0]]
ASCENDS = [([[-1.0]] * 5, True), ([[1.0]] * 5, False), ([[0.0]] * 5, False), (SIGNS, False)]


@pytest.mark.parametrize(("weight", "ascends"), [*ASCENDS, (SIGNS[1:], True)], ids=str)
def test_ascends(problem: Problem, weight: list[list[float]], ascends: bool):
    (term,) = find_terms((torch.tensor(weight) * problem.r[: len(weight)] ** 2).mean()).values()
    assert term.ascends is ascends


class Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, r: Tensor) -> Tensor:
        ctx.save_for_backward(r)
        return r**3

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return 3 * g * ctx.saved_tensors[0] ** 2


def ritz_energy(p: Problem) -> Tensor:
    return (p.derivative(p.u) ** 2 / 2 - p.data(5, 1) * p.u[:, :1]).mean()


def likelihood(p: Problem) -> Tensor:
    mean, log_var = p.u[:, 0], p.u[:, 1]
    return (log_var + (mean - p.data(5)) ** 2 / log_var.exp()).mean() / 2


OUTPUT = r"AddmmBackward0 of shape \(5, 2\)"
OPAQUE: dict[str, tuple[Callable[[Problem], Tensor], str]] = {
    "mean of output": (lambda p: p.u.mean(), f"{OUTPUT} .*without"),
    "matrix product": (
        lambda p: (p.x @ torch.ones(2, 3, requires_grad=True).double()).sum(),
        r"MmBackward0 of shape \(5, 3\) .*without",
    ),
    "path around a head": (lambda p: (p.r**2).mean() + p.r.mean(), "AddmmBackward0"),
    "energy": (ritz_energy, OUTPUT),
    "likelihood": (likelihood, OUTPUT),
    "tanh": (lambda p: (p.r**2).mean() + p.u.tanh().sum(), r"TanhBackward0 of shape \(5, 2\)"),
    "hinge": (lambda p: functional.relu(p.r).mean(), "ReluBackward0"),
    "fourth power": (lambda p: (p.r**4).mean(), "AddmmBackward0"),
    "largest entry": (lambda p: p.r.norm(p=math.inf), "LinalgVectorNormBackward0"),
    "custom function": (lambda p: Cubed.apply(p.r).mean(), r"CubedBackward of shape \(5, 2\)"),
    "outer product": (lambda p: (p.s * p.s.T).sum(), "AddmmBackward0"),
    "times own transpose": (lambda p: ((square := p.r[:2]) * square.T).sum(), OUTPUT),
    "two fields": (lambda p: (p.u[:, 0] * p.u[:, 1]).sum(), "AddmmBackward0"),
    "network of weights": (
        lambda p: (p.net(p.data(5, 2)).sigmoid() * p.r**2).mean(),
        r"SigmoidBackward0 of shape \(5, 2\)",
    ),
    "pointwise model": (
        lambda p: (p.log_var * p.data(4)).sin().mean(),
        r"SinBackward0 of shape \(4,\)",
    ),
    "several": (
        lambda p: sum((net := p.net(p.data(2, 2))).sum() + net.sin().sum() for _ in range(4)),
        r"AddmmBackward0 .*, SinBackward0 .* and 2 more .*without",
    ),
    "penalty alone": (lambda p: p.lam.square().sum(), r"no residual.*PowBackward0 of shape"),
}


VOID: dict[str, Callable[[Problem, Tensor], Tensor]] = {
    "sum": lambda p, square: square + 0 * p.u.sum(),
    "inside": lambda p, square: square + (0.0 * p.u).sum(),
    "of a tensor": lambda p, square: square + torch.tensor(0.0).double() * p.u.tanh().mean(),
    "first": lambda p, square: 0 * p.u.sum() + square,
}


@pytest.mark.parametrize("loss", VOID.values(), ids=VOID)
def test_what_is_multiplied_by_zero_is_no_term(problem: Problem, loss: Callable):
    found = find_terms(loss(problem, problem.r.square().mean()))
    assert [term.residual for term in found.values()] == [problem.r]


def test_a_term_of_weight_zero_keeps_its_place(problem: Problem):
    loss = problem.r.square().mean() + 0 * problem.s.square().mean() + problem.u.abs().mean()
    found = find_terms(loss, names=["pde", "off", "l1"])
    assert list(found) == ["pde", "off", "l1"]
    assert found["off"].residual is problem.s
    assert not found["off"].weight.any()


def test_what_is_in_the_loss_besides_its_product_with_zero_is_opaque(problem: Problem):
    energy = problem.u.sum()
    for loss in (0 * energy + energy, energy + 0 * energy):
        with pytest.raises(OpaqueLossError):
            find_terms(problem.r.square().mean() + loss)


@pytest.mark.parametrize(("loss", "message"), OPAQUE.values(), ids=OPAQUE)
def test_opaque_loss_is_refused_by_name(problem: Problem, loss: Callable, message: str):
    with pytest.raises(OpaqueLossError, match=message) as caught:
        find_terms(loss(problem))
    assert "pinn_ntk.empirical_ntk({'pde': r, ...}, model.parameters())" in str(caught.value)


def test_the_message_lists_the_operations_on_the_way_to_what_is_opaque(problem: Problem):
    said = r"AddmmBackward0.* \(through AddBackward0, MeanBackward0, PowBackward0\) without passing"
    with pytest.raises(OpaqueLossError, match=said):
        find_terms(problem.r.square().mean() + (problem.u**4).mean())


def test_operand_that_torch_no_longer_keeps_is_refused(problem: Problem, monkeypatch):
    monkeypatch.setattr(loss_nodes, "missing", lambda _: ("self",))
    with pytest.raises(OpaqueLossError, match="AbsBackward0"):
        find_terms(problem.r.abs().mean())


def freed(p: Problem) -> Tensor:
    loss = (p.r**2).mean()
    loss.backward()
    return loss


def freed_above_the_heads(p: Problem) -> Tensor:
    energy = (p.r**2).mean()
    torch.autograd.grad(loss := energy.log(), energy)
    return loss


def changed_in_place(p: Problem) -> Tensor:
    loss = (p.r**2).mean()
    p.r.mul_(2)
    return loss


UNFIT: dict[str, tuple[Callable[[Problem], object], type[Exception], str]] = {
    "not scalar": (lambda p: p.r**2, ValueError, r"shape \(5, 2\).*reduction=\"none\""),
    "detached": (lambda p: (p.r**2).mean().detach(), ValueError, "no graph.*detached"),
    "leaf": (lambda p: p.log_var, ValueError, "no graph"),
    "float": (lambda p: (p.r**2).mean().item(), TypeError, r"is a float.*\.item\(\)"),
    "freed": (freed, ValueError, "freed.*on_before_backward"),
    "freed above": (freed_above_the_heads, ValueError, "freed"),
    "in place": (changed_in_place, ValueError, "in place"),
}


@pytest.mark.parametrize(("loss", "error", "message"), UNFIT.values(), ids=UNFIT)
def test_unfit_loss_is_refused(problem: Problem, loss: Callable, error, message: str):
    with pytest.raises(error, match=message):
        find_terms(loss(problem))


def test_loss_of_shape_one_is_one_number(problem: Problem):
    loss = (problem.r**2).mean(dim=(0, 1), keepdim=True)
    assert find_terms(loss)["term_0"].weight[0, 0] == 0.1


@pytest.mark.parametrize("idiom", IDIOMS)
def test_training_is_bit_identical(idiom: str):
    gradients = []
    for look in (False, True):
        torch.manual_seed(1)
        problem = Problem()
        loss, _ = IDIOMS[idiom](problem)
        state = torch.get_rng_state()
        if look:
            find_terms(loss)
            assert all(leaf.grad is None for leaf in problem.leaves)
            assert torch.equal(torch.get_rng_state(), state)
        loss.backward()
        gradients.append([leaf.grad for leaf in problem.leaves])
    for before, after in zip(*gradients, strict=True):
        assert (before is None and after is None) or torch.equal(before, after)


def test_second_look_finds_the_same(problem: Problem):
    loss, _ = IDIOMS["gradient_enhanced"](problem)
    for first, second in zip(find_terms(loss).values(), find_terms(loss).values(), strict=True):
        assert first.head is second.head
        assert torch.equal(first.weight, second.weight)


def test_works_where_gradients_are_off(problem: Problem):
    loss = functional.mse_loss(problem.u, problem.zeros(5, 2))
    with torch.no_grad():
        (term,) = find_terms(loss).values()
    assert term.residual.requires_grad
    assert not term.weight.requires_grad
    assert not term.slope.requires_grad


def test_deep_graphs_need_no_recursion(problem: Problem):
    r, loss = problem.r, torch.zeros(())
    for _ in range(1200):
        r = r + 1e-6 * r.sin()
    for _ in range(1200):
        loss = loss + 0.5 * (problem.s[:1] ** 2).sum()
    terms = find_terms(loss + (r**2).sum())
    assert len(terms) == 1201
    assert terms["term_1200"].residual is r


def test_a_plain_number_by_the_scalar_overload_is_a_weight():
    """Its node keeps no tensor to tell a 0 by."""
    theta = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = torch.ops.aten.mul.Scalar((2 * theta - 1).square().mean(), 3.0)
    assert find_terms(loss)["term_0"].weight.tolist() == [1.0] * 3


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.0])
def test_a_product_with_itself_is_a_square_whatever_it_holds(problem: Problem, value: float):
    r = problem.r + torch.tensor([0.0, value])
    (term,) = find_terms((r * r).mean(), check=False).values()
    torch.testing.assert_close(term.residual, r, equal_nan=True)
