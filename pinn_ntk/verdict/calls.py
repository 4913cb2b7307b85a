"""Which call of a network stands behind each term, and the points that go into it."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import postorder
from pinn_ntk.looks.networks import NetworkCall
from pinn_ntk.looks.rerun import Ran


def calls_of(ran: Ran) -> dict[str, NetworkCall]:
    """Term -> the call of a network behind it that has most of its rows."""
    own = _own_nodes(ran)
    found: dict[str, NetworkCall] = {}
    for term, residual in ran.residuals.items():
        if residual.grad_fn is None:
            continue
        behind = postorder(nodes.origin(residual)[0]).keys()
        for call, of_call in zip(ran.calls, own, strict=True):
            x, most = columns(call.inputs), found.get(term)
            if any(_computed(one) for one in call.inputs):  # a layer's, by what came before it
                continue
            if x is None or residual.numel() % max(1, len(x)) or not of_call & behind:
                continue
            if most is None or len(x) > len(most.inputs[0]):
                found[term] = call
    return found


def _own_nodes(ran: Ran) -> list[set[Node]]:
    """For each call the nodes that no other has; a residual of derivatives lacks the output."""
    graphs = [
        set(postorder(nodes.origin(call.output)[0])) if call.output.grad_fn is not None else set()
        for call in ran.calls
    ]
    shared = Counter(node for graph in graphs for node in graph)
    return [{n for n in g if shared[n] == 1 and nodes.leaf(n) is None} for g in graphs]


def columns(inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Inputs side by side, (N, d)."""
    flat = [x.detach().reshape(len(x), -1) for x in inputs if x.ndim]
    if not flat or any(len(x) != len(flat[0]) for x in flat):
        return None
    return torch.cat([x.to(flat[0]) for x in flat], 1)


def _computed(x: Tensor) -> bool:
    """Whether a tensor depends on parameters."""
    if x.grad_fn is None:
        return False
    return any(isinstance(nodes.leaf(n), nn.Parameter) for n in postorder(nodes.origin(x)[0]))
