"""Loss terms read off the graph, one case an idiom in which people write a PINN's loss.

Each case names kind, residual and weight of every term by hand; the slopes are compared with
autograd's own derivative of phi, and the terms with the gradient of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pinn_ntk.errors import IncompleteTermsError, OpaqueLossError
from pinn_ntk.graph.terms import loss_nodes as heads
from pinn_ntk.graph.terms.completeness import completeness_error
from pinn_ntk.graph.terms.find import Term, find_terms
from pinn_ntk.graph.terms.names import name_terms

Expected = tuple[str, Tensor, Tensor | float]  # kind, residual, weight (broadcast to the residual)
Idiom = Callable[["Problem"], tuple[Tensor, list[Expected]]]


class Problem:
    """A small network on some points, everything in float64."""

    def __init__(self) -> None:
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        self.x = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
        self.u = self.net(self.x)  # (5, 2)
        self.r = self.u - self.data(5, 2)  # (5, 2)
        self.s = self.net(self.data(3, 2))[:, :1] - 0.5  # (3, 1)
        self.lam = torch.full((5, 2), 0.3, dtype=torch.float64, requires_grad=True)
        self.log_var = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    @staticmethod
    def data(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64)

    @staticmethod
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.net.parameters(), self.x, self.lam, self.log_var]

    def derivative(self, u: Tensor) -> Tensor:
        """d u / d x_0, one value a point."""
        (first,) = torch.autograd.grad(u.sum(), self.x, create_graph=True)
        return first[:, :1]


@pytest.fixture
def problem() -> Problem:
    return Problem()


# --- How the residual is squared or otherwise measured


def power(exponent: float | Tensor) -> Idiom:
    return lambda p: ((p.r**exponent).mean(), [("square", p.r, 0.1)])


def measure(function: Callable[[Tensor], Tensor], kind: str, weight: float) -> Idiom:
    """A loss of one residual, the same weight on each of its entries."""
    return lambda p: (function(p.r), [(kind, p.r, weight)])


def against_zeros(loss: Callable[[Tensor, Tensor], Tensor], kind: str, weight: float) -> Idiom:
    return measure(lambda r: loss(r, torch.zeros_like(r)), kind, weight)


def target_with_graph(p: Problem) -> tuple[Tensor, list[Expected]]:
    """Periodic boundary: both arguments come from the network."""
    left, right = p.u[:2], p.u[2:4]
    return functional.mse_loss(left, right), [("square", left - right, 0.25)]


def network_as_target(p: Problem) -> tuple[Tensor, list[Expected]]:
    y = p.data(5, 2)
    return functional.mse_loss(y, p.u), [("square", y - p.u, 0.1)]


def broadcast_target(p: Problem) -> tuple[Tensor, list[Expected]]:
    """(5, 1) against (5,): an accident that torch warns of, and that makes 25 rows."""
    y = p.data(5)
    with pytest.warns(UserWarning, match="broadcast"):
        loss = functional.mse_loss(p.u[:, :1], y)
    return loss, [("square", p.u[:, :1] - y, 1 / 25)]


def mse_none_weighted(p: Problem) -> tuple[Tensor, list[Expected]]:
    y, w = p.data(5, 2), p.data(5, 2)
    loss = (w * functional.mse_loss(p.u, y, reduction="none")).sum()
    return loss, [("square", p.u - y, w)]


def huber_delta(p: Problem) -> tuple[Tensor, list[Expected]]:
    loss = functional.huber_loss(p.r, p.zeros(5, 2), reduction="sum", delta=0.2)
    return loss, [("huber", p.r, 1.0)]


def norm_by_point(p: Problem) -> tuple[Tensor, list[Expected]]:
    w = p.data(5)
    return (w * p.r.norm(dim=-1)).sum(), [("norm", p.r, w[:, None])]


def squared_norm_by_point(p: Problem) -> tuple[Tensor, list[Expected]]:
    w = p.data(5)
    return (w * p.r.norm(dim=1) ** 2).sum(), [("square", p.r, w[:, None])]


def kept_norm_by_column(p: Problem) -> tuple[Tensor, list[Expected]]:
    w = p.data(1, 2)
    return (w * p.r.norm(dim=0, keepdim=True)).sum(), [("norm", p.r, w)]


def absolute_norm_by_point(p: Problem) -> tuple[Tensor, list[Expected]]:
    w = p.data(5)
    loss = (w * torch.linalg.vector_norm(p.r, 1, dim=1)).sum()
    return loss, [("abs", p.r, w[:, None])]


def rmse(p: Problem) -> tuple[Tensor, list[Expected]]:
    root = p.r.detach().square().mean().sqrt()
    return torch.sqrt((p.r**2).mean()), [("square", p.r, 1 / (20 * root))]


def squared_mse(p: Problem) -> tuple[Tensor, list[Expected]]:
    """Two heads above that only transform the one inside."""
    mse = p.r.detach().square().mean()
    return (p.r**2).mean().abs() ** 2, [("square", p.r, mse / 5)]


def scaled_norm_squared(p: Problem) -> tuple[Tensor, list[Expected]]:
    """A factor between norm and square: the norm is the head, its weight 2 |r| / 100."""
    return (p.r.norm() / 10) ** 2, [("norm", p.r, 2 * p.r.detach().norm() / 100)]


def log_of_loss(p: Problem) -> tuple[Tensor, list[Expected]]:
    return p.r.square().sum().log(), [("square", p.r, 1 / p.r.detach().square().sum())]


def charbonnier(p: Problem) -> tuple[Tensor, list[Expected]]:
    weight = 0.5 / (p.r.detach() ** 2 + 0.01).sqrt()
    return (p.r**2 + 0.01).sqrt().sum(), [("square", p.r, weight)]


def dot(p: Problem) -> tuple[Tensor, list[Expected]]:
    flat = p.r.flatten()
    return torch.dot(flat, flat), [("square", flat, 1.0)]


def dot_of_views(p: Problem) -> tuple[Tensor, list[Expected]]:
    return torch.dot(p.r.flatten(), p.r.flatten()) / 7, [("square", p.r.flatten(), 1 / 7)]


def row_times_column(p: Problem) -> tuple[Tensor, list[Expected]]:
    return (p.s.T @ p.s).sum(), [("square", p.s.T, 1.0)]


def einsum(p: Problem) -> tuple[Tensor, list[Expected]]:
    return torch.einsum("ij,ij->", p.r, p.r), [("square", p.r.reshape(1, 1, 10), 1.0)]


def einsum_by_point(p: Problem) -> tuple[Tensor, list[Expected]]:
    w = p.data(5)
    loss = (w * torch.einsum("ij,ij->i", p.r, p.r)).sum()
    return loss, [("square", p.r[:, None, :], w[:, None, None])]


# --- How it is weighted, reduced and added up


def weighted_sum(p: Problem) -> tuple[Tensor, list[Expected]]:
    loss = 3.0 * (p.r**2).mean() + 0.5 * (p.s**2).mean()
    return loss, [("square", p.r, 0.3), ("square", p.s, 0.5 / 3)]


def pointwise_weights(p: Problem) -> tuple[Tensor, list[Expected]]:
    w = p.data(5, 1)
    return (w * p.r**2).mean(), [("square", p.r, w / 10)]


def weights_inside(p: Problem) -> tuple[Tensor, list[Expected]]:
    """What is squared along with the residual is part of it."""
    w = p.data(5, 1)
    return ((w * p.r) ** 2).sum(), [("square", w * p.r, 1.0)]


def causal_weights(p: Problem) -> tuple[Tensor, list[Expected]]:
    by_time = (p.r**2).mean(1)
    w = torch.exp(-(by_time.cumsum(0) - by_time)).detach()
    return (w * by_time).mean(), [("square", p.r, w[:, None] / 10)]


def live_causal_weights(p: Problem) -> tuple[Tensor, list[Expected]]:
    """Without detach, the weights of the points take part in the coefficient."""
    values = (p.r**2).detach().mean(1).requires_grad_()
    total = (torch.exp(-values.cumsum(0)) * values).sum()
    (coefficient,) = torch.autograd.grad(total, values)
    by_time = (p.r**2).mean(1)
    loss = (torch.exp(-by_time.cumsum(0)) * by_time).sum()
    return loss, [("square", p.r, coefficient[:, None] / 2)]


def causal_matrix(p: Problem) -> tuple[Tensor, list[Expected]]:
    m = torch.ones(5, 5, dtype=torch.float64).tril()
    coefficient = m.sum(0)[:, None] / 2
    return (m @ (p.r**2).mean(1)).sum(), [("square", p.r, coefficient)]


def uncertainty(p: Problem) -> tuple[Tensor, list[Expected]]:
    """Kendall, Gal, Cipolla 2018: exp(-s) L / 2 + s / 2."""
    loss = torch.exp(-p.log_var) * (p.r**2).mean() / 2 + p.log_var / 2
    return loss, [("square", p.r, math.exp(-0.7) / 20)]


def uncertainty_by_sigma(p: Problem) -> tuple[Tensor, list[Expected]]:
    """The same by sigma, whose own square is no residual."""
    sigma = p.log_var.exp()
    loss = (p.r**2).sum() / (2 * sigma**2) + sigma.log()
    return loss, [("square", p.r, math.exp(-1.4) / 2)]


def softplus_weights(p: Problem) -> tuple[Tensor, list[Expected]]:
    loss = (functional.softplus(p.lam) * p.r**2).sum()
    return loss, [("square", p.r, math.log1p(math.exp(0.3)))]


def squared_self_adaptive_weights(p: Problem) -> tuple[Tensor, list[Expected]]:
    return (p.lam**2 * p.r**2).sum(), [("square", p.r, 0.09)]


def weights_from_coordinates(p: Problem) -> tuple[Tensor, list[Expected]]:
    """The points require a gradient, and so does a weight made from them."""
    w = torch.exp(-((p.x[:, :1] - 0.5) ** 2))
    return (w * p.r**2).sum(), [("square", p.r, w.detach())]


def stacked_times_weights(p: Problem) -> tuple[Tensor, list[Expected]]:
    w = torch.tensor([2.0, 5.0], dtype=torch.float64)
    loss = torch.stack([(p.r**2).sum(), p.s.abs().sum()]) @ w
    return loss, [("square", p.r, 2.0), ("abs", p.s, 5.0)]


def written_into_a_buffer(p: Problem) -> tuple[Tensor, list[Expected]]:
    losses = p.zeros(2)
    losses[0] = (p.r**2).sum()
    losses[1] = (p.s**2).sum() * 4
    return losses.sum(), [("square", p.r, 1.0), ("square", p.s, 4.0)]


def sum_over_dict(p: Problem) -> tuple[Tensor, list[Expected]]:
    losses = {
        "pde": (p.r**2).mean(),
        "bc": p.s.abs().mean(),
        "ic": functional.mse_loss(p.u, p.r.detach()),
    }
    expected = [("square", p.r, 0.1), ("abs", p.s, 1 / 3), ("square", p.u - p.r.detach(), 0.1)]
    return sum(losses.values()), expected


def system_stacked(p: Problem) -> tuple[Tensor, list[Expected]]:
    momentum, mass = p.r[:, 0] * 2, p.r[:, 1] - p.u[:, 0]
    both = torch.stack([momentum, mass], dim=1)
    return (both**2).mean(), [("square", both, 0.1)]


def system_as_sum_of_squares(p: Problem) -> tuple[Tensor, list[Expected]]:
    momentum, mass = p.r[:, 0] * 2, p.r[:, 1] - p.u[:, 0]
    loss = (momentum**2 + mass**2).mean()
    return loss, [("square", momentum, 0.2), ("square", mass, 0.2)]


def mean_over_dim_then_sum(p: Problem) -> tuple[Tensor, list[Expected]]:
    return (p.r**2).mean(dim=0).sum(), [("square", p.r, 0.2)]


def hard_points(p: Problem) -> tuple[Tensor, list[Expected]]:
    """The loss of the two worst points alone: the others weigh nothing."""
    errors = (p.s**2).squeeze(1)
    chosen = torch.zeros_like(errors).index_fill(0, errors.topk(2).indices, 0.5)
    return errors.topk(2).values.mean(), [("square", p.s, chosen[:, None])]


def masked(p: Problem) -> tuple[Tensor, list[Expected]]:
    inside = p.x.detach()[:, 0] < 0.5
    loss = torch.where(inside[:, None], p.r**2, 0.0).sum()
    return loss, [("square", p.r, inside[:, None].double())]


def accumulated(p: Problem) -> tuple[Tensor, list[Expected]]:
    return (p.r**2).mean() / 4, [("square", p.r, 0.025)]


def loss_scale(p: Problem) -> tuple[Tensor, list[Expected]]:
    return (p.r**2).mean() * 65536.0, [("square", p.r, 6553.6)]


def negated(p: Problem) -> tuple[Tensor, list[Expected]]:
    return -(functional.softplus(p.lam) * p.r**2).sum(), [
        ("square", p.r, -math.log1p(math.exp(0.3)))
    ]


# --- What stands inside, beside and between the residuals


def gradient_enhanced(p: Problem) -> tuple[Tensor, list[Expected]]:
    """gPINN: the second residual is the derivative of the first."""
    r = p.u[:, :1] ** 2 + p.derivative(p.u[:, 1])
    r_x = p.derivative(r)
    return (r**2).mean() + 0.1 * (r_x**2).mean(), [("square", r, 0.2), ("square", r_x, 0.02)]


def square_inside_residual(p: Problem) -> tuple[Tensor, list[Expected]]:
    """Allen-Cahn: u^2 in the residual is no head."""
    u = p.u[:, :1]
    r = p.derivative(u) + 5 * u**3 - 5 * u * u.square() - u.abs()
    return (r**2).mean(), [("square", r, 0.2)]


def data_and_pde_of_one_call(p: Problem) -> tuple[Tensor, list[Expected]]:
    u, y = p.net(p.x), p.data(2, 2)
    r = p.derivative(u)[2:] - u[2:, :1]
    loss = functional.mse_loss(u[:2], y) + (r**2).mean()
    return loss, [("square", u[:2] - y, 0.25), ("square", r, 1 / 3)]


def head_below_head(p: Problem) -> tuple[Tensor, list[Expected]]:
    """A mean square that is added, and squared once more: the weight is that of the first path."""
    energy = (p.r**2).mean()
    return energy + 3 * (energy - 1) ** 2, [("square", p.r, 0.1), ("square", energy - 1, 3.0)]


def integral_constraint(p: Problem) -> tuple[Tensor, list[Expected]]:
    """The integral of u^2 is 1: the residual is one number, not u."""
    excess = (p.u**2).mean() - 1
    return excess**2, [("square", excess, 1.0)]


def same_residual_twice(p: Problem) -> tuple[Tensor, list[Expected]]:
    loss = (p.r**2).sum() + 2 * p.r.abs().sum()
    return loss, [("square", p.r, 1.0), ("abs", p.r, 2.0)]


def l2_penalty(p: Problem) -> tuple[Tensor, list[Expected]]:
    penalty = sum((w**2).sum() for w in p.net.parameters())
    return (p.r**2).mean() + 1e-3 * penalty, [("square", p.r, 0.1)]


def other_penalties(p: Problem) -> tuple[Tensor, list[Expected]]:
    flat = torch.cat([w.flatten() for w in p.net.parameters()])
    penalty = flat.norm() ** 2 + flat.abs().sum() + p.net[0].weight.sum()
    return (p.r**2).mean() + 1e-3 * penalty, [("square", p.r, 0.1)]


def prior_on_a_coefficient(p: Problem) -> tuple[Tensor, list[Expected]]:
    """A coefficient held against a given value has a residual, unlike one held against 0."""
    residual = p.log_var - 0.2
    loss = ((p.log_var * p.r) ** 2).mean() + residual**2
    return loss, [("square", p.log_var * p.r, 0.1), ("square", residual, 1.0)]


def pointwise_model(p: Problem) -> tuple[Tensor, list[Expected]]:
    """Made from a leaf without any matrix product; data tell it from a penalty."""
    decay = p.log_var * p.data(4)
    return decay.square().sum() + (p.log_var * 3).square(), [("square", decay, 1.0)]


def normalised_weight(p: Problem) -> tuple[Tensor, list[Expected]]:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)).double()
    r = layer(p.x)
    return r.square().sum() + layer.weight.norm() ** 2, [("square", r, 1.0)]


def torch_func(p: Problem) -> tuple[Tensor, list[Expected]]:
    parameters = dict(p.net.named_parameters())

    def u(x: Tensor) -> Tensor:
        return torch.func.functional_call(p.net, parameters, (x,))[0]

    laplacian = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(u)))(p.data(4, 2))
    r = laplacian.diagonal(dim1=1, dim2=2).sum(1)
    return (r**2).mean(), [("square", r, 0.25)]


def complex_field(p: Problem) -> tuple[Tensor, list[Expected]]:
    psi = torch.complex(p.r[:, 0], p.r[:, 1]) * 1j
    return (psi.abs() ** 2).mean(), [("square", psi, 0.2)]


def leaf_beside_residual(p: Problem) -> tuple[Tensor, list[Expected]]:
    both = torch.cat([p.r.flatten(), p.lam.flatten()])
    again = torch.cat([p.lam.flatten(), p.r.flatten()])
    loss = both.square().sum() + again.square().sum()
    return loss, [("square", both, 1.0), ("square", again, 1.0)]


class Labelled(Tensor):
    """A tensor with a label, as in physics code that names its fields."""


def labelled(p: Problem) -> tuple[Tensor, list[Expected]]:
    u = p.net(p.x.as_subclass(Labelled))
    y = p.data(5, 2)
    loss = ((u - y) ** 2).mean() + functional.mse_loss(u, p.zeros(5, 2))
    return loss, [("square", (u - y).as_subclass(Tensor), 0.1), ("square", u, 0.1)]


IDIOMS: dict[str, Idiom] = {
    "** 2": power(2),
    "** 2.0": power(2.0),
    "** tensor(2)": power(torch.tensor(2.0)),
    "pow": measure(lambda r: r.pow(2).sum(), "square", 1.0),
    "square": measure(lambda r: r.square().mean(), "square", 0.1),
    "r * r": measure(lambda r: (r * r).mean(), "square", 0.1),
    "r * clone": measure(lambda r: (r * r.clone()).mean(), "square", 0.1),
    "abs squared": measure(lambda r: (r.abs() ** 2).mean(), "square", 0.1),
    "mse": against_zeros(functional.mse_loss, "square", 0.1),
    "MSELoss": against_zeros(nn.MSELoss(), "square", 0.1),
    "mse sum": against_zeros(nn.MSELoss(reduction="sum"), "square", 1.0),
    "mse none": mse_none_weighted,
    "mse of two outputs": target_with_graph,
    "mse network as target": network_as_target,
    "mse broadcast target": broadcast_target,
    "huber": against_zeros(functional.huber_loss, "huber", 0.1),
    "huber delta": huber_delta,
    "smooth l1": against_zeros(functional.smooth_l1_loss, "smooth_l1", 0.1),
    "l1": against_zeros(functional.l1_loss, "abs", 0.1),
    "abs": measure(lambda r: r.abs().mean(), "abs", 0.1),
    "1-norm": measure(lambda r: torch.norm(r, p=1), "abs", 1.0),
    "1-norm by point": absolute_norm_by_point,
    "norm": measure(torch.linalg.norm, "norm", 1.0),
    "norm by point": norm_by_point,
    "norm kept": kept_norm_by_column,
    "norm ** 2": measure(lambda r: r.norm() ** 2, "square", 1.0),
    "norm ** 2 by point": squared_norm_by_point,
    "norm scaled ** 2": scaled_norm_squared,
    "rmse": rmse,
    "rmse ** 2": measure(lambda r: (r**2).mean().sqrt() ** 2, "square", 0.1),
    "abs of mse, squared": squared_mse,
    "log": log_of_loss,
    "charbonnier": charbonnier,
    "log cosh": measure(lambda r: torch.log(torch.cosh(r)).mean(), "log_cosh", 0.1),
    "dot": dot,
    "dot of views": dot_of_views,
    "row times column": row_times_column,
    "einsum": einsum,
    "einsum by point": einsum_by_point,
    "weighted sum": weighted_sum,
    "pointwise weights": pointwise_weights,
    "weights inside": weights_inside,
    "causal": causal_weights,
    "causal live": live_causal_weights,
    "causal matrix": causal_matrix,
    "uncertainty": uncertainty,
    "uncertainty sigma": uncertainty_by_sigma,
    "softplus weights": softplus_weights,
    "squared weights": squared_self_adaptive_weights,
    "weights of coordinates": weights_from_coordinates,
    "stacked @ weights": stacked_times_weights,
    "buffer": written_into_a_buffer,
    "dict": sum_over_dict,
    "system stacked": system_stacked,
    "system summed": system_as_sum_of_squares,
    "mean dim then sum": mean_over_dim_then_sum,
    "hard points": hard_points,
    "masked": masked,
    "accumulate": accumulated,
    "loss scale": loss_scale,
    "negated": negated,
    "gpinn": gradient_enhanced,
    "square inside": square_inside_residual,
    "one call": data_and_pde_of_one_call,
    "head below head": head_below_head,
    "integral": integral_constraint,
    "same residual": same_residual_twice,
    "l2 penalty": l2_penalty,
    "other penalties": other_penalties,
    "prior": prior_on_a_coefficient,
    "pointwise model": pointwise_model,
    "weight norm": normalised_weight,
    "torch.func": torch_func,
    "complex": complex_field,
    "leaf beside": leaf_beside_residual,
    "subclass": labelled,
}


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
    loss, _ = IDIOMS[idiom](problem)
    for term in find_terms(loss).values():
        if term.kind in PHI:
            r = term.residual.detach().requires_grad_()
            (slope,) = torch.autograd.grad((term.weight * PHI[term.kind](r)).sum(), r)
            torch.testing.assert_close(term.slope, slope, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("idiom", IDIOMS)
def test_terms_make_up_the_gradient(problem: Problem, idiom: str):
    loss, _ = IDIOMS[idiom](problem)
    terms = find_terms(loss, check=False)
    assert completeness_error(loss, terms) < 1e-14


def test_slope_of_huber_is_clipped(problem: Problem):
    loss, _ = huber_delta(problem)
    (term,) = find_terms(loss).values()
    assert (problem.r.abs() > 0.2).any()
    assert torch.equal(term.slope, problem.r.clamp(-0.2, 0.2))


def test_slope_of_a_norm_has_unit_length_by_point(problem: Problem):
    r = torch.cat([problem.r, 0 * problem.s @ problem.data(1, 2)])
    (term,) = find_terms(r.norm(dim=1).sum()).values()
    expected = problem.r / problem.r.norm(dim=1, keepdim=True)
    torch.testing.assert_close(term.slope[:5], expected.detach(), rtol=1e-14, atol=0)
    assert torch.equal(term.slope[5:], problem.zeros(3, 2))


# --- What a term says


def test_residual_is_the_users_own_tensor(problem: Problem):
    (term,) = find_terms((problem.r**2).mean()).values()
    assert term.residual is problem.r


def test_value_mean_and_total(problem: Problem):
    r = problem.r
    first, second = find_terms(3 * (r**2).mean() + r.norm(dim=1).mean()).values()
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


@pytest.mark.parametrize(
    ("weight", "ascends"), [(-1.0, True), (1.0, False), (0.0, False)], ids=["-1", "1", "0"]
)
def test_ascends(problem: Problem, weight: float, ascends: bool):
    (term,) = find_terms(weight * (problem.r**2).mean()).values()
    assert term.ascends is ascends


def test_terms_of_mixed_sign_do_not_ascend(problem: Problem):
    signs = torch.tensor([[1.0], [-1.0], [-1.0], [-1.0], [0.0]])
    (term,) = find_terms((signs * problem.r**2).sum()).values()
    assert not term.ascends
    (term,) = find_terms((signs[1:] * problem.r[1:] ** 2).sum()).values()
    assert term.ascends


# --- What is refused


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


OPAQUE: dict[str, tuple[Callable[[Problem], Tensor], str]] = {
    "mean of output": (lambda p: p.u.mean(), r"AddmmBackward0 of shape \(5, 2\) without"),
    "matrix product": (
        lambda p: (p.x @ torch.ones(2, 3, requires_grad=True).double()).sum(),
        r"MmBackward0 of shape \(5, 3\) without",
    ),
    "path around a head": (lambda p: (p.r**2).mean() + p.r.mean(), "AddmmBackward0"),
    "energy": (ritz_energy, r"AddmmBackward0 of shape \(5, 2\)"),
    "likelihood": (likelihood, r"AddmmBackward0 of shape \(5, 2\)"),
    "tanh": (lambda p: (p.r**2).mean() + p.u.tanh().sum(), r"TanhBackward0 of shape \(5, 2\)"),
    "hinge": (lambda p: functional.relu(p.r).mean(), "ReluBackward0"),
    "fourth power": (lambda p: (p.r**4).mean(), "AddmmBackward0"),
    "largest entry": (lambda p: p.r.norm(p=math.inf), "LinalgVectorNormBackward0"),
    "custom function": (lambda p: Cubed.apply(p.r).mean(), r"CubedBackward of shape \(5, 2\)"),
    "outer product": (lambda p: (p.s * p.s.T).sum(), "AddmmBackward0"),
    "times own transpose": (
        lambda p: ((square := p.r[:2]) * square.T).sum(),
        r"AddmmBackward0 of shape \(5, 2\)",
    ),
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
        r"AddmmBackward0 .*, SinBackward0 .* and 2 more without",
    ),
    "penalty alone": (lambda p: p.lam.square().sum(), r"no residual.*PowBackward0 of shape"),
}


@pytest.mark.parametrize("case", OPAQUE)
def test_opaque_loss_is_refused_by_name(problem: Problem, case: str):
    loss, message = OPAQUE[case]
    with pytest.raises(OpaqueLossError, match=message) as caught:
        find_terms(loss(problem))
    assert "pinn_ntk.empirical_ntk({'pde': r, ...}, model.parameters())" in str(caught.value)


def test_operand_that_torch_no_longer_keeps_is_refused(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(heads, "missing", lambda _: ("self",))
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


@pytest.mark.parametrize("case", UNFIT)
def test_unfit_loss_is_refused(problem: Problem, case: str):
    loss, error, message = UNFIT[case]
    with pytest.raises(error, match=message):
        find_terms(loss(problem))


def test_loss_of_shape_one_is_one_number(problem: Problem):
    loss = (problem.r**2).mean(dim=(0, 1), keepdim=True)
    assert find_terms(loss)["term_0"].weight[0, 0] == 0.1


# --- Completeness


def test_hook_that_changes_a_term_is_noticed(problem: Problem):
    loss = (problem.r**2).mean() + (problem.s**2).mean()
    find_terms(loss)["term_1"].head.register_prehook(lambda grads: (1.5 * grads[0],))
    with pytest.raises(IncompleteTermsError, match=r"relative \d\.\de-0[12]; expected 1\.5e-08"):
        find_terms(loss)
    assert list(find_terms(loss, check=False)) == ["term_0", "term_1"]


def test_loss_that_is_not_finite_is_noticed(problem: Problem):
    with pytest.raises(IncompleteTermsError, match="relative nan"):
        find_terms(((problem.r / 0) ** 2).mean())


def test_error_is_the_share_of_the_missing_term(problem: Problem):
    pde, bc = (problem.r**2).mean(), (problem.s**2).mean()
    loss = pde + bc
    leaves = [*problem.net.parameters(), problem.x]

    def size(part: Tensor) -> float:
        gradient = torch.autograd.grad(part, leaves, retain_graph=True, materialize_grads=True)
        return float(torch.cat([g.detach().flatten() for g in gradient]).norm())

    terms = find_terms(loss)
    missing_bc = completeness_error(loss, [terms["term_0"]])
    assert missing_bc == pytest.approx(size(bc) / size(loss), rel=1e-12)
    assert completeness_error(loss, []) == pytest.approx(1, rel=1e-12)
    assert completeness_error(loss, terms) < 1e-15


def test_rounding_is_judged_by_the_terms_where_they_cancel():
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    x, y = torch.rand(30, 2), torch.rand(30, 1)
    loss = 3 * functional.mse_loss(net(x), y) - (3 + 1e-6) * ((net(x) - y) ** 2).mean()
    assert completeness_error(loss, find_terms(loss)) < 1e-6


def test_zero_residual_is_complete(problem: Problem):
    terms = find_terms(((problem.r * 0) ** 2).mean())
    assert torch.equal(terms["term_0"].slope, problem.zeros(5, 2))


def test_opaque_part_counts_as_missing(problem: Problem):
    terms = find_terms((problem.r**2).mean())
    loss = (problem.r**2).mean() + problem.u.sum() + problem.net[0].weight.sum()
    assert completeness_error(loss, terms) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_passes_the_check(dtype: torch.dtype):
    net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1)).to(dtype)
    u = net(torch.rand(200, 2, dtype=dtype))
    terms = find_terms(
        0.3 * functional.mse_loss(u, torch.ones_like(u)) + functional.huber_loss(u, 0 * u.detach())
    )
    assert [term.slope.dtype for term in terms.values()] == [dtype, dtype]


def test_autocast_is_judged_by_its_rounding():
    """1% off is within the rounding of bfloat16, though residuals and parameters are float32."""
    net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1))
    x = torch.rand(200, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = functional.mse_loss(net(x), torch.ones(200, 1))
        loss = first + functional.mse_loss(net(x + 1), torch.zeros(200, 1)) * 65536
    term = find_terms(loss)["term_1"]
    assert (term.residual.dtype, term.weight.dtype) == (torch.float32, torch.float32)
    handle = term.head.register_prehook(lambda grads: (1.01 * grads[0],))
    find_terms(loss)
    handle.remove()
    term.head.register_prehook(lambda grads: (1.3 * grads[0],))
    with pytest.raises(IncompleteTermsError, match=r"expected 8\.8e-02"):
        find_terms(loss)


# --- No trace is left behind


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
    loss, _ = gradient_enhanced(problem)
    first, second = find_terms(loss), find_terms(loss)
    assert all(first[name].head is second[name].head for name in first)
    assert all(torch.equal(first[name].weight, second[name].weight) for name in first)


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


# --- Names


@dataclass
class Parts:
    """Three terms and the numbers that a user may log of them."""

    pde: Tensor
    left: Tensor
    right: Tensor

    @property
    def loss(self) -> Tensor:
        return 2 * self.pde + 10 * (self.left + self.right)


@pytest.fixture
def parts(problem: Problem) -> Parts:
    s = problem.s
    return Parts(
        (problem.r**2).mean(), functional.mse_loss(s, 0 * s.detach()), (s - 1).abs().mean()
    )


def names_of(loss: Tensor, names: object) -> list[str]:
    return list(find_terms(loss, names=names))


def test_names_by_position(parts: Parts):
    loss = parts.loss
    assert names_of(loss, None) == ["term_0", "term_1", "term_2"]
    assert names_of(loss, ("a", "b", "c")) == ["a", "b", "c"]
    assert [term.name for term in find_terms(loss, names=["a", "b", "c"]).values()] == [*"abc"]


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c", "d"], ["a", "b", "a"]])
def test_names_that_do_not_fit_are_refused(parts: Parts, names: list[str]):
    found = r"square of shape \(5, 2\), square of shape \(3, 1\), abs of shape \(3, 1\)"
    with pytest.raises(ValueError, match=rf"expected 3 different names.*{found}"):
        find_terms(parts.loss, names=names)


def test_one_string_is_no_list_of_names(parts: Parts):
    with pytest.raises(TypeError, match="'abc'"):
        find_terms(parts.loss, names="abc")


def test_names_by_graph(parts: Parts):
    loss = parts.loss
    logged = {"loss": loss, "l/right": parts.right, "l/pde": 2 * parts.pde, "l/left": parts.left}
    assert names_of(loss, logged) == ["l/pde", "l/left", "l/right"]


def test_key_of_several_terms_numbers_them(parts: Parts):
    loss = parts.loss
    boundary = parts.left + parts.right
    assert names_of(loss, {"bc": boundary, "loss": loss}) == ["term_0", "bc_0", "bc_1"]
    logged = {"bc": boundary, "pde": parts.pde, "right": parts.right}
    assert names_of(loss, logged) == ["pde", "bc_0", "right"]


def test_total_names_only_a_single_term(parts: Parts):
    assert names_of(parts.loss, {"loss": parts.loss}) == ["term_0", "term_1", "term_2"]
    assert names_of(3 * parts.pde, {"loss": parts.pde, "again": parts.pde}) == ["loss"]


def test_names_by_value(parts: Parts):
    logged = {
        "lr": 1e-3,
        "loss": parts.loss.item(),
        "weighted": (2 * parts.pde).item(),
        "mean": parts.left.detach(),
        "sum": 3 * parts.right.item(),
    }
    assert names_of(parts.loss, logged) == ["weighted", "mean", "sum"]


@pytest.mark.parametrize(("factor", "named"), [(1 + 1e-7, True), (1 + 1e-5, False)])
def test_value_has_to_agree_to_six_digits(parts: Parts, factor: float, named: bool):
    names = names_of(parts.loss, {"pde": factor * parts.pde.item()})
    assert names[0] == ("pde" if named else "term_0")


def test_value_of_two_terms_names_neither(problem: Problem):
    loss = (problem.r[:2] ** 2).mean() + (problem.r[:2].clone() ** 2).mean()
    value = (problem.r[:2] ** 2).mean().item()
    assert names_of(loss, {"a": value, "b": value}) == ["term_0", "term_1"]


def test_other_logged_tensors_are_passed_over(problem: Problem, parts: Parts):
    logged = {
        "error": (problem.u - problem.r.detach()).norm(),
        "residual": problem.r,
        "output": problem.u.detach(),
        "nan": math.nan,
        "pde": parts.pde,
    }
    assert names_of(parts.loss, logged) == ["pde", "term_1", "term_2"]


def test_names_stay_different(parts: Parts):
    loss = parts.loss
    logged = {"term_1": parts.pde, "bc_0": parts.right, "bc": parts.left + parts.right}
    assert names_of(loss, logged) == ["term_1", "term_1_", "bc_0"]


def test_names_alone(parts: Parts):
    terms: list[Term] = list(find_terms(parts.loss).values())
    assert name_terms(terms[1:], {"right": parts.right}) == ["term_0", "right"]
