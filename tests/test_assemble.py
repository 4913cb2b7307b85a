"""Contributions of sites -> factors of parameters: slots to rows, shared tensors to leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from pinn_ntk.graph.jacobian import pull_back, sums
from pinn_ntk.graph.jacobian.affordable import Affordable
from pinn_ntk.graph.jacobian.assemble import Contribution, assemble
from pinn_ntk.graph.jacobian.placed import Placed
from pinn_ntk.graph.walk import Edge, Graph
from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.scaled import Site
from tests.asserts import assert_near
from tests.networks import own_function

R, M, N = 6, 3, 4

pytestmark = pytest.mark.usefixtures("float64")


def outer(slots: int) -> Outer:
    return Outer((torch.randn(slots, M),), (torch.randn(slots, N),))


def dense(slots: int) -> Dense:
    return Dense(torch.randn(slots, M * N))


def placed(slots: int) -> Placed:
    """One row of the weight a slot."""
    return Placed(torch.arange(slots) % M, M, torch.randn(slots, 1), torch.randn(slots, N))


KINDS: dict[str, Callable[[int], Any]] = {"outer": outer, "dense": dense, "placed": placed}
Owners = Tensor | None


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(M, N, requires_grad=True)


@pytest.fixture
def graph(weight: Tensor) -> Graph:
    """Some graph in which the weight is a leaf."""
    return Graph(torch.randn(R, M) @ weight, {"w": weight})


def at_leaf(graph: Graph, factor: Factor, owners: Owners = None):
    return Contribution(Edge(next(iter(graph.names))), factor, owners)


def by_hand(contribution: Contribution) -> Tensor:
    """Slots added up one by one, (R, M * N)."""
    rows, slots = torch.zeros(R, M * N), contribution.factor.rows()
    owners = contribution.owners
    if owners is None:
        owners = torch.arange(len(slots)) // (len(slots) // R)
    for slot, owner in zip(slots, owners.tolist(), strict=True):
        if owner >= 0:
            rows[owner] += slot
    return rows


# slots and their owners
PLACES: dict[str, tuple[int, Owners]] = {
    "in_order": (R, None),
    "every_second_row": (R // 2, torch.tensor([0, 2, 4])),
    "permuted": (R, torch.tensor([3, 0, 5, 1, 4, 2])),
    "several_slots_a_row": (9, torch.tensor([0, 0, 1, 5, 5, 5, 2, 3, 0])),
    "none_for_some": (7, torch.tensor([-1, 4, -1, 0, 0, -1, 2])),
    "none_at_all": (3, torch.tensor([-1, -1, -1])),
    "some_rows_permuted": (3, torch.tensor([5, 1, 3])),
    "many_slots_a_row": (70, torch.tensor([0, 1, 3, 5, 5] * 14)),
    "some_rows_twice": (5, torch.tensor([5, 5, -1, 1, 5])),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("slots", "owners"), PLACES.values(), ids=PLACES)
def test_slots_go_to_their_rows(graph: Graph, make, slots: int, owners: Owners):
    contribution = at_leaf(graph, make(slots), owners)
    factor = assemble(graph, [contribution], R)["w"]
    most = 1 if owners is None else int(owners[owners >= 0].bincount(minlength=1).max())
    assert isinstance(factor, Outer) == (make is outer and most <= sums.FEW_SITES)
    assert_near(factor.rows(), by_hand(contribution), 1e-15, "rows")


def test_slots_in_order_may_be_several_a_row(graph: Graph):
    contribution = at_leaf(graph, dense(2 * R))
    factor = assemble(graph, [contribution], R)["w"]
    assert_near(factor.rows(), by_hand(contribution), 1e-15, "rows")


@pytest.mark.parametrize(
    "kinds", [["outer", "outer"], ["outer", "dense"], ["dense", "dense"], ["outer"] * 4]
)
def test_sites_add_up(graph: Graph, kinds: list[str]):
    places = list(PLACES.values())
    made = [
        at_leaf(graph, KINDS[kind](slots), owners)
        for kind, (slots, owners) in zip(kinds, places, strict=False)
    ]
    factor = assemble(graph, made, R)["w"]
    few = len(kinds) < 4  # a matrix of 3 rows is a sum of 3 outer products at most
    assert isinstance(factor, Outer) == (few and "dense" not in kinds)
    assert_near(factor.rows(), sum(by_hand(c) for c in made), 1e-14, "rows")


@pytest.mark.parametrize("shared", ["left", "right", "both", "neither", "first_row"])
def test_sites_that_share_a_factor_are_joined(graph: Graph, shared: str):
    first, second = outer(R), outer(R)
    if shared in {"left", "both"}:
        second = Outer((first.left[0].clone(),), second.right)
    if shared in {"right", "both"}:
        second = Outer(second.left, (first.right[0].clone(),))
    if shared == "first_row":
        second.left[0][0], second.right[0][0] = first.left[0][0], first.right[0][0]
    third = outer(R)
    made = [at_leaf(graph, f) for f in (first, third, second)]
    factor = assemble(graph, made, R)["w"]
    assert len(factor.left) == (3 if shared in {"neither", "first_row"} else 2)
    assert_near(factor.rows(), sum(by_hand(c) for c in made), 1e-14, "rows")


def test_sites_of_several_dtypes_take_the_widest(graph: Graph):
    made = [at_leaf(graph, outer(R)) for _ in range(2)]
    low = Outer(*((side[0].bfloat16(),) for side in (made[0].factor.left, made[0].factor.right)))
    factor = assemble(graph, [made[0]._replace(factor=low), made[1]], R)["w"]
    assert {x.dtype for x in factor.left + factor.right} == {torch.float64}
    assert_near(factor.rows(), by_hand(made[0]) + by_hand(made[1]), 2e-2, "rows")


KEPT: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    # view of a weight -> whether it is transposed
    "t": (lambda w: w.t(), True),
    "T": (lambda w: w.T, True),
    "mT": (lambda w: w.mT, True),
    "transpose": (lambda w: w.transpose(0, 1), True),
    "transpose_from_the_back": (lambda w: w.transpose(-1, -2), True),
    "transpose_mixed": (lambda w: w.transpose(-1, 0), True),
    "transpose_of_one_axis": (lambda w: w.transpose(1, -1), False),
    "permute": (lambda w: w.permute(1, 0), True),
    "permute_from_the_back": (lambda w: w.permute(-1, -2), True),
    "permute_to_itself": (lambda w: w.permute(0, 1), False),
    "twice": (lambda w: w.t().t(), False),
    "three_times": (lambda w: w.t().transpose(0, 1).permute(1, 0), True),
    "copied": (lambda w: w.clone(), False),
    "copied_and_transposed": (lambda w: w.clone().t().contiguous(), True),
    "alias": (lambda w: w[:, :].t(), True),
    "other_dtype": (lambda w: w.float().t(), True),
}

COMPUTED: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: view for name, (view, _) in KEPT.items()},
    "scaled": lambda w: 2 * w,
    "reshaped": lambda w: w.reshape(2, 6),
    "exp": lambda w: w.exp(),
    "normalised": lambda w: w / w.norm(dim=1, keepdim=True),
    "of_itself": lambda w: w @ w.T,
    "first_row": lambda w: w[:1] * w.sum(),
    "transposed_and_scaled": lambda w: w.t() * w.sum(),
}


def shared_by_points(made: Tensor, weight: Tensor) -> tuple[Graph, Edge]:
    """A graph that uses ``made``, and the edge of ``made`` in it."""
    residual = torch.randn(R, len(made), dtype=made.dtype) @ made
    return Graph(residual, {"w": weight}), Edge(made.grad_fn)


def cotangents_times_jacobian(rows: Tensor, made: Tensor, weight: Tensor) -> Tensor:
    rows = rows.view(-1, *made.shape).to(made.dtype)
    pulled = [torch.autograd.grad(made, weight, row, retain_graph=True)[0] for row in rows]
    return torch.stack(pulled).flatten(1)


@pytest.mark.parametrize(("view", "transposed"), KEPT.values(), ids=KEPT)
def test_views_of_a_weight_keep_its_factors(
    weight: Tensor, view: Callable[[Tensor], Tensor], transposed: bool
):
    made = view(weight)
    graph, edge = shared_by_points(made, weight)
    factor = Outer((torch.randn(R, made.shape[0]),), (torch.randn(R, made.shape[1]),))
    found = assemble(graph, [Contribution(edge, factor, None)], R)["w"]
    assert isinstance(found, Outer)
    assert (found.left is factor.left) != transposed
    expected = cotangents_times_jacobian(factor.rows(), made, weight)
    assert_near(found.rows(), expected, 1e-6 if made.dtype == torch.float32 else 1e-14, "rows")


@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
@pytest.mark.parametrize("chunk", [64, 2])
def test_rows_of_a_shared_tensor_are_pulled_back(weight: Tensor, compute, chunk: int, monkeypatch):
    monkeypatch.setattr(pull_back, "MAX_CHUNK", chunk)
    made = compute(weight)
    graph, edge = shared_by_points(made, weight)
    factor = Dense(torch.randn(R, made.numel(), dtype=made.dtype))
    found = assemble(graph, [Contribution(edge, factor, None)], R)["w"]
    expected = cotangents_times_jacobian(factor.gradients, made, weight)
    tol = 1e-6 if made.dtype == torch.float32 else 1e-13
    assert_near(found.rows().double(), expected, tol, "rows")


@pytest.mark.parametrize("size", [2, R + 2], ids=["fewer_than_rows", "more_than_rows"])
def test_several_leaves_behind_one_tensor(size: int):
    scale, direction, unused = (torch.rand(n, requires_grad=True) for n in (size, size, 2))
    made = scale.exp() * direction
    graph = Graph(torch.randn(R, size) * made, {"s": scale, "d": direction, "unused": unused})
    factor = Dense(torch.randn(R, size))
    found = assemble(graph, [Contribution(Edge(made.grad_fn), factor, None)], R)
    assert set(found) == {"s", "d"}
    assert_near(found["d"].rows(), factor.gradients * scale.detach().exp(), 1e-14, "direction")
    assert_near(found["s"].rows(), factor.gradients * made.detach(), 1e-14, "scale")


def test_uses_of_a_leaf_and_of_a_tensor_computed_from_it_add_up(weight: Tensor):
    made, one, other = 2 * weight, outer(R), outer(R)
    graph = Graph(torch.randn(R, M) @ made + torch.randn(R, M) @ weight, {"w": weight})
    at_made = Contribution(Edge(made.grad_fn), one, None)
    found = assemble(graph, [at_made, at_leaf(graph, other)], R)["w"]
    assert_near(found.rows(), 2 * one.rows() + other.rows(), 1e-14, "rows")


def test_operations_that_cannot_be_batched_are_pulled_back_one_by_one(weight: Tensor):
    def backward(_: object, gradient: Tensor) -> Tensor:
        return gradient * float(gradient.abs().max() >= 0) * 2

    doubled = own_function("Unbatched", lambda _, x: 2 * x, backward)(weight)
    graph, edge = shared_by_points(doubled, weight)
    factor = dense(R)
    found = assemble(graph, [Contribution(edge, factor, None)], R)["w"]
    assert_near(found.rows(), 2 * factor.gradients, 1e-15, "rows")


def pulled(made: Tensor, leaves: dict[str, Tensor], factor: Factor) -> dict[str, Factor]:
    """Factors of the leaves, after they were found to be those of backward passes."""
    graph = Graph(torch.randn(R, made.numel()) @ made.reshape(-1), leaves)
    edge = next(e for e in graph.uses if e.shape == made.shape and e.node is made.grad_fn)
    found = pull_back.pulled_back(graph, {edge: factor}, Affordable())
    rows = factor.rows().view(-1, *made.shape)
    for name, leaf in leaves.items():
        expected = [torch.autograd.grad(made, leaf, row, retain_graph=True)[0] for row in rows]
        assert_near(found[name].rows(), torch.stack(expected).flatten(1), 1e-13, name)
    return found


WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rows_scaled": lambda w, s: s.exp()[:, None] * w,
    "diagonal": lambda w, s: torch.diag(s) @ w,
    "normalised": lambda w, s: s[:, None] * w / w.norm(dim=1, keepdim=True),
    "columns_normalised": lambda w, s: w / w.norm(dim=0) * s.sum(),
    "norm_of_all": lambda w, s: s[0] * w / w.norm(),
    "norm_of_no_kept_axis": lambda w, s: w / (w.square().sum(1).sqrt() * s)[:, None],
    "largest_of_each_row": lambda w, s: w / w.abs().amax(1, keepdim=True) * s[:, None],
    "weight_norm": lambda w, s: torch._weight_norm(w, s[:, None], 0),
    "weight_norm_columns": lambda w, s: torch._weight_norm(w.T, s[None], 1).T,
    "entry_by_entry": lambda w, s: w.exp() * torch.arange(12.0).view(M, N) + s[:, None],
    "masked": lambda w, s: w.tril() * s.sum(),
    "low_rank": lambda w, s: torch.outer(s, w[0]) + 2 * w,
    "product": lambda w, s: torch.addmm(w, torch.ones(M, M), s[:, None] * w, alpha=3, beta=2),
    "products_in_a_row": lambda w, s: torch.ones(M, M) @ (s[:, None] * w) @ torch.ones(N, N).tril(),
    "flipped_and_rolled": lambda w, s: (s[:, None] * w).flip(0).roll(1, 1),
    "rows_joined": lambda w, s: torch.cat([w[2:], w[:1], s[:, None].T @ w]),
    "twice_in_one_operation": lambda w, s: w * w - s[:, None] / w,
    "given_in_parts": lambda w, s: torch.cat([w[:, k : k + 1] * s[:, None] for k in range(N)], 1),
}
"""Id -> a weight (M, N) made of a matrix of that shape and M numbers."""


@pytest.mark.parametrize("compute", WEIGHTS.values(), ids=WEIGHTS)
def test_computed_weights_keep_factors(compute: Callable[[Tensor, Tensor], Tensor]):
    w, s = torch.rand(M, N, requires_grad=True), (torch.rand(M) + 0.5).requires_grad_()
    factor = Outer((torch.randn(R, M),), (torch.randn(R, N),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pull_back, "_written_out", None)  # would fail
        found = pulled(compute(w, s), {"w": w, "s": s}, factor)
    assert found["s"].numel == M


def test_no_larger_tensor_than_the_weight_is_made(monkeypatch: pytest.MonkeyPatch):
    """Not an identity of the size of the weight, for few rows."""
    chunks: list[int] = []

    def counted(_made: object, leaves: list[Tensor], cotangents: Tensor):
        chunks.append(len(cotangents))
        return [cotangents for _ in leaves]

    monkeypatch.setattr(pull_back, "batched_vjp", counted)
    w = torch.randn(40, 40, requires_grad=True)
    made = w.softmax(0)
    graph = Graph(made.sum(), {"w": w})
    eye = Mock(side_effect=AssertionError)
    monkeypatch.setattr(torch, "eye", eye)
    factor = Outer((torch.randn(R, 40),), (torch.randn(R, 40),))
    found = pull_back.pulled_back(graph, {Edge(made.grad_fn): factor}, Affordable())
    assert chunks == [R]
    assert found["w"].rows().shape == (R, 1600)


def test_a_shared_result_of_which_each_row_takes_one_row_stays_in_factors():
    """The branch of a DeepONet with 3 functions, met by 6 rows."""
    layer, last = torch.randn(N, 5, requires_grad=True), torch.randn(5, N, requires_grad=True)
    made = torch.tanh(torch.randn(3, N) @ layer) @ last  # (3, N)
    choice = torch.eye(3).repeat(2, 1)
    found = pulled(made, {"layer": layer, "last": last}, Outer((choice,), (torch.randn(6, N),)))
    assert all(isinstance(factor, Outer) for factor in found.values())


def test_many_sites_are_joined_without_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch):
    compared: list[int] = []
    equal = torch.equal
    monkeypatch.setattr(torch, "equal", lambda a, b: compared.append(1) or equal(a, b))
    sites = [Site(torch.randn(R, 90), torch.randn(R, 80)) for _ in range(30)]
    twice = [Site(site.left.clone() + 1, site.right.clone()) for site in sites]
    factor = sums.from_sites([*sites, *twice], (90, 80))
    assert len(compared) < 3 * 30
    assert len(factor.left) == 30


def test_more_sites_than_a_weight_has_rows_are_written_out():
    sites = [Site(torch.randn(R, 3), torch.randn(R, 9)) for _ in range(4)]
    expected = sum(Outer((a,), (b,)).rows() for a, b, _ in sites)
    assert isinstance(sums.from_sites(sites[:3], (3, 9)), Outer)
    factor = sums.from_sites(sites, (3, 9))
    assert isinstance(factor, Dense)
    assert_near(factor.rows(), expected, 1e-14, "rows")


def test_blocks_of_a_large_weight_stay_apart():
    codes = torch.randn(50, 60, requires_grad=True)
    graph = Graph(torch.randn(R, 50) @ codes, {"w": codes})
    numbers = torch.tensor([7, 7, 0, 49, 3, 12])
    found = at_leaf(graph, Placed(numbers, 50, torch.randn(R, 1), torch.randn(R, 60)))  # type: ignore[arg-type]
    factor = assemble(graph, [found], R)["w"]
    assert isinstance(factor, Outer)
    assert_near(factor.rows(), found.factor.rows(), 1e-15, "rows")


def test_many_slots_of_a_row_are_not_compared(graph: Graph, monkeypatch: pytest.MonkeyPatch):
    """A quadrature rule has 100 of each row: a digest of each would take most of the time."""
    monkeypatch.setattr(sums, "_digest", Mock(side_effect=AssertionError))
    contribution = at_leaf(graph, outer(20 * R), torch.arange(R).repeat(20))
    factor = assemble(graph, [contribution, contribution], R)["w"]
    assert_near(factor.rows(), 2 * by_hand(contribution), 1e-14, "rows")
