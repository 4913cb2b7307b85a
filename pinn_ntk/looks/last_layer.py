"""Which parameters, set to zero, make the output of a network zero, whatever stands around it.

The graph is walked from the output to the first products with a parameter: of the last linear layer
of each branch its weight and its bias, of ``a * net(x)`` with a trained a that number. Of a weight
that is computed, g v / |v| or V diag(exp(s)), it is a factor that may be 0: g, V.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import postorder

PRODUCTS = {"Addmm", "Mm", "Mul", "Bmm", "Baddbmm", "Addmv", "Mv", "Linear", "Convolution",
            "NativeLayerNorm", "NativeBatchNorm", "NativeGroupNorm", "Einsum"}  # fmt: skip
SHAPES = {"T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze",
          "Expand", "Clone", "ToCopy", "Slice", "Select", "Alias"}  # fmt: skip
FACTORS = {"Mul", "Mm", "Bmm", "Mv", "Dot", "Vdot"}
BIASED = {"Addmm": 0, "Addmv": 0, "Baddbmm": 0, "Linear": 2}
"""Products with a bias, and its position."""


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
        product = _bare(node) in PRODUCTS
        below = {place: (child, _factor(child, names)) for place, child, _ in nodes.inputs(node)}
        resolved = {place: name for place, (_, name) in below.items() if name}
        if BIASED.get(_bare(node)) in resolved and len(resolved) == 1:
            return set()  # its weight is computed in another way
        found |= set(resolved.values())
        if not (resolved and product):
            data = [child for child, name in below.values() if not name]
            stack += [child for child in data if not _of_parameters(child, names)]
    return found


def _factor(node: Node, names: Mapping[int, str]) -> str:
    """A parameter without which what a node gives is 0; empty if that depends on anything else."""
    zeroing = _zeroing(node, names)
    return min(zeroing, default="") if zeroing and _of_parameters(node, names) else ""


def _zeroing(node: Node, names: Mapping[int, str]) -> set[str]:
    """Names of parameters each of which, set to zero, makes what a node gives zero."""
    leaf = nodes.leaf(node)
    if leaf is not None:
        return {names[id(leaf)]} if id(leaf) in names else set()
    kind, below = _bare(node), [child for _, child, _ in nodes.inputs(node)]
    if kind == "WeightNormInterface":  # v, g
        return _zeroing(below[1], names)
    if kind == "Div" and len(below) == 2:
        return _zeroing(below[0], names) - _names(below[1], names)  # not v of v / |v|
    if kind in FACTORS or (kind in SHAPES and len(below) == 1):
        return set().union(*(_zeroing(child, names) for child in below))
    return set()


def _of_parameters(node: Node, names: Mapping[int, str]) -> bool:
    """Whether nothing but parameters and constants that scale them is behind a node."""
    behind = postorder(node)
    products = [n for n in behind if _bare(n) in PRODUCTS - {"Mul"}]
    operands = [child for n in products for child, _ in nodes.operands(n)]
    whole = all(child is not None for child in operands)  # no data, which have no gradient
    leaves = [leaf for n in behind if (leaf := nodes.leaf(n)) is not None]
    return whole and all(id(leaf) in names for leaf in leaves)


def _names(node: Node, names: Mapping[int, str]) -> set[str]:
    leaves = (nodes.leaf(n) for n in postorder(node))
    return {names[id(leaf)] for leaf in leaves if leaf is not None and id(leaf) in names}


def _bare(node: Node) -> str:
    return nodes.kind(node).rstrip("0123456789").removesuffix("Backward")
