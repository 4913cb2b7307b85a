"""Which call of a network stands behind each term, and the points that go into it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import postorder
from pinn_ntk.looks.networks import NetworkCall
from pinn_ntk.looks.rerun import Ran
from pinn_ntk.verdict.slices import rows_taken


def calls_behind(ran: Ran) -> dict[str, NetworkCall]:
    """Term -> the call of a network behind it that has most of its rows, and different ones."""
    own = _own_nodes(ran)
    found: dict[str, NetworkCall] = {}
    for term, residual in ran.residuals.items():
        if residual.grad_fn is None:
            continue
        behind = postorder(nodes.origin(residual)[0]).keys()
        for call, of_call in zip(ran.calls, own, strict=True):
            x, most = columns(call), found.get(term)
            if computed(call):  # a layer's, by what came before it
                continue
            if x is None or residual.numel() % max(1, len(x)) or not of_call & behind:
                continue
            if most is None or _extent(call) > _extent(most):
                found[term] = call
    return found


def _extent(call: NetworkCall) -> tuple[int, int]:
    """Numbers that a call gives, and different points that it is given."""
    x = columns(call)
    return call.output.numel(), 0 if x is None else len(torch.unique(x, dim=0))


def behind_any(ran: Ran, terms: Iterable[str]) -> list[NetworkCall]:
    """Calls of networks behind any of some terms."""
    live = [r for term in terms if (r := ran.residuals[term]).grad_fn is not None]
    behind = set().union(*(postorder(nodes.origin(r)[0]) for r in live))
    return [call for call in ran.calls if _within(call) & behind]


def _within(call: NetworkCall) -> set[Node]:
    """Nodes between the inputs of a call and what it gives."""
    if call.output.grad_fn is None:
        return set()
    before = [postorder(nodes.origin(x)[0]) for x in call.inputs if x.grad_fn is not None]
    made = set(postorder(nodes.origin(call.output)[0])).difference(*before)
    return {node for node in made if nodes.leaf(node) is None}


def points_behind(ran: Ran) -> dict[str, Tensor]:
    """Term -> its points, (N, d): those of the call behind it, or the rows of one that it takes."""
    found = {term: columns(call) for term, call in calls_behind(ran).items()}
    for term, residual in ran.residuals.items():
        if term not in found and residual.grad_fn is not None:
            found[term] = _of_slice(residual, ran)
    return {term: x for term, x in found.items() if x is not None}


def places_of(ran: Ran) -> dict[str, Tensor]:
    """Term -> all its points: also those of several calls, rows of which a term has one by one.

    In the order of the calls, which need not be that of its rows.
    """
    found = points_behind(ran)
    graphs = _own_nodes(ran)
    for term, residual in ran.residuals.items():
        if residual.grad_fn is None:
            continue
        behind = postorder(nodes.origin(residual)[0]).keys()
        calls = [c for c, own in zip(ran.calls, graphs, strict=True) if own & behind]
        every = [x for call in calls if (x := columns(call)) is not None]
        alike = len({x.shape[1] for x in every}) == 1 and len(every) == len(calls)
        if len(calls) > 1 and alike and sum(c.output.numel() for c in calls) == residual.numel():
            found[term] = torch.cat(every)
    return found


def _of_slice(residual: Tensor, ran: Ran) -> Tensor | None:
    for call in sorted(ran.calls, key=lambda call: -call.output.numel()):
        x = columns(call)
        if x is None or not len(x) or computed(call):
            continue
        if (rows := rows_taken(residual, call, len(x))) is not None:
            return x[rows.to(x.device)]
    return None


def _own_nodes(ran: Ran) -> list[set[Node]]:
    """For each call the nodes that no other has; a residual of derivatives lacks the output."""
    graphs = [
        set(postorder(nodes.origin(call.output)[0])) if call.output.grad_fn is not None else set()
        for call in ran.calls
    ]
    shared = Counter(node for graph in graphs for node in graph)
    return [{n for n in g if shared[n] == 1 and nodes.leaf(n) is None} for g in graphs]


def columns(call: NetworkCall) -> Tensor | None:
    """Points of a call, coordinates side by side, (N, d); those of a grid one by one."""
    flat = [x.detach().reshape(-1, width(x, call)) for x in call.inputs if x.ndim]
    if not flat or any(len(x) != len(flat[0]) for x in flat):
        return None
    return torch.cat([x.to(flat[0]) for x in flat], 1)


def width(x: Tensor, call: NetworkCall) -> int:
    """Coordinates of one input: (N,), (N, d), or of the shape of the output, as a grid has it."""
    grid = len(call.inputs) > 1 and x.shape == call.output.shape
    return 1 if x.ndim == 1 or grid else math.prod(x.shape[1:])


def computed(call: NetworkCall) -> bool:
    """Whether what a call is given depends on parameters, so that it is no point."""
    return any(map(_computed, call.inputs))


def _computed(x: Tensor) -> bool:
    """Whether a tensor depends on parameters."""
    if x.grad_fn is None:
        return False
    return any(isinstance(nodes.leaf(n), nn.Parameter) for n in postorder(nodes.origin(x)[0]))
