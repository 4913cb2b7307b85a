"""Losses as people write them for a PINN: idiom -> loss, and its terms by hand.

A term is named by its kind, its residual, and its weight, which is broadcast to the residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss, l1_loss, mse_loss, smooth_l1_loss, softplus

Expected = tuple[str, Tensor, Tensor | float]  # kind, residual, weight
Loss = tuple[Tensor, list[Expected]]
Idiom = Callable[["Problem"], Loss]


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


def measure(function: Callable[[Tensor], Tensor], kind: str, weight: float) -> Idiom:
    """A loss of one residual, the same weight on each of its entries."""
    return lambda p: (function(p.r), [(kind, p.r, weight)])


def against_zeros(loss: Callable[[Tensor, Tensor], Tensor], kind: str, weight: float) -> Idiom:
    return measure(lambda r: loss(r, torch.zeros_like(r)), kind, weight)


def weighted_by(
    loss: Callable[[Tensor, Tensor], Tensor],
    kind: str,
    *shape: int,
    axes: int = 0,
    share: float = 1,
) -> Idiom:
    """A loss of one residual and weights of this shape, which stand before further axes of it."""

    def idiom(p: Problem) -> Loss:
        w = p.data(*shape)
        return loss(p.r, w), [(kind, p.r, share * w[(..., *[None] * axes)])]

    return idiom


# --- How the residual is squared or otherwise measured

MEASURES: dict[str, Idiom] = {
    "** 2": measure(lambda r: (r**2).mean(), "square", 0.1),
    "** 2.0": measure(lambda r: (r**2.0).mean(), "square", 0.1),
    "** tensor(2)": measure(lambda r: (r ** torch.tensor(2.0)).mean(), "square", 0.1),
    "pow": measure(lambda r: r.pow(2).sum(), "square", 1.0),
    "square": measure(lambda r: r.square().mean(), "square", 0.1),
    "r * r": measure(lambda r: (r * r).mean(), "square", 0.1),
    "r * clone": measure(lambda r: (r * r.clone()).mean(), "square", 0.1),
    "abs squared": measure(lambda r: (r.abs() ** 2).mean(), "square", 0.1),
    "mse": against_zeros(mse_loss, "square", 0.1),
    "MSELoss": against_zeros(nn.MSELoss(), "square", 0.1),
    "mse sum": against_zeros(nn.MSELoss(reduction="sum"), "square", 1.0),
    "mse of two outputs": lambda p: (  # periodic boundary: both arguments come from the network
        mse_loss(p.u[:2], p.u[2:4]),
        [("square", p.u[:2] - p.u[2:4], 0.25)],
    ),
    "network as target": lambda p: (mse_loss(y := p.data(5, 2), p.u), [("square", y - p.u, 0.1)]),
    "huber": against_zeros(huber_loss, "huber", 0.1),
    "huber delta": against_zeros(nn.HuberLoss(reduction="sum", delta=0.2), "huber", 1.0),
    "smooth l1": against_zeros(smooth_l1_loss, "smooth_l1", 0.1),
    "l1": against_zeros(l1_loss, "abs", 0.1),
    "abs": measure(lambda r: r.abs().mean(), "abs", 0.1),
    "1-norm": measure(lambda r: torch.norm(r, p=1), "abs", 1.0),
    "1-norm by point": weighted_by(
        lambda r, w: (w * torch.linalg.vector_norm(r, 1, dim=1)).sum(), "abs", 5, axes=1
    ),
    "norm": measure(torch.linalg.norm, "norm", 1.0),
    "norm by point": weighted_by(lambda r, w: (w * r.norm(dim=-1)).sum(), "norm", 5, axes=1),
    "norm kept": weighted_by(lambda r, w: (w * r.norm(dim=0, keepdim=True)).sum(), "norm", 1, 2),
    "norm ** 2": measure(lambda r: r.norm() ** 2, "square", 1.0),
    "norm ** 2 by point": weighted_by(
        lambda r, w: (w * r.norm(dim=1) ** 2).sum(), "square", 5, axes=1
    ),
    "norm scaled ** 2": lambda p: (  # a factor between them: the norm is the head
        (p.r.norm() / 10) ** 2,
        [("norm", p.r, 2 * p.r.detach().norm() / 100)],
    ),
    "rmse": lambda p: (
        torch.sqrt((p.r**2).mean()),
        [("square", p.r, 1 / (20 * p.r.detach().square().mean().sqrt()))],
    ),
    "rmse ** 2": measure(lambda r: (r**2).mean().sqrt() ** 2, "square", 0.1),
    "abs of mse, squared": lambda p: (  # two heads above that only transform the one inside
        (p.r**2).mean().abs() ** 2,
        [("square", p.r, p.r.detach().square().mean() / 5)],
    ),
    "log": lambda p: (p.r.square().sum().log(), [("square", p.r, 1 / p.r.detach().square().sum())]),
    "charbonnier": lambda p: (
        (p.r**2 + 0.01).sqrt().sum(),
        [("square", p.r, 0.5 / (p.r.detach() ** 2 + 0.01).sqrt())],
    ),
    "log cosh": measure(lambda r: torch.log(torch.cosh(r)).mean(), "log_cosh", 0.1),
    "dot": lambda p: (torch.dot(flat := p.r.flatten(), flat), [("square", flat, 1.0)]),
    "dot of views": lambda p: (
        torch.dot(p.r.flatten(), p.r.flatten()) / 7,
        [("square", p.r.flatten(), 1 / 7)],
    ),
    "row times column": lambda p: ((p.s.T @ p.s).sum(), [("square", p.s.T, 1.0)]),
    "einsum": lambda p: (
        torch.einsum("ij,ij->", p.r, p.r),
        [("square", p.r.reshape(1, 1, 10), 1.0)],
    ),
}


# --- How it is weighted, reduced and added up

WEIGHTED: dict[str, Idiom] = {
    "weighted sum": lambda p: (
        3.0 * (p.r**2).mean() + 0.5 * (p.s**2).mean(),
        [("square", p.r, 0.3), ("square", p.s, 0.5 / 3)],
    ),
    "pointwise weights": weighted_by(lambda r, w: (w * r**2).mean(), "square", 5, 1, share=0.1),
    "weights inside": lambda p: (  # what is squared along with the residual is part of it
        ((weighted := p.data(5, 1) * p.r) ** 2).sum(),
        [("square", weighted, 1.0)],
    ),
    "causal matrix": lambda p: (
        ((m := torch.ones(5, 5).double().tril()) @ (p.r**2).mean(1)).sum(),
        [("square", p.r, m.sum(0)[:, None] / 2)],
    ),
    "stacked @ weights": lambda p: (
        torch.stack([(p.r**2).sum(), p.s.abs().sum()]) @ torch.tensor([2.0, 5.0]).double(),
        [("square", p.r, 2.0), ("abs", p.s, 5.0)],
    ),
    "system stacked": lambda p: (
        ((both := torch.stack([p.r[:, 0] * 2, p.r[:, 1] - p.u[:, 0]], dim=1)) ** 2).mean(),
        [("square", both, 0.1)],
    ),
    "uncertainty": lambda p: (  # Kendall, Gal, Cipolla 2018: exp(-s) L / 2 + s / 2
        torch.exp(-p.log_var) * (p.r**2).mean() / 2 + p.log_var / 2,
        [("square", p.r, math.exp(-0.7) / 20)],
    ),
    "uncertainty sigma": lambda p: (  # the same by sigma, whose own square is no residual
        (p.r**2).sum() / (2 * (sigma := p.log_var.exp()) ** 2) + sigma.log(),
        [("square", p.r, math.exp(-1.4) / 2)],
    ),
    "softplus weights": lambda p: (
        (softplus(p.lam) * p.r**2).sum(),
        [("square", p.r, math.log1p(math.exp(0.3)))],
    ),
    "squared weights": lambda p: ((p.lam**2 * p.r**2).sum(), [("square", p.r, 0.09)]),
    "mean dim then sum": lambda p: ((p.r**2).mean(dim=0).sum(), [("square", p.r, 0.2)]),
    "accumulate": lambda p: ((p.r**2).mean() / 4, [("square", p.r, 0.025)]),
    "loss scale": lambda p: ((p.r**2).mean() * 65536.0, [("square", p.r, 6553.6)]),
    "negated": lambda p: (
        -(softplus(p.lam) * p.r**2).sum(),
        [("square", p.r, -math.log1p(math.exp(0.3)))],
    ),
}


def broadcast_target(p: Problem) -> Loss:
    """(5, 1) against (5,): an accident that torch warns of, and that makes 25 rows."""
    y = p.data(5)
    with pytest.warns(UserWarning, match="broadcast"):
        loss = mse_loss(p.u[:, :1], y)
    return loss, [("square", p.u[:, :1] - y, 1 / 25)]


def mse_none_weighted(p: Problem) -> Loss:
    y, w = p.data(5, 2), p.data(5, 2)
    loss = (w * mse_loss(p.u, y, reduction="none")).sum()
    return loss, [("square", p.u - y, w)]


def einsum_by_point(p: Problem) -> Loss:
    w = p.data(5)
    loss = (w * torch.einsum("ij,ij->i", p.r, p.r)).sum()
    return loss, [("square", p.r[:, None, :], w[:, None, None])]


def causal_weights(p: Problem) -> Loss:
    by_time = (p.r**2).mean(1)
    w = torch.exp(-(by_time.cumsum(0) - by_time)).detach()
    return (w * by_time).mean(), [("square", p.r, w[:, None] / 10)]


def live_causal_weights(p: Problem) -> Loss:
    """Without detach, the weights of the points take part in the coefficient."""
    values = (p.r**2).detach().mean(1).requires_grad_()
    total = (torch.exp(-values.cumsum(0)) * values).sum()
    (coefficient,) = torch.autograd.grad(total, values)
    by_time = (p.r**2).mean(1)
    loss = (torch.exp(-by_time.cumsum(0)) * by_time).sum()
    return loss, [("square", p.r, coefficient[:, None] / 2)]


def weights_from_coordinates(p: Problem) -> Loss:
    """The points require a gradient, and so does a weight made from them."""
    w = torch.exp(-((p.x[:, :1] - 0.5) ** 2))
    return (w * p.r**2).sum(), [("square", p.r, w.detach())]


def written_into_a_buffer(p: Problem) -> Loss:
    losses = p.zeros(2)
    losses[0] = (p.r**2).sum()
    losses[1] = (p.s**2).sum() * 4
    return losses.sum(), [("square", p.r, 1.0), ("square", p.s, 4.0)]


def sum_over_dict(p: Problem) -> Loss:
    losses = {"pde": (p.r**2).mean(), "bc": p.s.abs().mean(), "ic": mse_loss(p.u, p.r.detach())}
    expected = [("square", p.r, 0.1), ("abs", p.s, 1 / 3), ("square", p.u - p.r.detach(), 0.1)]
    return sum(losses.values()), expected


def system_as_sum_of_squares(p: Problem) -> Loss:
    momentum, mass = p.r[:, 0] * 2, p.r[:, 1] - p.u[:, 0]
    loss = (momentum**2 + mass**2).mean()
    return loss, [("square", momentum, 0.2), ("square", mass, 0.2)]


def hard_points(p: Problem) -> Loss:
    """The loss of the two worst points alone: the others weigh nothing."""
    errors = (p.s**2).squeeze(1)
    chosen = torch.zeros_like(errors).index_fill(0, errors.topk(2).indices, 0.5)
    return errors.topk(2).values.mean(), [("square", p.s, chosen[:, None])]


def masked(p: Problem) -> Loss:
    inside = p.x.detach()[:, 0] < 0.5
    loss = torch.where(inside[:, None], p.r**2, 0.0).sum()
    return loss, [("square", p.r, inside[:, None].double())]


# --- What stands inside, beside and between the residuals

INSIDE: dict[str, Idiom] = {
    "same residual": lambda p: (
        (p.r**2).sum() + 2 * p.r.abs().sum(),
        [("square", p.r, 1.0), ("abs", p.r, 2.0)],
    ),
    "integral": lambda p: (  # the integral of u^2 is 1: the residual is one number, not u
        (excess := (p.u**2).mean() - 1) ** 2,
        [("square", excess, 1.0)],
    ),
    "square inside": lambda p: (  # Allen-Cahn: u^2 in the residual is no head
        (r := p.derivative(u := p.u[:, :1]) + 5 * u**3 - 5 * u * u.square() - u.abs())
        .square()
        .mean(),
        [("square", r, 0.2)],
    ),
    "head below head": lambda p: (  # squared once more: the weight is that of the first path
        (energy := (p.r**2).mean()) + 3 * (energy - 1) ** 2,
        [("square", p.r, 0.1), ("square", energy - 1, 3.0)],
    ),
    "complex": lambda p: (
        ((psi := torch.complex(p.r[:, 0], p.r[:, 1]) * 1j).abs() ** 2).mean(),
        [("square", psi, 0.2)],
    ),
    "l2 penalty": lambda p: (
        (p.r**2).mean() + 1e-3 * sum((w**2).sum() for w in p.net.parameters()),
        [("square", p.r, 0.1)],
    ),
    "pointwise model": lambda p: (  # without any matrix product; data tell it from a penalty
        (decay := p.log_var * p.data(4)).square().sum() + (p.log_var * 3).square(),
        [("square", decay, 1.0)],
    ),
}


def gradient_enhanced(p: Problem) -> Loss:
    """gPINN: the second residual is the derivative of the first."""
    r = p.u[:, :1] ** 2 + p.derivative(p.u[:, 1])
    r_x = p.derivative(r)
    return (r**2).mean() + 0.1 * (r_x**2).mean(), [("square", r, 0.2), ("square", r_x, 0.02)]


def data_and_pde_of_one_call(p: Problem) -> Loss:
    u, y = p.net(p.x), p.data(2, 2)
    r = p.derivative(u)[2:] - u[2:, :1]
    loss = mse_loss(u[:2], y) + (r**2).mean()
    return loss, [("square", u[:2] - y, 0.25), ("square", r, 1 / 3)]


def other_penalties(p: Problem) -> Loss:
    flat = torch.cat([w.flatten() for w in p.net.parameters()])
    penalty = flat.norm() ** 2 + flat.abs().sum() + p.net[0].weight.sum()
    return (p.r**2).mean() + 1e-3 * penalty, [("square", p.r, 0.1)]


def prior_on_a_coefficient(p: Problem) -> Loss:
    """A coefficient held against a given value has a residual, unlike one held against 0."""
    residual = p.log_var - 0.2
    loss = ((p.log_var * p.r) ** 2).mean() + residual**2
    return loss, [("square", p.log_var * p.r, 0.1), ("square", residual, 1.0)]


def normalised_weight(p: Problem) -> Loss:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)).double()
    r = layer(p.x)
    return r.square().sum() + layer.weight.norm() ** 2, [("square", r, 1.0)]


def torch_func(p: Problem) -> Loss:
    parameters = dict(p.net.named_parameters())

    def u(x: Tensor) -> Tensor:
        return torch.func.functional_call(p.net, parameters, (x,))[0]

    laplacian = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(u)))(p.data(4, 2))
    r = laplacian.diagonal(dim1=1, dim2=2).sum(1)
    return (r**2).mean(), [("square", r, 0.25)]


def leaf_beside_residual(p: Problem) -> Loss:
    both = torch.cat([p.r.flatten(), p.lam.flatten()])
    again = torch.cat([p.lam.flatten(), p.r.flatten()])
    loss = both.square().sum() + again.square().sum()
    return loss, [("square", both, 1.0), ("square", again, 1.0)]


class Labelled(Tensor):
    """A tensor with a label, as in physics code that names its fields."""


def labelled(p: Problem) -> Loss:
    u = p.net(p.x.as_subclass(Labelled))
    y = p.data(5, 2)
    loss = ((u - y) ** 2).mean() + mse_loss(u, p.zeros(5, 2))
    return loss, [("square", (u - y).as_subclass(Tensor), 0.1), ("square", u, 0.1)]


IDIOMS: dict[str, Idiom] = MEASURES | WEIGHTED | INSIDE
IDIOMS |= {
    idiom.__name__: idiom
    for idiom in (
        *(broadcast_target, mse_none_weighted, einsum_by_point, causal_weights),
        *(live_causal_weights, weights_from_coordinates, written_into_a_buffer),
        *(sum_over_dict, system_as_sum_of_squares, hard_points, masked, gradient_enhanced),
        *(data_and_pde_of_one_call, other_penalties, prior_on_a_coefficient),
        *(normalised_weight, torch_func, leaf_beside_residual, labelled),
    )
}
