"""Every private attribute of torch's autograd nodes that this package reads, and nothing else does.

torch names a node after the backward formula of the operation that made it (``MmBackward0``)
and keeps the operands that the formula needs as ``_saved_<operand>``. These names are private
and may change with any torch release, so they are listed once, in `SAVED`; reading goes through
`saved`, and `missing` says which rule is lost when an attribute has gone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn import Parameter

from pinn_ntk.graph.subclasses import dense, plain

SAVED: dict[str, tuple[str, ...]] = {
    # places where a parameter meets a point (graph/jacobian/rules.py)
    "AddmmBackward0": ("mat1", "mat2", "alpha", "beta"),
    "MmBackward0": ("self", "mat2"),
    "BmmBackward0": ("self", "mat2"),
    "MvBackward0": ("self",),
    "AddBackward0": ("alpha",),
    "SubBackward0": ("alpha",),
    "MulBackward0": ("self", "other"),
    "DivBackward0": ("self", "other"),
    "NativeLayerNormBackward0": ("input", "result1", "result2", "normalized_shape"),
    "NativeLayerNormBackwardBackward0": ("grad_out", "input", "mean", "rstd", "normalized_shape"),
    # ... and those of layers beside the linear one (graph/jacobian/layer_rules.py)
    "BaddbmmBackward0": ("batch1", "batch2", "alpha", "beta"),
    "PreluKernelBackward0": ("self",),
    "PreluKernelBackwardBackward0": ("grad_output", "self"),
    "EmbeddingBackward0": ("indices", "padding_idx", "scale_grad_by_freq", "sparse"),
    "IndexSelectBackward0": ("dim", "index"),
    "IndexBackward0": ("indices",),
    "TrilinearBackward0": ("i1", "i2", "i3", "expand1", "expand2", "expand3", "sumdim"),
    "NativeGroupNormBackward0": ("input", "result1", "result2"),
    "ConvolutionBackward0": ("input", "stride", "padding", "dilation", "groups", "transposed"),
    "ConvolutionBackwardBackward0": (
        *("grad_output", "stride", "padding", "dilation", "groups", "transposed"),
    ),
    # transposes of a weight (graph/jacobian/assemble.py)
    "TransposeBackward0": ("dim0", "dim1"),
    "PermuteBackward0": ("dims",),
    # weights computed from parameters (graph/jacobian/weight_rules.py)
    "WeightNormInterfaceBackward0": ("v", "g", "result1", "dim"),
    # operations that keep points on axis 0 (graph/jacobian/align.py)
    "SumBackward1": ("dim",),
    "MeanBackward1": ("dim",),
    "SelectBackward0": ("dim", "index"),
    "SelectBackwardBackward0": ("dim",),
    "StackBackward0": ("dim",),
    "SplitBackward0": ("dim",),
    "SplitWithSizesBackward0": ("dim",),
    "UnbindBackward0": ("dim",),
    # heads of loss terms (graph/terms/loss_nodes.py)
    "PowBackward0": ("self", "exponent"),
    "PowBackward1": ("self", "exponent"),
    "MseLossBackward0": ("self", "target", "reduction"),
    "HuberLossBackward0": ("self", "target", "reduction", "delta"),
    "SmoothL1LossBackward0": ("self", "target", "reduction", "beta"),
    "AbsBackward0": ("self",),
    "LinalgVectorNormBackward0": ("self", "ord", "dim", "keepdim"),
    "DistBackward0": ("self", "other", "p"),
    "HypotBackward0": ("self", "other"),
    "NormBackward0": ("self", "p"),
    "NormBackward1": ("self", "p", "dim", "keepdim"),
    "NormBackward2": ("self", "p"),
    "NormBackward3": ("self", "p", "dim", "keepdim"),
    "CoshBackward0": ("self",),
    "DotBackward0": ("self", "tensor"),
    # layers of units that may be dead (verdict/network.py)
    "ReluBackward0": ("result",),
    "SiluBackward0": ("self",),
    "GeluBackward0": ("self",),
    "SoftplusBackward0": ("self", "beta"),
    "EluBackward0": ("self",),
    "MishBackward0": ("self",),
    # what else may stand above heads, by its value (graph/terms/constant.py)
    "SqrtBackward0": ("result",),
    "RsqrtBackward0": ("result",),
    "ReciprocalBackward0": ("result",),
    "ExpBackward0": ("result",),
    "Expm1Backward0": ("result",),
    "LogsumexpBackward0": ("result",),
    "ProdBackward0": ("result",),
    "SigmoidBackward0": ("result",),
    "SoftmaxBackward0": ("result",),
    "TanhBackward0": ("result",),
    "LogBackward0": ("self",),
    "Log1PBackward0": ("self",),
    "Log2Backward0": ("self",),
    "Log10Backward0": ("self",),
}
"""Node type -> operands read from it, without torch's ``_saved_`` prefix."""


def kind(node: Node) -> str:
    """Name of the node's type without its namespace, such as ``"MmBackward0"``."""
    return _KINDS.get(type(node)) or _named(node)


_KINDS: dict[type[Node], str] = {}
"""What was found for each type; graphs are walked at every training step."""


def _named(node: Node) -> str:
    name = node.name().rsplit("::", 1)[-1]
    if type(node).__name__ == name:  # else one type of Python stands for several operations
        _KINDS[type(node)] = name
    return name


def saved(node: Node, operand: str) -> Any:
    """Operand that ``node`` keeps for its backward formula; a tensor comes plain, with its graph.

    KeyError where `SAVED` does not list it, AttributeError where this torch does not keep it,
    RuntimeError where the graph was freed.
    """
    if operand not in SAVED[kind(node)]:
        raise KeyError(f"{kind(node)} has no operand {operand!r} in SAVED: {SAVED[kind(node)]}")
    read = functools.partial(getattr, node, f"_saved_{operand}")
    found = _in_a_pass_of_its_own(read) if in_backward() else read()
    known = type(found) is Parameter or not isinstance(found, Tensor)
    return found if known else dense(plain(found))


def _in_a_pass_of_its_own(read: Callable[[], Any]) -> Any:
    """What ``read`` gives, where another backward pass is running.

    A checkpoint gives each tensor once a pass; read within that one, it would be missing there.
    """
    found: list[Any] = []
    with torch.enable_grad():
        start = torch.zeros((), requires_grad=True)
        end = start.view_as(start)
        end.register_hook(lambda _: found.append(read()))
    torch.autograd.grad(end, start)
    return found[0]


def missing(node: Node) -> tuple[str, ...]:
    """Operands of `SAVED` that this torch does not offer on ``node``; empty when all are there."""
    return _missing(type(node), kind(node))


@functools.cache
def _missing(node_type: type[Node], name: str) -> tuple[str, ...]:
    return tuple(o for o in SAVED.get(name, ()) if not hasattr(node_type, f"_saved_{o}"))


def signed(number: int) -> int:
    """An integer operand as the user gave it; torch hands negative ones back modulo 2**64."""
    return number if number < 2**63 else number - 2**64


def leaf(node: Node) -> torch.Tensor | None:
    """The leaf tensor that ``node`` accumulates a gradient into, or None for any other node."""
    return node.variable if kind(node) == "AccumulateGrad" else None  # type: ignore[attr-defined]


IDENTITIES = {"_DDPSinkBackward", "BackwardHookFunctionBackward"}
"""Functions of torch that hand on what they get, output for input: between a loss and DDP, and at a
module with backward hooks. They are looked through wherever a graph is walked."""


def operands(node: Node) -> tuple[tuple[Node | None, int], ...]:
    """What made each operand of ``node``, and which output of that; None where it has no graph."""
    found = node.next_functions
    if all(child is None or kind(child) not in IDENTITIES for child, _ in found):
        return found
    return tuple(_through(child, output) for child, output in found)


def origin(tensor: Tensor) -> tuple[Node, int]:
    """What made a tensor with a graph, and which output of that it is."""
    edge = get_gradient_edge(tensor)
    node, output = _through(edge.node, edge.output_nr)
    return (edge.node, edge.output_nr) if node is None else (node, output)


def _through(node: Node | None, output: int) -> tuple[Node | None, int]:
    while node is not None and kind(node) in IDENTITIES:
        node, output = node.next_functions[output]
    return node, output


def inputs(node: Node) -> Iterator[tuple[int, Node, int]]:
    """(position, producing node, number of that node's output) of each differentiable input."""
    for position, (child, output) in enumerate(operands(node)):
        if child is not None:
            yield position, child, output


def reachable(
    starts: Iterable[Node], following: Callable[[Node], Iterable[Node]]
) -> Iterator[Node]:
    """``starts`` and all nodes to which ``following`` leads from them, each once, as found."""
    seen = dict.fromkeys(starts)
    stack = list(seen)
    yield from stack.copy()
    while stack:
        for node in following(stack.pop()):
            if node not in seen:
                seen[node] = None
                stack.append(node)
                yield node


def vjp(node: Node, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """What the backward formula of one operation brings to each of its inputs.

    The engine would add up what is broadcast afterwards; here, too.
    """
    given = node(cotangent)  # type: ignore[operator]
    given = given if isinstance(given, tuple) else (given,)
    shapes = {position: output_shape(child, output) for position, child, output in inputs(node)}
    return tuple(
        None if part is None or position not in shapes else part.sum_to_size(shapes[position])
        for position, part in enumerate(given)
    )


def output_shape(node: Node, output: int = 0) -> torch.Size:
    """Shape of the ``output``-th tensor that the operation behind ``node`` made."""
    return torch.Size(node._input_metadata[output].shape)


def output_dtype(node: Node, output: int = 0) -> torch.dtype:
    """Dtype of the ``output``-th tensor that the operation behind ``node`` made."""
    dtype: torch.dtype = node._input_metadata[output].dtype
    return dtype


def is_own_function(node: Node) -> bool:
    """Whether ``node`` belongs to an ``autograd.Function`` that its user wrote."""
    return isinstance(node, torch._C._FunctionBase)


def pulled_through(node: Node, output: int, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """Cotangents of the operands of one operation alone, by position, for one of its results.

    An operand that was broadcast may have the shape of the result.
    """
    given = [cotangent if k == output else None for k in range(len(node._input_metadata))]
    with torch.no_grad():
        found = node(*given)  # type: ignore[operator]
    return found if isinstance(found, tuple) else (found,)


def in_backward() -> bool:
    """Whether this thread is within a backward pass, as the recomputation of a checkpoint is."""
    graph_task = getattr(torch._C, "_current_graph_task_id", None)
    return graph_task is not None and graph_task() != -1


def accumulates(leaves: Iterable[Tensor]) -> bool:
    """Whether the backward pass that runs now adds to ``.grad`` of one of the leaves.

    To be asked within a hook. ``torch.autograd.grad`` does not, ``loss.backward()`` does. Where
    this torch cannot tell, the answer is whether the pass builds no graph of its own.
    """
    if not hasattr(torch._C, "_will_engine_execute_node"):
        return not torch.is_grad_enabled()
    return any(_runs(leaf) is True for leaf in leaves)


def is_asked_for(leaves: Iterable[Tensor]) -> bool:
    """Whether the pass that runs now is ``torch.autograd.grad`` with respect to one of the leaves.

    To be asked within a hook. Where this torch cannot tell, the answer is no.
    """
    known = hasattr(torch._C, "_will_engine_execute_node")
    return known and any(_runs(leaf) is None for leaf in leaves)


def _runs(leaf: Tensor) -> bool | None:
    """Whether a leaf gets its gradient added; None where somebody else is handed it."""
    try:
        return bool(torch._C._will_engine_execute_node(get_gradient_edge(leaf).node))
    except RuntimeError:  # torch.autograd.grad was asked for this very leaf
        return None
