"""The terms of a scalar loss, read off its autograd graph.

| symbol | meaning | shape |
| --- | --- | --- |
| L | the loss, sum_a sum_i w_ai phi_a(r_ai) to first order around the current parameters | () |
| r_a | unsquared residual of term a | any, ``r.shape`` |
| phi_a | square, absolute value, Huber, ... as in `pinn_ntk.graph.terms.phi` | ``r.shape`` |
| w_a | coefficient of phi_a(r_ai) in L, whatever made it | ``r.shape`` |
| s_a | slope w_a phi_a'(r_a): dL/dr_a through this term alone | ``r.shape`` |
| theta | leaf tensors that the residuals depend on | per leaf |
| J_a | d r_a / d theta, never formed here | (r_a.numel(), theta.numel()) |

The loss is a sum of terms, each a function phi of an unsquared residual, weighted (Wang, Yu,
Perdikaris 2022, eq. 7.2). What was found is checked against the gradient that training is about to
use: sum_a J_a^T s_a = dL/dtheta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from pinn_ntk.errors import ArgumentError, OpaqueLossError
from pinn_ntk.graph.nodes import kind, origin, output_shape
from pinn_ntk.graph.subclasses import plain_functions
from pinn_ntk.graph.terms.completeness import check_complete, checked, cut, explained
from pinn_ntk.graph.terms.loss_nodes import Head
from pinn_ntk.graph.terms.names import Logged, name_terms
from pinn_ntk.graph.terms.paths import Paths, trace, way_down
from pinn_ntk.graph.terms.term import Term


def find_terms(
    loss: Tensor,
    *,
    names: Sequence[str] | Mapping[str, Logged] | None = None,
    check: bool = True,
) -> dict[str, Term]:
    """Find the terms of ``loss``: unsquared residual, what is applied to it, and its weight.

    The graph is followed from the loss to the first square, absolute value, 2-norm, Huber,
    smooth L1 or log-cosh on each path; above may stand any reductions, arithmetic and weights.
    A norm or RMSE and its square count as one. A factor that is squared along with the residual
    belongs to the residual. Penalties on parameters, and weights computed from leaves alone, are
    recognised and left out. A negated loss gives negative weights, see `Term.ascends`.

    Nothing is accumulated in leaves and the graph stays as it is, but hooks on tensors fire and
    ``retain_grad`` accumulates, as with any ``torch.autograd.grad``. Call this before hooks are
    registered on a head.

    Args:
        loss: One number with a live graph, as it is about to be differentiated.
        names: Names in the order in which the loss was written, or key -> number that was logged
            (see `name_terms`). Without, the terms are called ``term_0``, ``term_1``, ...
        check: Whether to compare with dL/dtheta, for two to three more backward passes. These
            start at the loss: under DDP with ``static_graph=True``, leave them out.

    Returns:
        Name -> term, in the order in which the loss was written.

    Raises:
        TypeError: ``loss`` is no tensor, or ``names`` one string.
        ValueError: ``loss`` is not one number, has no graph or one already freed, or ``names``
            do not fit.
        OpaqueLossError: A path leads into the network without passing a residual.
        IncompleteTermsError: The terms do not make up the gradient of the loss.

    Example:
        >>> theta = torch.tensor(2.0, requires_grad=True)
        >>> residual = theta * torch.tensor([1.0, 2.0, 3.0]) - 1  # 1, 3, 5
        >>> boundary = theta * torch.tensor([0.0, 1.0]) - 2  # -2, 0
        >>> loss = 3 * (residual**2).mean() + boundary.abs().sum()
        >>> terms = find_terms(loss, names=["pde", "bc"])
        >>> terms["pde"]
        Term(name='pde', kind='square', value=tensor(35.), mean=tensor(11.6667), total=tensor(35.))
        >>> terms["pde"].weight, terms["pde"].slope
        (tensor([1., 1., 1.]), tensor([ 2.,  6., 10.]))
        >>> terms["pde"].residual is residual
        True
    """
    loss = checked(loss)
    with explained(), plain_functions():
        found = trace(origin(loss)[0])
        _refuse_opaque(found, origin(loss)[0])
        terms = _weighted(loss, found.heads)
        if names is not None:
            named = zip(terms, _names(terms, names), strict=True)
            terms = [replace(term, name=name) for term, name in named]
        if check:
            check_complete(loss, terms)
    return {term.name: term for term in terms}


def _weighted(loss: Tensor, heads: Sequence[Head]) -> list[Term]:
    """A term for each head, named by its position."""
    edges = [GradientEdge(head.node, 0) for head in heads]
    with cut(head.node for head in heads):  # a head may lie below another one
        incoming = torch.autograd.grad(loss, edges, retain_graph=True, allow_unused=True)
    weights = [head.coefficient(g) for head, g in zip(heads, incoming, strict=True)]
    return [
        Term(f"term_{position}", head.residual, head.node, head.phi, weight)
        for position, (head, weight) in enumerate(zip(heads, weights, strict=True))
    ]


def _names(terms: Sequence[Term], names: Sequence[str] | Mapping[str, Logged]) -> Sequence[str]:
    if isinstance(names, str):
        raise TypeError(f"names is the string {names!r}; expected a list of names or a mapping")
    if isinstance(names, Mapping):
        return name_terms(terms, names)
    if len(names) != len(terms) or len(set(names)) != len(names):
        found = ", ".join(f"{t.kind} of shape {tuple(t.residual.shape)}" for t in terms)
        raise ArgumentError(
            f"names={list(names)!r} does not fit: expected {len(terms)} different names, one for "
            f"each of the terms found, in the order in which the loss was written: {found}."
        )
    return names


def _refuse_opaque(found: Paths, root: Node) -> None:
    advice = (
        "Pass the residuals yourself: pinn_ntk.empirical_ntk({'pde': r, ...}, model.parameters())."
    )
    if found.opaque:
        raise OpaqueLossError(
            f"the loss depends on {_listed(found.opaque)}{_through(root, found.opaque[0])} without "
            "passing a residual that is squared or the like. Likely causes: a term of another form "
            "(another power, a likelihood, or the mean of the network's output, as in an energy), "
            f"a custom autograd.Function, or a compiled loss. {advice}"
        )
    if not found.heads:
        raise OpaqueLossError(
            "the loss holds no residual: it depends on leaf tensors only through penalties and "
            f"weights ({_listed(found.asides)}). {advice}"
        )


def _listed(nodes: Sequence[Node], most: int = 6) -> str:
    shown = [f"{kind(node)} of shape {tuple(output_shape(node))}" for node in nodes[:most]]
    return ", ".join(shown) + (f" and {len(nodes) - most} more" if len(nodes) > most else "")


def _through(root: Node, node: Node, most: int = 6) -> str:
    """The last operations from the loss down to a node, each once, in words."""
    way = list(dict.fromkeys(kind(step) for step in way_down(root, node)))[-most:]
    return f" (through {', '.join(way)})" if way else ""
