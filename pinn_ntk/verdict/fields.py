"""What the equations are about: u and its kin, be each a network or put together from several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import postorder
from pinn_ntk.looks.networks import NetworkCall
from pinn_ntk.looks.rerun import Ran
from pinn_ntk.verdict.calls import behind_any, calls_behind

MOST = 4
"""Fields, at most."""


def fields(ran: Ran, equations: Sequence[str]) -> dict[str, Tensor]:
    """Name -> live values at points of the equations, the one called ``u`` first.

    Of one network that is its largest output; or what derivatives are taken of, where that has
    parameters in it beside the network, such as weights of a basis. Of several it is what
    derivatives are taken of, where that has more than one in it (a sum of networks, windows, branch
    and trunk), under the name u; and the output of every other network, under its own name, the
    first as u if there is no sum. Nothing where several networks are there and
    `torch.autograd.grad` is not what derives them.
    """
    calls = behind_any(ran, equations)
    if len({call.name for call in calls}) > 1:
        return _of_several(ran, calls)
    wider = [f for f in ran.derived if _inside(f, calls) and beside_networks(f, ran)]
    behind = calls_behind(ran)
    of_equations = [behind[term] for term in equations if term in behind]
    outputs = [c.output for c in of_equations if not c.leaf and c.output.requires_grad]
    return {"u": max(wider or outputs, key=Tensor.numel)} if wider or outputs else {}


def u_of(ran: Ran, equation: str) -> Tensor | None:
    """u of an equation with all that holds by construction: what derivatives are taken of.

    What a network gives where `torch.autograd.grad` is not what derives it.
    """
    calls = behind_any(ran, [equation])
    whole = [field for field in ran.derived if _inside(field, calls)]
    outputs = [call.output for call in calls]
    return max(whole or outputs, key=Tensor.numel, default=None)


def beside_networks(field: Tensor, ran: Ran) -> set[str]:
    """Names of parameters that a field depends on, and that no network has."""
    if field.grad_fn is None:
        return set()
    inside = set().union(*(leaves(c.output) for c in ran.calls))
    outside = leaves(field) - inside
    return {name for name, p in ran.params.items() if id(p) in outside}


def leaves(tensor: Tensor) -> set[int]:
    """Identities of the leaves of the graph behind a tensor."""
    graph = postorder(nodes.origin(tensor)[0]) if tensor.grad_fn is not None else {}
    return {id(leaf) for node in graph if (leaf := nodes.leaf(node)) is not None}


def _of_several(ran: Ran, calls: Sequence[NetworkCall]) -> dict[str, Tensor]:
    inside = [(field, _inside(field, calls)) for field in ran.derived]
    alone = {name for _, names in inside if len(names) == 1 for name in names}
    joined = [(field, names) for field, names in inside if len(names) > 1 and names - alone]
    if not alone and not joined:
        return {}
    found = {f"u{n or ''}": field for n, (field, _) in enumerate(joined)}
    spent = {name for _, names in joined for name in names} | _passed_on(calls) - alone
    own: dict[str, Tensor] = {}
    for call in sorted(calls, key=lambda call: -call.output.numel()):
        if call.name not in spent and not call.leaf:
            own.setdefault(call.name if found or own else "u", call.output)
            spent.add(call.name)
    return dict(list((found | own).items())[:MOST])


def _inside(field: Tensor, calls: Iterable[NetworkCall]) -> set[str]:
    """Names of the networks that a field is computed from."""
    graph = postorder(nodes.origin(field)[0])
    return {call.name for call in calls if _node(call) in graph}


def _passed_on(calls: Sequence[NetworkCall]) -> set[str]:
    """Names of networks whose output goes into another one, and of those that take it."""
    found: set[str] = set()
    for call in calls:
        for x in call.inputs:
            names = _inside(x, calls) if x.grad_fn is not None else set()
            found |= names | ({call.name} if names else set())
    return found


def _node(call: NetworkCall) -> Node:
    return nodes.origin(call.output)[0]
