"""Residuals whose rows share points, and weights that meet the points by a detour.

All without the certificate, which would mend what goes wrong here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from pinn_ntk import NTKWarning, empirical_ntk
from pinn_ntk.graph.jacobian import climb, mixing, partitions, sites
from pinn_ntk.graph.jacobian.row_factors import ONE_POINT, row_factors
from pinn_ntk.graph.reference import reference_jacobian
from tests.asserts import assert_near, backward_passes
from tests.networks import NETWORKS
from tests.operators import grad, navier_stokes_parts, points

N = 6

pytestmark = pytest.mark.usefixtures("float64")


def fallbacks(residual: Tensor, params: nn.Module | list[Tensor]) -> dict[str, str]:
    """Parameters that were not read off the graph, after the Jacobian was found to be right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NTKWarning)
        jacobian = empirical_ntk(residual, params, certify=False).jacobian("residual")
    assert_near(jacobian.dense(), reference_jacobian(residual, params), 1e-11, "J")
    return jacobian.fallbacks


def parts(shape: tuple[int, ...]) -> list[list[list[int]]]:
    return [partition.tolist() for partition in partitions.partitions(shape)]


def test_first_all_rows_together_then_by_axis_then_in_turn():
    assert [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]] in parts((3, 2, 2))  # on two axes
    assert all(len(partition) < 5 for partition in parts((5, 1)))  # no part of one row by an axis
    assert parts((2, 3)) == [
        [[0, 1, 2, 3, 4, 5]],
        [[0, 1, 2], [3, 4, 5]],  # components on axis 0
        [[0, 3], [1, 4], [2, 5]],  # components on axis 1
        [[0, 2, 4], [1, 3, 5]],  # every second row
        [[0, 3], [1, 4], [2, 5]],
    ]


@pytest.mark.parametrize("shape", [(7,), (8, 1), (2, 3), (1, 7), (5, 2, 2), (2, 2, 2, 2)], ids=str)
def test_every_partition_holds_each_row_once(shape: tuple[int, ...]):
    found = parts(shape)
    rows = torch.zeros(shape).numel()
    assert found[0] == [list(range(rows))]
    for partition in found:
        assert sorted(row for part in partition for row in part) == list(range(rows))
        assert len({len(part) for part in partition}) == 1


def flow() -> tuple[tuple[Tensor, ...], nn.Module]:
    """Three residuals (N, 1) each at the same points."""
    net = NETWORKS["mlp"](2, 3)
    return navier_stokes_parts(net, points(N, 2)), net


ORDER = [3, 0, 5, 2, 1, 4]


def test_many_components_are_not_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(partitions, "MAX_COMPONENTS", 2)
    assert [len(partition) for partition in parts((2, 3))] == [1, 2, 2, 3]
    residuals, net = flow()
    reasons = fallbacks(torch.stack(residuals).squeeze(2)[:, ORDER].mT, net)
    assert set(reasons.values()) <= {climb.INTERACTING}


Join = Callable[[tuple[Tensor, ...]], Tensor]
JOINED: dict[str, Join] = {
    "columns": lambda p: torch.cat(p, dim=1),  # (N, 3)
    "columns_permuted": lambda p: torch.cat(p, dim=1)[ORDER],
    "rows": lambda p: torch.cat(p, dim=1).T,  # (3, N)
    "rows_permuted": lambda p: torch.stack(p).squeeze(2)[:, ORDER],
    "two_axes": lambda p: torch.stack([p[0], p[1], p[1], p[2]], dim=2).view(N, 2, 2),
    "two_axes_permuted": lambda p: torch.stack([p[0], p[1], p[1], p[2]], 2).view(N, 2, 2)[ORDER],
    "two_axes_first": lambda p: torch.stack([p[0], p[1], p[1], p[2]]).view(2, 2, N),
    "points_between": lambda p: torch.stack([torch.cat(q, 1) for q in (p[:2], p[1:])]),  # (2, N, 2)
    "one_after_another": torch.cat,  # (3 N, 1)
    "one_after_another_flat": lambda p: torch.cat(p).squeeze(1),
    "two_after_another": lambda p: torch.cat(p[:2]),
    "four_after_another": lambda p: torch.cat([*p, p[0] * p[1]]),
    "in_turn": lambda p: torch.cat(p, dim=1).flatten(),  # (3 N,)
    "in_turn_column": lambda p: torch.cat(p, dim=1).reshape(-1, 1),
    "two_in_turn": lambda p: torch.stack(p[:2], dim=1).reshape(-1),
    "norm_of_all": lambda p: torch.cat(p, dim=1).norm(dim=1)[ORDER],
    "twice_the_same": lambda p: torch.cat([p[0], p[0]]),
    "some_points_twice": lambda p: torch.cat([p[0], p[1][:5]]),
    "five_joined": lambda p: torch.cat([*p, p[0] * p[1], p[1] * p[2]]),
    "shuffled_components": lambda p: torch.cat(p)[torch.randperm(3 * N)],
    "differences": lambda p: p[0].diff(dim=0),
    "second_differences": lambda p: p[0][2:] - 2 * p[0][1:-1] + p[0][:-2],
    "pairs_of_points": lambda p: p[0] - p[1].T,
}


HALF_SHARED: dict[str, Join] = {
    "running_sum": lambda p: p[0].cumsum(0),
    "mixed_by_a_matrix": lambda p: torch.ones(N, N).tril() @ p[0] * p[1],
}


@pytest.mark.parametrize("name", JOINED | HALF_SHARED)
def test_components_are_told_from_points_where_a_partition_fits(name: str):
    residuals, net = flow()
    reasons = fallbacks((JOINED | HALF_SHARED)[name](residuals), net)
    assert set(reasons.values()) == ({climb.INTERACTING} if name in HALF_SHARED else set())


@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"batch_norm"}))
@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 2)], ids=str)
def test_components_at_a_single_point(network: str, shape: tuple[int, ...]):
    """The initial values of a system of equations."""
    net, x = NETWORKS[network](1, shape[-1]), points(1, 1)
    u = net(x)
    derivatives = [grad(u[:, k], x) for k in range(shape[-1])]
    for residual in (u.view(shape) - 1, torch.cat(derivatives, 1).view(shape)):
        assert fallbacks(residual, net) == {}
        assert_near(
            empirical_ntk(residual, net).jacobian("residual").dense(),
            reference_jacobian(residual, net),
            1e-12,
            "J",
        )


@pytest.mark.parametrize(
    "arranged",
    [lambda u: u[0] - 1, lambda u: u.squeeze() * 2, lambda u: u.view(-1, 2).sin(), lambda u: u - 1],
    ids=["row", "squeezed", "matrix", "as_it_is"],
)
@pytest.mark.parametrize(("size", "inner"), [(4, set()), (40, {ONE_POINT})])
def test_components_at_a_single_point_are_known_by_the_graph(
    arranged: Any, size: int, inner: set[str]
):
    net = NETWORKS["mlp"](1, size)
    assert set(fallbacks(arranged(net(points(1, 1))), net).values()) == inner
    normed = NETWORKS["batch_norm"](1, 1)
    interacting = fallbacks(arranged(normed(points(size, 1)).mT), normed).values()
    assert ONE_POINT not in interacting


def test_terms_of_different_points_in_one_tensor():
    net = NETWORKS["mlp"](1, 1)
    x, y = points(N, 1), points(4, 1, seed=1)
    assert fallbacks(torch.cat([grad(net(x), x), 10 * net(y)]), net) == {}


Compute = Callable[[Tensor, Tensor, Tensor], Tensor]


class Detour(nn.Module):
    """x -> tanh(x W(theta)) v, with W (4, 5) computed from parameters in some way."""

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5, 4))
        self.c = nn.Parameter(torch.rand(5) + 0.5)
        self.v, self.compute = nn.Parameter(torch.randn(5, 1)), compute

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.compute(self.a, self.b, self.c)) @ self.v


DETOURS: dict[str, Compute] = {
    "itself": lambda a, _b, _c: a,
    "transposed": lambda _a, b, _c: b.T,
    "scaled": lambda a, _b, c: a * c,
    "product": lambda a, b, _c: a @ b @ a,
    "low_rank": lambda a, b, _c: a[:, :2] @ b[:2].T[:2].repeat(1, 2)[:, :1].expand(2, 5),
    "normalised": lambda a, _b, c: a / a.norm(dim=0) * c,
    "softmax": lambda a, _b, _c: a.softmax(0),
    "sum_of_two": lambda a, b, _c: a + b.T,
    "split": lambda a, b, _c: torch.cat([a.split(2, 1)[1], b.T.split([1, 3, 1], 1)[1]], 1),
    "unbound": lambda a, _b, _c: torch.stack(a.unbind(0)[::-1]),
    "qr": lambda _a, b, _c: torch.linalg.qr(b).Q.T,
    "singular_vectors": lambda a, _b, c: torch.linalg.svd(a, full_matrices=False).Vh * c,
    "inverse": lambda a, b, _c: torch.linalg.solve(a @ b + 5 * torch.eye(4), a),
    "exponential": lambda a, b, _c: torch.matrix_exp((a @ b) / 9) @ a,
    "sorted": lambda a, _b, _c: a.sort(1).values,
    "masked": lambda a, _b, _c: a.tril(),
    "gathered": lambda a, _b, _c: a[:, [4, 0, 0, 1, 2]],
    "used_twice": lambda a, b, _c: a * a.mean() + b.T.exp(),
    "detached_in_part": lambda a, b, _c: a.detach() * b.T + a * b.T.detach(),
    "copied": lambda a, _b, _c: a.clone().contiguous().view(4, 5),
    "written_into": lambda a, _b, c: a.clone().index_add_(0, torch.tensor([1]), c[None]),
    "in_place": lambda a, _b, c: (a * 1).mul_(c).add_(1),
}


@pytest.mark.parametrize("compute", DETOURS.values(), ids=DETOURS)
@pytest.mark.parametrize("derivative", [False, True], ids=["u", "u_x"])
@pytest.mark.parametrize("order", [slice(None), ORDER], ids=["in_order", "permuted"])
def test_weights_computed_from_parameters(compute: Compute, derivative: bool, order: Any):
    net, x = Detour(compute), points(N, 4)
    residual = grad(net(x), x) if derivative else net(x)
    assert fallbacks(residual[order], net) == {}


def test_weights_frozen_in_part_or_scaled_by_a_tensor_that_is_no_parameter():
    """That might be a coordinate, so that the product might differ from point to point."""
    net, x = Detour(DETOURS["normalised"]), points(N, 4)
    net.a.requires_grad_(False)
    assert fallbacks(grad(net(x), x), net) == {}
    scale = torch.ones((), requires_grad=True)
    net = Detour(lambda a, _b, _c: a * scale)
    assert list(fallbacks(net(points(N, 4)), net)) == ["a"]


@pytest.mark.parametrize("tracked", [False, True])
def test_trained_points(tracked: bool):
    net, x = NETWORKS["mlp"](1, 1), nn.Parameter(points(N, 1).detach())
    residual = grad(net(x), x) + net(x)
    reasons = fallbacks(residual, [*net.parameters(), *([x] if tracked else [])])
    assert list(reasons) == (["param_8"] if tracked else [])


@pytest.mark.parametrize("shape", [(4,), (2, 3), (5, 1)], ids=str)
def test_a_residual_that_is_a_parameter(shape: tuple[int, ...]):
    w = nn.Parameter(torch.randn(shape))
    assert list(fallbacks(w, [w])) == ["param_0"]


def test_a_parameter_of_one_row_only():
    net, shift = NETWORKS["mlp"](1, 1), nn.Parameter(torch.ones(1))
    u = net(points(N, 1))
    fallbacks(torch.cat([u[:2], u[2:3] * shift, u[3:]]), [*net.parameters(), shift])


def test_a_residual_that_depends_on_nothing_trained():
    net, x = NETWORKS["mlp"](1, 1), points(N, 1)
    kernel = empirical_ntk({"pde": x.sin(), "bc": net(x)}, net)
    assert torch.equal(kernel["pde"], torch.zeros(N, N))
    assert kernel.certificate["pde", "pde"] == 0.0


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1)], ids=str)
def test_one_row_is_left_to_one_backward_pass(shape: tuple[int, ...]):
    net = NETWORKS["batch_norm"](1, 1)
    residual = net(points(N, 1)).mean().view(shape)
    factors, reasons, *_ = row_factors(residual, names := dict(net.named_parameters()))
    assert factors == {}
    assert set(reasons) == set(names)
    kernel = empirical_ntk(residual, net)  # a warning would be an error here
    assert kernel.jacobian("residual").fallbacks == {}
    assert_near(kernel.jacobian("residual").dense(), reference_jacobian(residual, net), 1e-14, "J")


def smooth(rows: int, size: int) -> Tensor:
    """A dense operator, such as quadrature or a change of basis."""
    return torch.cos(torch.arange(rows)[:, None] * torch.arange(size) / 7)


@pytest.mark.parametrize("side", ["columns", "rows"])
@pytest.mark.parametrize("size", [mixing.FEW, mixing.FEW + 1])
def test_a_matrix_times_the_network_is_exact_and_said_if_large(side: str, size: int):
    net = NETWORKS["mlp"](1, 1)
    u, names = net(points(size, 1).detach()), dict(net.named_parameters())
    live = smooth(20, size) @ u if side == "columns" else (u.mT @ smooth(size, 20)).sin()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        kernel = empirical_ntk({"pde": live}, net)
    if size == 257:
        assert "all rows share 257 entries that the network computes" in str(said[0].message)
        assert (said[0].category, said[0].filename) == (NTKWarning, __file__)
    assert len(said) == size - mixing.FEW
    assert set(kernel.jacobian("pde").fallbacks) == (set(names) if said else set())
    assert_near(kernel.jacobian("pde").dense(), reference_jacobian(live, net), 1e-12, "J")


def test_a_weight_made_of_a_trained_and_a_fixed_factor_is_no_result_of_the_network():
    factor = torch.randn(30, 2, requires_grad=True)
    live = (torch.randn(5, 30) @ (factor @ smooth(2, 30))).tanh().sum(1)
    kernel = empirical_ntk({"pde": live}, [factor])  # 900 entries; a warning would be an error
    assert kernel.jacobian("pde").fallbacks == {}
    assert_near(kernel.jacobian("pde").dense(), reference_jacobian(live, [factor]), 1e-12, "J")


MIXED: dict[str, Callable[[nn.Sequential, Tensor], Tensor]] = {
    "matrix_inside": lambda m, x: m[2](torch.tanh(smooth(16, 16) @ m[1](m[0](x)))),
    "spectral_derivative": lambda m, x: torch.fft.irfft(
        1j * torch.arange(9) * torch.fft.rfft(m(x)[..., 0]), n=16
    ),
    "attention": lambda m, x: m[2]((h := m[0](x)) + torch.softmax(h @ h.mT, -1) @ h),
    "convolution_over_points": lambda m, x: m[2](
        conv1d(m[0](x).mT, torch.ones(8, 1, 3), padding=1, groups=8).mT
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_rows_of_all_points_of_a_grid_take_no_more_than_row_by_row(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """A few passes to see that rows mix, and one a row; sets that cannot help are not tried."""
    net, x = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)), points(3 * 16, 2)
    residual = MIXED[name](net, x.view(3, 16, 2))
    passes = backward_passes(monkeypatch)
    reasons = fallbacks(residual, net)
    assert len(passes) < residual.numel() + 20  # the reference takes one a row
    assert set(reasons) <= {name for name, _ in net.named_parameters()}


@pytest.mark.parametrize(
    ("reach", "tried"), [(2, [1, 2]), (4, [1, 2, 3, 4]), (8, [1, 4]), (12, [1])]
)
def test_sets_of_more_rows_than_can_be_told_apart_are_not_tried(
    reach: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
):
    """Row i takes the points i to i + reach - 1, of 24 rows and points on a ring."""
    near = torch.stack([torch.eye(24).roll(k, 0) for k in range(reach)]).sum(0)
    net, made = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)), []
    attempt = sites._try

    def noted(*args: Any) -> Any:
        made.append(len(args[2]))
        return attempt(*args)

    monkeypatch.setattr(sites, "_try", noted)
    residual = near @ net(points(24, 2))
    _, reasons, *_ = row_factors(residual, dict(net.named_parameters()))
    assert made == tried
    assert (reasons == {}) == (reach <= 4)


def test_functions_with_points_of_their_own_share_a_branch(monkeypatch: pytest.MonkeyPatch):
    """DeepONet: the branch is read once, not once a point."""
    branch, trunk = (NETWORKS["one_hidden"](size, 6) for size in (3, 1))
    net, sensors = nn.ModuleDict({"branch": branch, "trunk": trunk}), points(4, 3).detach()
    taken = []
    for count in (9, 13):
        x = points(4 * count, 1)
        values = torch.einsum("bp,bnp->bn", branch(sensors), trunk(x.view(4, count, 1)))
        residual = values - grad(values, x).view(4, count)
        assert fallbacks(residual, net) == {}
        with monkeypatch.context() as patch:
            passes = backward_passes(patch)
            factors, *_ = row_factors(residual, dict(net.named_parameters()))
        taken.append(len(passes))
        assert set(factors) == {name for name, _ in net.named_parameters()}
    assert taken[0] == taken[1]


def test_branches_that_are_spread_chosen_or_broadcast_stay_in_factors():
    branch, x = NETWORKS["one_hidden"](3, 6), points(4 * 9, 1).view(4, 9, 1)
    codes, w = branch(points(4, 3).detach()), nn.Parameter(torch.randn(1, 6))
    known = [*branch.parameters(), w]
    spread = {
        "broadcast": codes[:, None] * (x @ w),
        "expanded": codes[:, None].expand(4, 9, 6).reshape(36, 6) * (x @ w).view(36, 6),
        "chosen": codes[torch.arange(36) // 9] * (x @ w).view(36, 6),
        "repeated": codes.repeat_interleave(9, 0) * (x @ w).view(36, 6),
        "selected": codes.index_select(0, torch.arange(36) // 9) * (x @ w).view(36, 6),
    }
    reasons = {name: fallbacks(value.tanh().sum(-1), known) for name, value in spread.items()}
    assert reasons == {name: {} for name in spread}
