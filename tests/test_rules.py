"""Every rule alone, slot by slot, against backward passes of the operation that it describes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, addmm, bmm, nn
from torch.nn.functional import (
    bilinear,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    embedding,
    group_norm,
    layer_norm,
    linear,
)

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.placed import Placed
from pinn_ntk.graph.jacobian.rules import find_rules
from pinn_ntk.graph.jacobian.site_rule import SiteRule
from pinn_ntk.kernel.factors import Dense, Outer
from tests.asserts import assert_near

N, K, M = 5, 3, 4  # points, inner width, outer width

pytestmark = pytest.mark.usefixtures("float64")

Operation = Callable[[Tensor], Tensor]
"""Shared operand -> output of one operation."""


def rand(*shape: int) -> Tensor:
    return torch.rand(shape) + 0.5


def points(*shape: int) -> Tensor:
    """What the points bring, or a weight: with a gradient."""
    return rand(*shape).requires_grad_()


def twice(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """The backward pass of a layer normalisation, as an operation of its own."""
    seed = points(*x.shape)
    out = layer_norm(x, gain.shape, gain, offset)
    return torch.autograd.grad(out, x, seed, create_graph=True)[0]


def prelu_twice(x: Tensor, slope: Tensor) -> Tensor:
    """The backward pass of a PReLU, as an operation of its own."""
    x = x.detach().requires_grad_()
    seed = points(*x.shape)
    out = torch._prelu_kernel(x, slope)
    return torch.autograd.grad(out, x, seed, create_graph=True)[0]


def swept(x: Tensor, filters: Tensor, **layout: int) -> Tensor:
    """The backward pass of a convolution, as an operation of its own."""
    out = (conv1d if x.ndim == 3 else conv2d)(x, filters, **layout)
    return torch.autograd.grad(out, x, points(*out.shape), create_graph=True)[0]


Shape = tuple[int, ...]
CASES: dict[str, tuple[Shape, Operation]] = {
    # id -> (shape of the shared operand, operation)
    "mm_right": ((K, M), lambda w: points(N, K) @ w),
    "mm_right_square": ((N, N), lambda w: points(N, N) @ w),
    "mm_left": ((M, K), lambda w: w @ points(K, N)),
    "mm_left_square": ((N, N), lambda w: w @ points(N, N)),
    "mm_one_column": ((K, 1), lambda w: points(N, K) @ w),
    "mm_one_point": ((K, M), lambda w: points(1, K) @ w),
    "mm_constant_points": ((K, M), lambda w: rand(N, K) @ w),
    "mm_points_not_contiguous": ((K, M), lambda w: points(K, N).T @ w),
    "addmm_weight": ((K, M), lambda w: addmm(points(M), points(N, K), w)),
    "addmm_weight_alpha": ((K, M), lambda w: addmm(points(M), points(N, K), w, alpha=-3, beta=2)),
    "addmm_left": ((M, K), lambda w: addmm(points(N), w, points(K, N))),
    "addmm_left_alpha": ((M, K), lambda w: addmm(points(N), w, points(K, N), alpha=0.5, beta=2)),
    "addmm_bias": ((M,), lambda w: addmm(w, points(N, K), points(K, M))),
    "addmm_bias_beta": ((M,), lambda w: addmm(w, points(N, K), points(K, M), beta=-2)),
    "addmm_bias_row": ((1, M), lambda w: addmm(w, points(N, K), points(K, M), beta=2)),
    "addmm_bias_column": ((M, 1), lambda w: addmm(w, points(M, K), points(K, N))),
    "addmm_bias_number": ((), lambda w: addmm(w, points(N, K), points(K, M), alpha=3)),
    "linear_bias": ((M,), lambda w: linear(points(N, K), points(M, K), w)),
    "bmm_right": ((1, K, M), lambda w: bmm(points(1, N, K), w)),
    "bmm_left": ((1, M, K), lambda w: bmm(w, points(1, K, N))),
    "mv": ((K,), lambda w: points(N, K) @ w),
    "add_left": ((M,), lambda w: w + points(N, M)),
    "add_alpha": ((M,), lambda w: torch.add(points(N, M), w, alpha=-3)),
    "add_alpha_left": ((M,), lambda w: torch.add(w, points(N, M), alpha=-3)),
    "sub_left": ((M,), lambda w: w - points(N, M)),
    "sub_alpha": ((M,), lambda w: torch.sub(points(N, M), w, alpha=0.5)),
    "expand": ((M,), lambda w: w.expand(N, M)),
    "expand_number": ((), lambda w: w.expand(N, M)),
    "layer_norm_gain": ((K,), lambda w: layer_norm(points(N, K), (K,), w, points(K))),
    "layer_norm_offset": ((K,), lambda w: layer_norm(points(N, K), (K,), points(K), w)),
    "layer_norm_two_axes": ((K, M), lambda w: layer_norm(points(N, K, M), (K, M), w, points(K, M))),
    "layer_norm_many_batches": ((K,), lambda w: layer_norm(points(N, M, K), (K,), w, points(K))),
    "layer_norm_backward_gain": ((K,), lambda w: twice(points(N, K), w, points(K))),
    "layer_norm_backward_offset": ((K,), lambda w: twice(points(N, K), points(K), w)),
    "bmm_right_of_several": ((2, K, M), lambda w: bmm(points(2, N, K), w)),
    "bmm_left_of_several": ((2, M, K), lambda w: bmm(w, points(2, K, N))),
    "bmm_one_row_of_several": ((3, 1, K), lambda w: bmm(w, points(3, K, N))),
    "baddbmm_right": (
        (2, K, M),
        lambda w: torch.baddbmm(points(2, 1, M), points(2, N, K), w, alpha=-3, beta=2),
    ),
    "baddbmm_left": ((2, M, K), lambda w: torch.baddbmm(points(N), w, points(2, K, N), alpha=2)),
    "baddbmm_bias": (
        (2, 1, M),
        lambda w: torch.baddbmm(w, points(2, N, K), points(2, K, M), alpha=-3, beta=2),
    ),
    "number_of_each": ((3, 1, 1), lambda w: points(3, N, 1) + w),
    "prelu_number": ((1, 1), lambda w: torch._prelu_kernel(points(N, M) - 1, w)),
    "prelu": ((1, M), lambda w: torch._prelu_kernel(points(N, M) - 1, w)),
    "prelu_of_signals": ((1, M, 1), lambda w: torch._prelu_kernel(points(N, M, 2) - 1, w)),
    "prelu_backward": ((1, M), lambda w: prelu_twice(points(N, M) - 1, w)),
    "embedding": ((N, M), lambda w: embedding(torch.tensor([[1, 4], [1, 0]]), w)),
    "embedding_padded": (
        (N, M),
        lambda w: embedding(torch.tensor([1, 0, 4]), w, padding_idx=1),
    ),
    "rows_chosen": ((N, M), lambda w: w[torch.tensor([3, -1, 3])]),
    "rows_chosen_grid": ((N, M, 2), lambda w: w[torch.tensor([[3, -1], [0, 3]])]),
    "rows_selected": ((N, M), lambda w: w.index_select(0, torch.tensor([3, 0, 3]))),
    "group_norm_gain": ((M,), lambda w: group_norm(points(N, M), 2, w, points(M))),
    "group_norm_offset": ((M,), lambda w: group_norm(points(N, M, 3), 2, points(M), w)),
    "group_norm_gain_of_signals": ((M,), lambda w: group_norm(points(N, M, 3), 2, w, points(M))),
    "conv1d": ((2, 3, 3), lambda w: conv1d(points(N, 3, 6), w)),
    "conv1d_long": ((2, 1, 2), lambda w: conv1d(points(N, 1, 9), w)),
    "conv1d_offset": ((2,), lambda w: conv1d(points(N, 1, 6), points(2, 1, 3), w)),
    "conv1d_laid_out": (
        (4, 1, 3),
        lambda w: conv1d(points(N, 2, 9), w, stride=2, padding=1, dilation=2, groups=2),
    ),
    "conv2d": ((2, 3, 2, 3), lambda w: conv2d(points(N, 3, 4, 5), w, stride=(2, 1), padding=1)),
    "conv2d_offset": ((2,), lambda w: conv2d(points(N, 1, 4, 5), points(2, 1, 2, 2), w)),
    "conv1d_backward": ((2, 3, 3), lambda w: swept(points(N, 3, 6), w)),
    "conv2d_backward": (
        (4, 1, 2, 3),
        lambda w: swept(points(N, 2, 4, 5), w, stride=2, padding=1, groups=2),
    ),
    "bilinear": ((2, K, M), lambda w: bilinear(points(N, K), points(N, M), w)),
    "layer_norm_backward_two_axes": ((K, M), lambda w: twice(points(N, K, M), w, points(K, M))),
}

BROADCAST: dict[str, tuple[Shape, Shape]] = {
    "number": ((), (N,)),
    "number_to_matrix": ((), (N, M)),
    "one_entry": ((1,), (N,)),
    "one_entry_to_matrix": ((1,), (N, M)),
    "one_by_one": ((1, 1), (N, M)),
    "features": ((M,), (N, M)),
    "row": ((1, M), (N, M)),
    "column": ((M, 1), (M, N)),
    "row_square": ((1, N), (N, N)),
    "column_square": ((N, 1), (N, N)),
    "features_square": ((N,), (N, N)),
    "grid": ((M,), (2, N, M)),
    "middle": ((1, K, 1), (N, K, 2)),
    "outside": ((2, 1, M), (2, N, M)),
    "two_axes": ((K, M), (N, K, M)),
}
ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda w, x: x + w,
    "mul": lambda w, x: w * x,
    "mul_right": lambda w, x: x * w,
    "sub": lambda w, x: x - w,
    "div": lambda w, x: w / x,
    "div_by": lambda w, x: x / w,
}
CASES |= {
    f"{name}_{kind}": (shape, lambda w, operation=operation, out=out: operation(w, points(*out)))
    for name, operation in ELEMENTWISE.items()
    for kind, (shape, out) in BROADCAST.items()
}


def rules_of(out: Tensor, w: Tensor) -> list[SiteRule]:
    """Rules for the one place where the node behind ``out`` takes ``w``."""
    node = out.grad_fn
    while nodes.kind(node) == "ViewBackward0":
        node = next(nodes.inputs(node))[1]
    (position,) = [p for p, child, _ in nodes.inputs(node) if nodes.leaf(child) is w]
    return find_rules(node, position, w.shape)


@pytest.mark.parametrize(("shape", "operation"), CASES.values(), ids=CASES)
def test_each_slot_gives_its_share_of_the_gradient(shape: Shape, operation: Operation):
    out = operation(w := points(*shape))
    cotangent = torch.randn(out.shape)
    numbers = torch.arange(out.numel(), dtype=torch.float64).view(out.shape)
    rules = rules_of(out, w)
    assert rules
    for rule in rules:
        slots = rule.arrange(numbers).long()  # (M, f)
        assert slots.flatten().sort().values.tolist() == list(range(out.numel()))
        factor = rule.contribute(rule.arrange(cotangent))
        expected = torch.zeros(len(slots), w.numel())
        for slot, entries in enumerate(slots):
            part = torch.zeros(out.numel())
            part[entries] = cotangent.flatten()[entries]
            options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
            (gradient,) = torch.autograd.grad(out, w, part.view(out.shape), **options)
            expected[slot] = gradient.flatten()
        assert_near(factor.rows(), expected, 1e-13, "gradients by slot")
        assert not factor.rows().requires_grad


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith(("mm", "addmm_w", "bmm"))])
def test_weights_stay_in_outer_product_form(name: str):
    shape, operation = CASES[name]
    out = operation(w := points(*shape))
    (rule,) = rules_of(out, w)
    factor = rule.contribute(rule.arrange(torch.ones(out.shape)))
    assert isinstance(factor, Outer | Placed)
    assert factor.shape == (math.prod(shape[:-1]), shape[-1])


@pytest.mark.parametrize(
    ("shape", "out", "slots"),
    [
        *[((), (N, M), [N, M, N * M]), ((1,), (N,), [N]), ((M,), (N, M), [N])],
        ((M,), (2, N, M), [2, N, 2 * N]),
        ((1, K, 1), (N, K, 2), [N, 2, 2 * N]),
    ],
)
def test_slots_lie_along_each_broadcast_axis_then_all(shape: Shape, out: Shape, slots: list[int]):
    product = points(*out) * (w := points(*shape))
    found = [rule.arrange(product.detach()).shape for rule in rules_of(product, w)]
    assert [count for count, _ in found] == slots
    assert [count * size for count, size in found] == [product.numel()] * len(slots)


NO_RULE: dict[str, tuple[Shape, Operation]] = {
    "same_shape": ((N, M), lambda w: points(N, M) * w),
    "same_shape_sum": ((N, M), lambda w: points(N, M) + w),
    "matrix_of_mv": ((N, K), lambda w: w @ points(K)),
    "layer_norm_input": ((N, K), lambda w: layer_norm(w, (K,), points(K), points(K))),
    "reversed_difference": ((M,), lambda w: 1 - w),
    "activation": ((M,), torch.tanh),
    "convolution_transposed": ((1, 2, 3), lambda w: conv_transpose1d(points(N, 1, 6), w)),
    "convolution_in_space": ((2, 1, 2, 2, 2), lambda w: conv3d(points(N, 1, 3, 3, 3), w)),
    "columns_chosen": ((N, M), lambda w: w.index_select(1, torch.tensor([1, 1, 0]))),
    "entries_chosen": ((N, M), lambda w: w[[0, 1], [1, 2]]),
    "embedding_by_frequency": (
        (N, M),
        lambda w: embedding(torch.tensor([1, 1]), w, scale_grad_by_freq=True),
    ),
    "outer_power": ((M,), lambda w: points(N, M) ** w),
    "complex_points": ((K, M), lambda w: torch.mm(points(N, K) * 1j, w * (1 + 0j))),
}


@pytest.mark.parametrize(("shape", "operation"), NO_RULE.values(), ids=NO_RULE)
def test_the_rest_has_no_rule(shape: Shape, operation: Operation):
    out = operation(w := points(*shape))
    for position, child, output in nodes.inputs(out.grad_fn):
        if nodes.leaf(child) is w or out.is_complex():
            assert find_rules(out.grad_fn, position, nodes.output_shape(child, output)) == []


def test_gain_of_torchs_module_through_two_derivatives():
    """The node of the first derivative and that of the value both take the gain."""
    norm, x = nn.LayerNorm(K), points(N, K)
    slope = torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)[0]
    assert nodes.kind(slope.grad_fn) == "NativeLayerNormBackwardBackward0"
    (rule,) = rules_of(slope, norm.weight)
    assert isinstance(rule.contribute(rule.arrange(torch.ones(N, K))), Dense)
