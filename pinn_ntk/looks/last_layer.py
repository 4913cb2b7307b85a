"""Which parameters, set to zero, make the output of a network zero, whatever stands around it.

The graph is walked from the output to the first products with a parameter: of the last linear layer
of each branch its weight and its bias, of ``a * net(x)`` with a trained a that number.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes

PRODUCTS = {"Addmm", "Mm", "Mul", "Bmm", "Baddbmm", "Addmv", "Mv", "Linear", "Convolution",
            "NativeLayerNorm", "NativeBatchNorm", "NativeGroupNorm", "Einsum"}  # fmt: skip
SHAPES = {"T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze",
          "Expand", "Clone", "ToCopy", "Slice", "Select", "Alias"}  # fmt: skip


def last_parameters(output: Tensor, params: Mapping[str, Tensor]) -> set[str]:
    """Names of them among ``params``; none where no product with a parameter is found.

    >>> from torch import nn
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    >>> x = torch.zeros(3, 1)
    >>> sorted(last_parameters(x + x * net(x), dict(net.named_parameters())))
    ['2.bias', '2.weight']
    """
    if output.grad_fn is None:
        return set()
    names = {id(parameter): name for name, parameter in params.items()}
    found: set[str] = set()
    stack, seen = [nodes.origin(output)[0]], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        below = [(child, _parameter(child, names)) for _, child, _ in nodes.inputs(node)]
        direct = {name for _, name in below if name}
        found |= direct
        if not (direct and _bare(node) in PRODUCTS):
            stack += [child for child, name in below if not name]
    return found


def _parameter(node: Node, names: Mapping[int, str]) -> str:
    """Name of the parameter that a node only gives another shape; empty for anything else."""
    while _bare(node) in SHAPES:
        below = [child for _, child, _ in nodes.inputs(node)]
        if len(below) != 1:
            return ""
        node = below[0]
    leaf = nodes.leaf(node)
    return "" if leaf is None else names.get(id(leaf), "")


def _bare(node: Node) -> str:
    return nodes.kind(node).rstrip("0123456789").removesuffix("Backward")
