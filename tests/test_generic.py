"""Row-by-row gradients: batched, in chunks, and one at a time where nothing else works."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import NTKWarning, ResidualError, empirical_ntk
from pinn_ntk.graph.jacobian import generic
from pinn_ntk.graph.jacobian.generic import row_gradients, stacked
from pinn_ntk.graph.jacobian.sizes import live_bytes
from pinn_ntk.graph.reference import reference_jacobian
from tests.asserts import assert_near, backward_passes, checked_ntk
from tests.networks import NETWORKS, own_function
from tests.operators import OPERATORS, points

pytestmark = pytest.mark.usefixtures("float64")


def assert_rows(residual: Tensor, net: nn.Module, budget: int, tol: float) -> None:
    found = row_gradients(residual, dict(net.named_parameters()), budget)
    assert_near(torch.cat(list(found.values()), dim=1), reference_jacobian(residual, net), tol, "J")


@pytest.mark.parametrize(
    ("rows", "budget", "chunks"),
    [
        (7, 2**20, [7]),
        (64, 2**20, [64]),
        (66, 2**20, [64, 2]),
        (7, 1, [1] * 7),
        (7, 3 * 81 * 8, [3, 3, 1]),
    ],
)
def test_rows_come_in_chunks_of_bounded_memory(
    rows: int, budget: int, chunks: list[int], monkeypatch
):
    net = NETWORKS["mlp"](2, 1)  # 81 numbers are trained
    residual = OPERATORS["burgers"].residual(net, points(rows, 2))
    assert sum(leaf.numel() for leaf in net.parameters()) == 81
    monkeypatch.setattr(generic, "live_bytes", lambda _: 1)
    passes = backward_passes(monkeypatch)
    assert_rows(residual, net, budget, 1e-13)
    assert passes == [size > 1 for size in chunks] + [False] * rows  # those of the reference


def test_what_a_batch_of_rows_holds_meanwhile_counts(monkeypatch):
    net = NETWORKS["mlp"](2, 1)
    residual = OPERATORS["burgers"].residual(net, points(12, 2))
    held = live_bytes(residual)
    assert 12 * 10 * 8 < held < 12 * 1000 * 8
    passes = backward_passes(monkeypatch)
    assert_rows(residual, net, 6 * held, 1e-13)
    assert passes == [True] * 2 + [False] * 12


def test_a_graph_that_takes_no_batch_is_asked_once(monkeypatch):
    w, x = torch.ones(1, requires_grad=True), torch.arange(1.0, 6.0)
    passes = backward_passes(monkeypatch)
    monkeypatch.setattr(generic, "MAX_CHUNK", 2)
    row_gradients(Picky.apply(x, w), {"w": w}, 2**20)
    assert passes == [True] + [False] * 5


@pytest.mark.parametrize("shape", [(6,), (6, 1), (2, 3), (1, 2, 3)])
def test_rows_are_the_entries_in_row_major_order(shape: tuple[int, ...]):
    net = NETWORKS["mlp"](1, 1)
    residual = net(points(6, 1)).reshape(shape).contiguous()
    for r in (residual, residual.mT if residual.ndim > 1 else residual):
        assert_rows(r, net, 2**20, 1e-14)


def test_unused_leaves_are_left_out():
    used, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    found = row_gradients(used**2, {"unused": unused, "used": used}, 2**20)
    assert set(found) == {"used"}
    assert torch.equal(found["used"], 2 * torch.eye(3))


class Picky(torch.autograd.Function):
    """x * w with a number w. Backward reads numbers out, and gives nothing where all is zero."""

    @staticmethod
    def forward(ctx: object, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)  # type: ignore[attr-defined]
        return x * w

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[None, Tensor | None]:  # type: ignore[override]
        x, _ = ctx.saved_tensors  # type: ignore[attr-defined]
        total = float((gradient * x).sum())
        return None, (torch.tensor([total]) if total else None)


@pytest.mark.parametrize("zeros", [[], [0], [2], [0, 1], [4], [0, 1, 2, 3, 4]], ids=str)
@pytest.mark.parametrize("budget", [2**20, 2 * 8], ids=["whole", "chunks"])
def test_gradients_that_autograd_leaves_out_are_zero(zeros: list[int], budget: int, monkeypatch):
    passes = backward_passes(monkeypatch)
    w, x = torch.ones(1, requires_grad=True), torch.arange(1.0, 6.0)
    x[zeros] = 0
    found = row_gradients(Picky.apply(x, w), {"w": w}, budget)
    assert passes.count(False) == 5
    assert list(found) == ([] if len(zeros) == 5 else ["w"])
    assert all(torch.equal(gradients, x[:, None]) for gradients in found.values())
    with pytest.warns(NTKWarning, match="no rule for a parameter at input 1 of PickyBackward"):
        kernel = empirical_ntk(Picky.apply(x, w), {"w": w})
    assert torch.equal(kernel["residual"], torch.outer(x, x))


def test_stacked():
    assert stacked([None, None]) is None
    assert stacked([None, torch.ones(2), None]).tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]


def test_a_parameter_without_entries():
    w, empty = torch.ones(1, requires_grad=True), torch.ones(0, requires_grad=True)
    residual = torch.arange(3.0) * w + empty.sum()
    kernel = empirical_ntk(residual, [empty, w])
    assert kernel.jacobian("residual").shape == (3, 1)
    assert torch.equal(kernel["residual"], torch.outer(torch.arange(3.0), torch.arange(3.0)))
    assert row_gradients(residual, {"empty": empty}, 2**20)["empty"].shape == (3, 0)


@pytest.mark.parametrize("network", ["mlp", "conv1d"])
@pytest.mark.parametrize("term", ["pde", "bc"])
@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
def test_a_freed_graph_is_named(network: str, term: str):
    net = NETWORKS[network](1, 1)
    residuals = {"pde": net(points(4, 1)), "bc": net(points(3, 1))}
    residuals[term].sum().backward()
    with pytest.raises(ResidualError, match=f"graph of residual '{term}' was already freed"):
        empirical_ntk(residuals, net)


def test_other_failures_are_told_from_a_freed_graph_and_passed_on():
    def backward(_: object, _gradient: Tensor) -> Tensor:
        raise RuntimeError("no derivative here")

    assert generic.is_freed(RuntimeError("Trying to backward through the graph a second time (or"))
    assert not generic.is_freed(RuntimeError("out of memory"))
    net = nn.Linear(1, 1)
    u = net(points(4, 1))
    with pytest.raises(RuntimeError, match="no derivative here"):
        empirical_ntk(own_function("Failing", lambda _, x: x.clone(), backward)(u), net)


def test_a_graph_kept_on_purpose_is_fine():
    net = NETWORKS["mlp"](1, 1)
    residual = net(points(4, 1))
    residual.sum().backward(retain_graph=True)
    before = [p.grad.clone() for p in net.parameters()]
    checked_ntk(residual, net, 1e-13, "K")
    assert all(torch.equal(p.grad, b) for p, b in zip(net.parameters(), before, strict=True))
