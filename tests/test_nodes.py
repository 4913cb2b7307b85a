"""Every private attribute of autograd nodes that the package reads, on nodes of this very torch.

When one of these fails after a change of torch, the engine still gives the right kernel, by the
slow path; the failure says which rule is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import (
    conv1d,
    embedding,
    group_norm,
    huber_loss,
    layer_norm,
    mse_loss,
    smooth_l1_loss,
)

from pinn_ntk import NTKWarning
from pinn_ntk.graph import nodes
from tests.asserts import checked_ntk


def live(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64).requires_grad_()


def twice(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The backward pass of ``function``, as an operation of its own."""
    out = function(x)
    seed = torch.ones_like(out).requires_grad_()
    return torch.autograd.grad(out, x, seed, create_graph=True)[0]


MAKE: dict[str, Callable[[], Tensor]] = {
    "AddmmBackward0": lambda: torch.addmm(live(3), live(2, 4), live(4, 3), alpha=2, beta=3),
    "MmBackward0": lambda: live(2, 4) @ live(4, 3),
    "BmmBackward0": lambda: torch.bmm(live(1, 2, 4), live(1, 4, 3)),
    "MvBackward0": lambda: live(2, 4) @ live(4),
    "AddBackward0": lambda: torch.add(live(2), live(2), alpha=2),
    "SubBackward0": lambda: torch.sub(live(2), live(2), alpha=2),
    "MulBackward0": lambda: live(2) * live(2),
    "DivBackward0": lambda: live(2) / live(2),
    "NativeLayerNormBackward0": lambda: layer_norm(live(2, 3), (3,), live(3), live(3)),
    "NativeLayerNormBackwardBackward0": lambda: twice(
        lambda x: layer_norm(x, (3,), live(3), live(3)), live(2, 3)
    ),
    "BaddbmmBackward0": lambda: torch.baddbmm(live(3), live(2, 1, 4), live(2, 4, 3), alpha=2),
    "PreluKernelBackward0": lambda: torch._prelu_kernel(live(2, 3), live(1, 3)),
    "PreluKernelBackwardBackward0": lambda: twice(
        lambda x: torch._prelu_kernel(x, live(1, 3)), live(2, 3)
    ),
    "EmbeddingBackward0": lambda: embedding(torch.tensor([1, 0]), live(2, 3)),
    "IndexSelectBackward0": lambda: live(2, 3).index_select(0, torch.tensor([1, 0])),
    "IndexBackward0": lambda: live(2, 3)[torch.tensor([1, 0])],
    "TrilinearBackward0": lambda: torch._trilinear(
        live(2, 3), live(4, 3, 5), live(2, 5), [1, 3], [0], [1, 2], [2, 3]
    ),
    "NativeGroupNormBackward0": lambda: group_norm(live(2, 4), 2, live(4), live(4)),
    "ConvolutionBackward0": lambda: conv1d(live(2, 1, 5), live(3, 1, 2), live(3)),
    "ConvolutionBackwardBackward0": lambda: twice(
        lambda x: conv1d(x, live(3, 1, 2), live(3)), live(2, 1, 5)
    ),
    "WeightNormInterfaceBackward0": lambda: torch._weight_norm(live(2, 3), live(2, 1), 0),
    "TransposeBackward0": lambda: live(2, 3).transpose(0, -1),
    "PermuteBackward0": lambda: live(2, 3).permute(1, 0),
    "SumBackward1": lambda: live(2, 3).sum(-1),
    "MeanBackward1": lambda: live(2, 3).mean(-1),
    "SelectBackward0": lambda: live(2, 3)[:, -1],
    "SelectBackwardBackward0": lambda: twice(lambda x: x.select(-1, 0), live(2, 3)),
    "StackBackward0": lambda: torch.stack([live(2), live(2)], dim=-1),
    "SplitBackward0": lambda: live(2, 6).split(3, dim=-1)[1],
    "SplitWithSizesBackward0": lambda: live(2, 6).split([4, 2], dim=-1)[1],
    "UnbindBackward0": lambda: live(2, 3).unbind(-1)[2],
    "PowBackward0": lambda: live(2) ** 2,
    "PowBackward1": lambda: live(2) ** torch.full((2,), 2.0, dtype=torch.float64),
    "MseLossBackward0": lambda: mse_loss(live(2), live(2)),
    "HuberLossBackward0": lambda: huber_loss(live(2), live(2), delta=0.5),
    "SmoothL1LossBackward0": lambda: smooth_l1_loss(live(2), live(2), beta=0.5),
    "AbsBackward0": lambda: live(2).abs(),
    "LinalgVectorNormBackward0": lambda: torch.linalg.vector_norm(live(2, 3), dim=1),
    "DistBackward0": lambda: torch.dist(live(2), live(2)),
    "HypotBackward0": lambda: torch.hypot(live(2), live(2)),
    "NormBackward0": lambda: torch.ops.aten.norm(live(2), 2),
    "NormBackward1": lambda: torch.pairwise_distance(live(2, 3), live(2, 3)),
    "NormBackward2": lambda: torch.ops.aten.norm(live(2), 2, dtype=torch.float64),
    "NormBackward3": lambda: torch.ops.aten.norm(live(2), 2, [0], False, dtype=torch.float64),
    "CoshBackward0": lambda: live(2).cosh(),
    "DotBackward0": lambda: live(2) @ live(2),
    "ReluBackward0": lambda: live(2).relu(),
    "SiluBackward0": lambda: functional.silu(live(2)),
    "GeluBackward0": lambda: functional.gelu(live(2)),
    "SoftplusBackward0": lambda: functional.softplus(live(2), beta=0.5),
    "EluBackward0": lambda: functional.elu(live(2)),
    "MishBackward0": lambda: functional.mish(live(2)),
    "SqrtBackward0": lambda: live(2).sqrt(),
    "RsqrtBackward0": lambda: live(2).rsqrt(),
    "ReciprocalBackward0": lambda: live(2).reciprocal(),
    "ExpBackward0": lambda: live(2).exp(),
    "Expm1Backward0": lambda: live(2).expm1(),
    "LogsumexpBackward0": lambda: live(2).logsumexp(0),
    "ProdBackward0": lambda: live(2).prod(),
    "SigmoidBackward0": lambda: live(2).sigmoid(),
    "SoftmaxBackward0": lambda: live(2).softmax(0),
    "TanhBackward0": lambda: live(2).tanh(),
    "LogBackward0": lambda: live(2).log(),
    "Log1PBackward0": lambda: live(2).log1p(),
    "Log2Backward0": lambda: live(2).log2(),
    "Log10Backward0": lambda: live(2).log10(),
}


@pytest.mark.parametrize("kind", nodes.SAVED | MAKE)  # no more are made than are read
def test_torch_offers_every_operand(kind: str):
    assert kind in MAKE, f"no operation in this test makes a {kind}; add one"
    node = MAKE[kind]().grad_fn
    assert nodes.kind(node) == kind, f"torch calls the node {nodes.kind(node)}: its rules are lost"
    lost = nodes.missing(node)
    assert lost == (), f"torch keeps no operand {lost} on {kind}: its rule is lost"
    for operand in nodes.SAVED[kind]:
        nodes.saved(node, operand)


VALUES: dict[str, tuple[str, object]] = {
    **dict.fromkeys(("AddmmBackward0", "AddBackward0", "SubBackward0"), ("alpha", 2)),
    "BaddbmmBackward0": ("alpha", 2),
    "EmbeddingBackward0": ("padding_idx", -1),
    "ConvolutionBackward0": ("stride", (1,)),
    "TrilinearBackward0": ("sumdim", (2, 3)),
    "TransposeBackward0": ("dim1", -1),
    "PermuteBackward0": ("dims", (1, 0)),
    **dict.fromkeys(("SumBackward1", "MeanBackward1"), ("dim", (-1,))),
    **dict.fromkeys(("SelectBackward0", "SelectBackwardBackward0", "StackBackward0"), ("dim", 1)),
    **dict.fromkeys(("SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0"), ("dim", 1)),
    "PowBackward0": ("exponent", 2),
    "HuberLossBackward0": ("delta", 0.5),
    "SmoothL1LossBackward0": ("beta", 0.5),
    "LinalgVectorNormBackward0": ("dim", (1,)),
    "NativeLayerNormBackward0": ("normalized_shape", (3,)),
}


def signed(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(signed(entry) for entry in value)
    return nodes.signed(value) if isinstance(value, int) else value


@pytest.mark.parametrize("kind", VALUES)
def test_numbers_among_the_operands(kind: str):
    """Torch may or may not have counted a negative axis from the front; both mean the same."""
    operand, expected = VALUES[kind]
    found = signed(nodes.saved(MAKE[kind]().grad_fn, operand))
    if operand.startswith("dim"):
        wrapped = expected if isinstance(expected, tuple) else (expected,)
        found = tuple(d % 2 for d in (found if isinstance(found, tuple) else (found,)))
        expected = tuple(d % 2 for d in wrapped)
    assert found == expected


def test_saved_tensors_are_the_operands_and_a_freed_graph_says_so():
    x, w = live(2, 4), live(4, 3)
    node = (out := x @ w).grad_fn
    assert torch.equal(nodes.saved(node, "self"), x)
    assert torch.equal(nodes.saved(node, "mat2"), w)
    assert nodes.saved(node, "mat2").requires_grad
    out.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        nodes.saved(node, "self")


@pytest.mark.parametrize("operand", ["mat1", "_saved_self", ""])
def test_operands_and_node_types_that_are_not_listed_are_refused(operand: str):
    with pytest.raises(KeyError, match=r"MmBackward0 has no operand .* \('self', 'mat2'\)"):
        nodes.saved((live(2, 4) @ live(4, 3)).grad_fn, operand)
    with pytest.raises(KeyError, match="SinBackward0"):
        nodes.saved(live(2).sin().grad_fn, "self")


def test_shapes_and_dtypes_of_outputs():
    parts = live(4, 6).split(3, dim=1)
    assert nodes.output_shape(parts[0].grad_fn) == (4, 3)
    assert nodes.output_shape(live(4, 6).sum().grad_fn) == ()
    assert nodes.output_dtype((live(2) * 2).grad_fn) == torch.float64
    assert nodes.output_dtype(live(2).bfloat16().grad_fn) == torch.bfloat16
    assert nodes.output_dtype((live(2) * 1j).grad_fn) == torch.complex128


def test_inputs_skip_constants_and_number_outputs():
    first, second = live(4, 6).split(3, dim=1)
    found = nodes.inputs(torch.addcmul(torch.ones(4, 3), second, first).grad_fn)
    assert list(found) == [(1, first.grad_fn, 1), (2, first.grad_fn, 0)]


def test_leaf_and_kind_without_namespace():
    w = live(3)
    ((_, child, _),) = nodes.inputs((w * 2).grad_fn)
    assert nodes.leaf(child) is w
    assert nodes.leaf((w * 2).grad_fn) is None
    assert nodes.kind((w * 2).grad_fn) == "MulBackward0"
    assert nodes.kind(child) == "AccumulateGrad"


@pytest.mark.parametrize(("given", "meant"), [(0, 0), (3, 3), (2**64 - 1, -1), (2**64 - 2, -2)])
def test_signed(given: int, meant: int):
    assert nodes.signed(given) == meant


class Everything(nn.Module):
    """Uses a rule of each kind, first on points in rows, then on points in columns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(2, 4), nn.LayerNorm(4)
        self.mm, self.by_column = nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.rand(3, 3))
        self.gain, self.divisor = nn.Parameter(torch.rand(3) + 1), nn.Parameter(torch.rand(1) + 1)
        self.offset, self.shift = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(()))
        self.last = nn.Parameter(torch.rand(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x)).tanh() @ self.mm
        h = torch.tanh(h * self.gain / self.divisor + self.offset - self.shift)
        h = torch.tanh(self.by_column.T @ h.T).T
        return h @ self.last


RULES = [
    *("AddmmBackward0", "MmBackward0", "MvBackward0", "AddBackward0", "SubBackward0"),
    *("MulBackward0", "DivBackward0", "NativeLayerNormBackward0"),
]


AXES: dict[str, Callable[[Tensor], Tensor]] = {
    "SumBackward1": lambda h: h.sum(1),
    "MeanBackward1": lambda h: h.mean(1),
    "SelectBackward0": lambda h: h[:, 0],
    "StackBackward0": lambda h: torch.stack([h, h], dim=1).flatten(1),
    "SplitBackward0": lambda h: h.split(2, dim=1)[1],
    "SplitWithSizesBackward0": lambda h: h.split([1, 2], dim=1)[1],
    "UnbindBackward0": lambda h: h.unbind(1)[1],
    "LinalgVectorNormBackward0": lambda h: h.norm(dim=1),
}


def lose(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch keep none of the operands of these nodes."""
    there = nodes._missing
    lost = lambda made, name: ("lost",) if name == kind else there(made, name)  # noqa: E731
    monkeypatch.setattr(nodes, "_missing", lost)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", RULES)
def test_a_lost_attribute_costs_time_not_truth(kind: str, monkeypatch: pytest.MonkeyPatch):
    net, x = Everything(), torch.rand(5, 2)
    residual = net(x).square()
    checked_ntk(residual, net, 1e-13, "K before")
    lose(kind, monkeypatch)
    with pytest.warns(NTKWarning, match=f"no rule for a parameter at input . of {kind}") as said:
        kernel = checked_ntk(residual, net, 1e-13, "K after")
    assert len(said) == 1
    assert kernel.jacobian("residual").fallbacks


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", AXES)
def test_a_lost_axis_costs_the_proof_only(kind: str, monkeypatch: pytest.MonkeyPatch):
    net = nn.Linear(2, 3)
    residual = AXES[kind](net(torch.rand(5, 2)))
    lose(kind, monkeypatch)
    checked_ntk(residual, net, 1e-13, "K without the axis", certify=False)


def test_missing_looks_at_the_node_type(monkeypatch: pytest.MonkeyPatch):
    node = (live(2, 4) @ live(4, 3)).grad_fn
    monkeypatch.setitem(nodes.SAVED, "MmBackward0", ("self", "nothing_like_it"))
    nodes._missing.cache_clear()
    assert nodes.missing(node) == ("nothing_like_it",)
    monkeypatch.undo()
    nodes._missing.cache_clear()
    assert nodes.missing(node) == ()
