"""The graph between a residual and the parameters: order, uses, and what is computed from what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import Edge, Graph, Use
from tests.networks import NETWORKS
from tests.operators import laplacian, points


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, requires_grad=True)


def test_order_holds_what_reaches_a_trained_leaf_only():
    w, frozen, x = ones(3), ones(3), ones(3)
    residual = (x.sin() * w).exp() + frozen.cos()
    graph = Graph(residual, {"w": w})
    kinds = [nodes.kind(node) for node in graph.order]
    assert kinds == ["AddBackward0", "ExpBackward0", "MulBackward0", "AccumulateGrad"]
    assert graph.root is residual.grad_fn
    assert list(graph.names.values()) == ["w"]


def test_every_consumer_stands_before_its_inputs():
    net, x = NETWORKS["gated"](1, 1), points(3, 1)
    graph = Graph(laplacian(net(x), x), dict(net.named_parameters()))
    place = {node: number for number, node in enumerate(graph.order)}
    assert len(place) == len(graph.order) > 100
    assert graph.order[0] is graph.root
    for node in graph.order:
        for _, edge in graph.edges(node):
            assert place[edge.node] > place[node]


def test_uses_name_consumer_and_position():
    w = ones(3)
    square, data = w * w, torch.ones(3)
    residual = data - square
    graph = Graph(residual, {"w": w})
    (leaf,) = graph.names
    assert graph.uses[Edge(leaf)] == [Use(square.grad_fn, 0), Use(square.grad_fn, 1)]
    assert graph.uses[Edge(square.grad_fn)] == [Use(residual.grad_fn, 1)]
    assert graph.edges(residual.grad_fn) == [(1, Edge(square.grad_fn, 0))]
    assert graph.outputs[square.grad_fn] == {0}


def test_outputs_of_an_operation_with_several():
    w = ones(2, 6)
    _, second, third = w.split(2, dim=1)
    graph = Graph(second * third, {"w": w})
    assert graph.outputs[second.grad_fn] == {1, 2}
    assert Edge(second.grad_fn, 2).shape == (2, 2)
    assert Graph(third, {"w": w}).outputs[third.grad_fn] == {2}


def test_parametric_means_from_parameters_alone():
    scale, weight = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 2))
    frozen_out = nn.Parameter(torch.ones(2))  # trained by someone else
    x = ones(3, 2)
    made = scale.exp() * weight * frozen_out
    through_points = x @ made
    graph = Graph(through_points, {"scale": scale, "weight": weight})
    assert made.grad_fn in graph.parametric
    assert through_points.grad_fn not in graph.parametric
    constant_points = x.detach() @ made
    assert constant_points.grad_fn in Graph(constant_points, {"scale": scale}).parametric


def test_one_leaf_counts_once_and_one_that_the_residual_does_not_depend_on_never():
    w = ones(3)
    assert len(Graph(w * 2, {"a": w}).names) == 1
    graph = Graph(ones(3) * 2, {"w": w})
    assert graph.order == []
    assert graph.names == {}


def test_a_detached_copy_is_no_use():
    w = ones(3)
    graph = Graph(w.detach() * w + w.clone().detach(), {"w": w})
    (leaf,) = graph.names
    (use,) = graph.uses[Edge(leaf)]
    assert (nodes.kind(use.node), use.position) == ("MulBackward0", 1)


def test_a_leaf_has_no_graph():
    w = ones(3)
    with pytest.raises(ValueError, match="the residual is a leaf"):
        Graph(w, {"w": w})


def test_long_chains_need_no_recursion():
    out = w = ones(2)
    for _ in range(3000):
        out = out * 1.0
    assert len(Graph(out, {"w": w}).order) == 3001


@pytest.mark.parametrize(
    ("through", "coarsest"),
    [
        ([], torch.float64),
        ([torch.float32], torch.float32),
        ([torch.float32, torch.bfloat16, torch.float64], torch.bfloat16),
        ([torch.float16, torch.float32], torch.float16),
        ([torch.complex64], torch.float32),
        ([torch.complex128], torch.float64),
    ],
    ids=str,
)
def test_coarsest_dtype_on_the_way(through: list[torch.dtype], coarsest: torch.dtype):
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    out = w * 1.0
    for dtype in through:
        out = out.to(dtype) * 1.0
    assert Graph(out, {"w": w}).coarsest == coarsest
