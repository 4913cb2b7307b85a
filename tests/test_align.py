"""The proof that rows keep to themselves: never given where they mix, given for ordinary PINNs.

Everything here runs without the certificate, which would mend a wrong proof. Numbers of points and
widths are equal on purpose, so that no shape gives a mixed-up axis away.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, leaky_relu, linear, logsigmoid, silu, softplus

from pinn_ntk import NTKWarning, empirical_ntk
from pinn_ntk.graph.jacobian import sites
from pinn_ntk.graph.jacobian.align import aligned_uses
from pinn_ntk.graph.params import named_leaves
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.graph.residuals import named_residuals
from pinn_ntk.graph.walk import Graph
from tests.asserts import assert_near, backward_passes
from tests.cases import CASES, Case
from tests.networks import NETWORKS
from tests.operators import OPERATORS, points

N = 5

pytestmark = pytest.mark.usefixtures("float64")


def assert_jacobian_is_right(residual: Tensor, params: list[Tensor], what: str = "J") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NTKWarning)
        jacobian = empirical_ntk(residual, params, certify=False).jacobian("residual").dense()
    expected = reference_jacobian(residual, params)
    if not expected.isfinite().all():  # the derivative of a root at 0, in some random graph
        return
    # where the exact derivative is 0 by cancellation, both hold rounding
    assert_near(jacobian, expected, 1e-10, what, scale=max(float(expected.norm()), 1e-4))


class Layer:
    """tanh(x W + b) for square everything, and more parameters of the same sizes."""

    def __init__(self, *, trained_points: bool) -> None:
        self.x = torch.randn(N, N, requires_grad=trained_points)
        self.w, self.v = (nn.Parameter(torch.randn(N, N) / 2) for _ in range(2))
        self.b, self.row = nn.Parameter(torch.randn(N)), nn.Parameter(torch.randn(1, N))
        self.column, self.number = nn.Parameter(torch.rand(N, 1)), nn.Parameter(torch.rand(()))
        self.batch = nn.Parameter(torch.rand(N, N, 1))
        self.fixed = torch.rand(N) + 0.5
        self.h = torch.tanh(self.x @ self.w + self.b)
        self.params = [self.w, self.v, self.b, self.row, self.column, self.number, self.batch]


def slope(value: Tensor, n: Layer, otherwise: Tensor) -> Tensor:
    by = n.x if n.x.requires_grad else otherwise
    return torch.autograd.grad(value, by, create_graph=True, allow_unused=True)[0]


MIXING: dict[str, Callable[[Layer], Tensor]] = {
    "sum_over_points": lambda n: n.h.sum(0),
    "sum_over_points_and_features": lambda n: n.h.sum((0, 1)) * n.fixed,
    "sum_counted_from_the_back": lambda n: n.h.sum(-2),
    "sum_counted_from_the_back_of_three": lambda n: n.h.unsqueeze(2).sum(-3),
    "features_summed_of_three": lambda n: (n.h.unsqueeze(1) * n.v).sum(-1),
    "mean_over_points": lambda n: n.h.mean(0),
    "mean_of_all": lambda n: n.h - n.h.mean(),
    "mean_kept": lambda n: n.h - n.h.mean(0, keepdim=True),
    "mean_subtracted": lambda n: n.h - n.h.mean(0),
    "mean_of_other_points": lambda n: n.h - torch.tanh(n.x.detach() @ n.w).mean(0),
    "norm_over_points": lambda n: n.h.norm(dim=0),
    "norm_kept": lambda n: n.h / n.h.norm(dim=0, keepdim=True),
    "norm_of_all": lambda n: n.h / n.h.norm(),
    "normalised_over_points": lambda n: (n.h - n.h.mean(0)) / n.h.std(0) * n.b,
    "layer_norm_over_everything": lambda n: layer_norm(n.h, (N, N)),
    "transposed": lambda n: n.h.T.sum(1),
    "transposed_twice": lambda n: n.h.T.contiguous().T * n.b,
    "transposed_and_permuted": lambda n: n.h.transpose(0, 1).permute(1, 0)[:, 0],
    "transposed_view": lambda n: n.h.T.reshape(N, N).sum(1),
    "point_by_point_product": lambda n: (n.h.T @ n.h).sum(1),
    "gram": lambda n: n.h @ n.h.T,
    "features_of_all_points": lambda n: n.h @ (n.x.T @ n.w),
    "left_product": lambda n: n.w @ n.h,
    "left_product_transposed": lambda n: n.v.T @ n.h,
    "left_product_by_data": lambda n: n.fixed.diag().roll(1, 0) @ n.h,
    "addmm_left": lambda n: torch.addmm(n.h, n.v, n.h),
    "weight_from_the_right": lambda n: n.h.T @ n.v,
    "attention": lambda n: (n.h @ n.h.T).softmax(-1) @ n.h,
    "softmax_over_points": lambda n: n.h.softmax(0),
    "softmax_over_features": lambda n: n.h.softmax(1),
    "select_point": lambda n: n.h[0],
    "select_last_point": lambda n: n.h.select(-2, -1) * n.b,
    "select_feature": lambda n: n.h.select(-1, -1),
    "split_points": lambda n: n.h.split([2, 3])[1].sum(0),
    "unbind_points": lambda n: n.h.unbind(0)[2],
    "unbind_features": lambda n: n.h.unbind(-1)[2],
    "chunks_of_features": lambda n: n.h.chunk(2, 1)[1],
    "stack_of_points": lambda n: torch.stack([n.h[:, 0]] * N),
    "stack_of_sums": lambda n: torch.stack([n.h.sum() * i for i in range(N)]),
    "stack_of_features": lambda n: torch.stack([n.h[:, i] for i in (1, 0, 2)], dim=1),
    "cat_of_rows": lambda n: torch.cat([n.h[2:], n.h[:2]]),
    "cat_of_features": lambda n: torch.cat([n.h[:, :2], n.h], dim=-1),
    "reversed": lambda n: n.h.flip(0),
    "rolled": lambda n: n.h.roll(1, 0) * n.h,
    "permuted": lambda n: n.h[[4, 0, 1, 2, 3]],
    "masked": lambda n: n.h[torch.tensor([True, False, True, True, False])],
    "sorted": lambda n: n.h.sort(0).values,
    "gathered": lambda n: n.h.gather(0, torch.tensor([[4, 1, 0, 2, 2]] * N)),
    "cumulated": lambda n: n.h.cumsum(0),
    "multiplied_up": lambda n: n.h.cumprod(0),
    "largest": lambda n: n.h.max(0).values,
    "diagonal": lambda n: n.h.diagonal(),
    "lower_triangle": lambda n: n.h.tril() @ n.b,
    "as_one_row": lambda n: n.h.reshape(-1)[::N],
    "unsqueezed": lambda n: n.h.unsqueeze(0).expand(N, N, N).sum(1),
    "expanded_column": lambda n: n.h[:, 0].expand(N, N),
    "broadcast_against_itself": lambda n: n.h[:, :1] - n.h[:, 0],
    "outer": lambda n: torch.outer(n.h[:, 0], n.b),
    "outer_reversed": lambda n: torch.outer(n.b, n.h[:, 0]),
    "einsum": lambda n: torch.einsum("ij,kj->k", n.h, n.w),
    "einsum_batched": lambda n: torch.einsum("ij,jk,ik->i", n.h, n.v, n.x),
    "batched": lambda n: torch.bmm(n.h[:, None, :], n.batch).reshape(N),
    "chosen_from_another_row": lambda n: torch.where(n.h > 0, n.h, n.h.flip(0)),
    "bias_of_width_n": lambda n: linear(n.x, n.w, n.number * n.fixed),
    "bias_cloned": lambda n: linear(n.x, n.w, n.b.clone()).tanh() @ n.v,
    "bias_scaled": lambda n: linear(n.x, n.w, 10 * n.b.exp()).sum(1),
    "bias_row": lambda n: torch.addmm(n.row * 2, n.x, n.w),
    "bias_matrix": lambda n: torch.addmm(n.v * 2, n.x, n.w),
    "number_a_point": lambda n: n.column * n.h,
    "number_a_point_summed": lambda n: (n.column * n.h).sum(1),
    "number_a_point_added": lambda n: (n.h + n.column).square(),
    "number_a_point_expanded": lambda n: (n.column.expand(N, N) * n.h).sum(1),
    "number_a_point_divides": lambda n: n.h / n.column,
    "vector_as_long_as_points": lambda n: n.h[:, 0] * n.b,
    "matrix_as_large_as_points": lambda n: n.h * n.v,
    "matrix_computed": lambda n: n.h * n.v.exp() + n.v.sum(0),
    "matrix_summed": lambda n: n.h @ n.v + n.v.sum(1),
    "weight_of_itself": lambda n: n.h @ (n.v @ n.v.T),
    "gradient_of_a_mean": lambda n: slope((n.h.mean(0) ** 2).sum(), n, n.b),
    "gradient_of_a_product": lambda n: slope((n.h @ n.h.T).exp().sum(), n, n.column + n.b),
}


@pytest.mark.parametrize("residual", MIXING.values(), ids=MIXING)
@pytest.mark.parametrize("trained_points", [False, True], ids=["data", "coordinates"])
def test_no_mixing_is_taken_for_alignment(residual: Callable, trained_points: bool):
    layer = Layer(trained_points=trained_points)
    if (r := residual(layer)) is None:
        pytest.skip("no such derivative")
    assert_jacobian_is_right(r, layer.params)
    if trained_points:
        assert_jacobian_is_right(r, [layer.x, *layer.params])


SHAPES = [(), (1,), (4,), (1, 4), (4, 1), (4, 4), (4, 4), (3, 4), (4, 3)]
"""Shapes of trained leaves, N = 4."""

UNARY: list[Callable[[Tensor], Tensor]] = [
    torch.tanh, torch.exp, torch.sin, torch.sigmoid, torch.sqrt, torch.abs, torch.clone, silu,
    softplus, torch.square, lambda t: t**3, lambda t: 1 - t, lambda t: 2 * t, lambda t: t + 1,
    leaky_relu, logsigmoid, lambda t: t.clamp(max=1),
]  # fmt: skip
REARRANGE: list[Callable[[Tensor], Tensor]] = [
    lambda t: t.t(), lambda t: t.sum(0), lambda t: t.sum(-1), lambda t: t.sum(-1, keepdim=True),
    lambda t: t.sum(0, keepdim=True), lambda t: t - t.mean(0), lambda t: t.mean(),
    lambda t: t - t.mean(-1, keepdim=True), lambda t: t.cumsum(0), lambda t: t.softmax(-1),
    lambda t: t.softmax(0), lambda t: t.flip(0), lambda t: t.flip(-1), lambda t: t.roll(1, 0),
    lambda t: t[0], lambda t: t[..., 0], lambda t: t.select(0, -1), lambda t: t.select(-1, -1),
    lambda t: t.sort(0).values, lambda t: t.unsqueeze(0), lambda t: t.unsqueeze(-1),
    lambda t: t.squeeze(), lambda t: t.reshape(-1), lambda t: t.reshape(4, -1),
    lambda t: t.reshape(-1, 4), lambda t: t.expand(4, *t.shape), lambda t: t.expand(4, 4),
    lambda t: torch.stack([t] * 4), lambda t: torch.stack([t, 2 * t], -1),
    lambda t: torch.cat([t, t], -1), lambda t: t[1:], lambda t: t[:, :1], lambda t: t[:, :],
    lambda t: t.split(2, -1)[1], lambda t: t.split(2, 0)[1], lambda t: t.unbind(-1)[1],
    lambda t: t.unbind(0)[1], lambda t: t.norm(dim=-1), lambda t: t.norm(dim=0), lambda t: t.norm(),
]  # fmt: skip
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add, torch.sub, torch.mul, torch.div, torch.matmul, torch.matmul, torch.outer, linear,
    lambda a, b: torch.addmm(a, b, b.t()), lambda a, b: linear(a, b, b.sum(-1)),
    lambda a, b: torch.where(a > 1, a, b), lambda a, b: torch.cat([a, b], -1),
    lambda a, b: torch.addmm(a, b, b), lambda a, b: torch.addcmul(a, a, b), torch.maximum,
    lambda a, b: torch.lerp(a, b, 0.3), lambda a, b: a.masked_fill(b > 1, 2.0),
]  # fmt: skip


def random_graph(seed: int) -> tuple[Tensor, list[Tensor]] | None:
    """The last result of a few random operations on points (4, 4), data and leaves."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    leaves = [torch.rand(s, generator=generator).add_(0.3).requires_grad_() for s in SHAPES]
    x = torch.rand(4, 4, generator=generator).requires_grad_(choose.random() < 0.5)
    pool = [x, *(torch.rand(s, generator=generator) for s in [(4, 4), (4, 1), (4,), (4, 3)])]
    pool += leaves
    for _ in range(choose.randint(3, 8)):
        try:
            new = random_operation(choose, pool, x)
        except (RuntimeError, IndexError):  # shapes that do not fit
            continue
        if new is not None and 0 < new.numel() <= 64 and bool((new.abs() < 1e6).all()):
            pool.append(new)
    residual = pool[-1]
    if residual.grad_fn is None:
        return None
    if choose.random() < 0.5 and residual.ndim > 1 and len(residual) > 1:
        residual = residual.flatten(1).sum(1)
    return residual, leaves


def random_operation(choose: random.Random, pool: list[Tensor], x: Tensor) -> Tensor | None:
    def operand() -> Tensor:
        return pool[-1] if choose.random() < 0.5 else choose.choice(pool)

    kind = choose.random()
    if kind < 0.5:
        return choose.choice(UNARY if kind < 0.3 else REARRANGE)(operand())
    if kind < 0.93:
        return choose.choice(BINARY)(operand(), operand())
    u = operand()
    if not (u.requires_grad and x.requires_grad):
        return None
    return torch.autograd.grad(u.sum(), x, create_graph=True, allow_unused=True)[0]


@pytest.mark.parametrize("block", range(8))
def test_random_graphs(block: int, monkeypatch: pytest.MonkeyPatch):
    proofs: list[bool] = []  # whether each residual that the engine met was proven aligned

    def spied(graph: Graph, rows: int) -> object:
        uses = aligned_uses(graph, rows)
        proofs.append(uses is not None)
        return uses

    monkeypatch.setattr(sites, "aligned_uses", spied)
    for seed in range(block * 100, (block + 1) * 100):
        if (made := random_graph(seed)) is not None:
            assert_jacobian_is_right(*made, what=f"J of random_graph({seed})")
    assert sum(proofs) >= 1, "no graph was proven, so that nothing was tested"
    assert not all(proofs)


UNPROVEN = {
    "rows_in_another_order": ["mlp-permuted", "mlp-reversed", "mlp-rows_repeated"],
    "some_of_the_points": ["mlp-one_call", "points_in_columns-one_call", "mlp-masked"],
    "mask_on_columns": ["points_in_columns-masked"],
    "points_on_another_axis": ["mlp-row", "mlp-row_of_points", "points_in_columns-u_xx-sum"],
    "points_on_two_axes": ["mlp-three_axes"],
    "points_interact": [
        *("batch_norm-grad_u-sum", "mlp-mean_removed", "mlp-broadcast_unknown", "mlp-running_sum")
    ],
    "components_on_axis_0": [f"mlp-components_{h}" for h in ("first", "in_turn", "interleaved")],
    "norm_of_torch": ["layer_norm-u_xx-sum", "layer_norm-grad_u-sum"],
    "batched_product": [
        f"{name}-u_xx-sum"
        for name in (
            *("by_hand", "einsum_bi_oi", "einsum_bi_io", "einsum_dots", "tensordot"),
            *("weight_to_each_point", "ensemble", "deeponet_points_per_function", "bilinear"),
        )
    ],
    "convolution": [f"{name}-u_xx-sum" for name in ("conv1d", "conv2d", "conv_transposed")],
    "gates_cut_apart": ["gru_cell-u_xx-sum"],
    "norm_by_groups": ["group_norm-u_xx-sum"],
    "rows_chosen": ["latent_codes-u_xx-sum"],
    "vmap": [
        f"{network}-u_xx-{style}"
        for network in ("mlp", "siren", "weight_factorised", "layer_norm_by_hand")
        for style in ("vmap_jacrev_jacrev", "vmap_hessian", "vmap_jacfwd_jacfwd")
    ],
    "one_row": ["mlp-single_row", "mlp-scalar"],
}  # fmt: skip
NOT_PROVEN = {case for group in UNPROVEN.values() for case in group}
PROVEN = [case for case in CASES if case.id not in NOT_PROVEN]


def test_what_is_not_proven_is_listed_by_its_name():
    assert {case.id for case in CASES} >= NOT_PROVEN
    assert len(PROVEN) >= 60


@pytest.mark.parametrize("case", PROVEN, ids=str)
def test_all_else_is_proven(case: Case):
    residuals, params = case.build()
    residual = next(iter(named_residuals(residuals).values()))
    assert aligned_uses(Graph(residual, named_leaves(params)), len(residual)) is not None


@pytest.mark.parametrize("certify", [False, True], ids=["bare", "certified"])
@pytest.mark.parametrize(
    ("operator", "components"),
    [("u", 1), ("grad_u", 2), ("u_xx", 1), ("burgers", 1), ("biharmonic", 1), ("navier_stokes", 3)],
)
def test_one_backward_pass_a_component(operator: str, components: int, certify: bool, monkeypatch):
    op = OPERATORS[operator]
    net = NETWORKS["mlp"](op.in_dim, op.out_dim)
    residual = op.residual(net, points(6, op.in_dim))
    passes = backward_passes(monkeypatch)
    empirical_ntk(residual, net, certify=certify)
    of_the_join = 3 * components if operator == "navier_stokes" else 0  # and of nothing before it
    assert len(passes) == components + certify + of_the_join


@pytest.mark.parametrize(("rows", "shape"), [(1, (1, 5)), (4, (5, 1)), (5, (4, 5))])
def test_another_number_of_rows_is_no_proof(rows: int, shape: tuple[int, ...]):
    w = torch.ones(1, requires_grad=True)
    assert aligned_uses(Graph(torch.ones(shape) * w, {"w": w}), rows) is None
