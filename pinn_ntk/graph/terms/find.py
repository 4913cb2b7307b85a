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

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from pinn_ntk.errors import OpaqueLossError
from pinn_ntk.graph.nodes import kind, output_shape
from pinn_ntk.graph.terms.completeness import check_complete, checked, cut, explained
from pinn_ntk.graph.terms.loss_nodes import Head
from pinn_ntk.graph.terms.paths import Paths, reached, trace
from pinn_ntk.graph.terms.term import Term


def find_terms(
    loss: Tensor,
    *,
    names: Sequence[str] | Mapping[str, Tensor | float] | None = None,
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
    with explained():
        found = trace(get_gradient_edge(loss).node)
        _refuse_opaque(found)
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


def _names(
    terms: Sequence[Term], names: Sequence[str] | Mapping[str, Tensor | float]
) -> Sequence[str]:
    if isinstance(names, str):
        raise TypeError(f"names is the string {names!r}; expected a list of names or a mapping")
    if isinstance(names, Mapping):
        return name_terms(terms, names)
    if len(names) != len(terms) or len(set(names)) != len(names):
        found = ", ".join(f"{t.kind} of shape {tuple(t.residual.shape)}" for t in terms)
        raise ValueError(
            f"names={list(names)!r} does not fit: expected {len(terms)} different names, one for "
            f"each of the terms found, in the order in which the loss was written: {found}."
        )
    return names


def _refuse_opaque(found: Paths) -> None:
    advice = (
        "Pass the residuals yourself: pinn_ntk.empirical_ntk({'pde': r, ...}, model.parameters())."
    )
    if found.opaque:
        raise OpaqueLossError(
            f"the loss depends on {_listed(found.opaque)} without passing a residual that is "
            "squared or the like. Likely causes: a term of another form (a likelihood, or the "
            "mean of the network's output, as in an energy), a custom autograd.Function, or a "
            f"compiled loss. {advice}"
        )
    if not found.heads:
        raise OpaqueLossError(
            "the loss holds no residual: it depends on leaf tensors only through penalties and "
            f"weights ({_listed(found.asides)}). {advice}"
        )


def _listed(nodes: Sequence[Node], most: int = 6) -> str:
    shown = [f"{kind(node)} of shape {tuple(output_shape(node))}" for node in nodes[:most]]
    return ", ".join(shown) + (f" and {len(nodes) - most} more" if len(nodes) > most else "")


def name_terms(terms: Sequence[Term], logged: Mapping[str, Tensor | float]) -> list[str]:
    """Name each of ``terms`` after the key under which the user logged it, all different.

    A logged tensor with a graph names the terms whose heads it is made of: ``key`` for a single
    one, ``key_0``, ``key_1``, ... for several; of two keys the one with fewer heads wins, then the
    earlier one. A key that is made of all terms is the total and names none, unless there is only
    one term. Any other scalar names the one term that it equals, to a relative 1e-6: either the
    contribution of that term to the loss, or the plain mean or sum of its phi(r). What is left is
    called ``term_<position>``. Larger tensors are passed over.
    """
    made_of = _heads_by_key(terms, logged)
    names: dict[int, str] = {}
    for key, positions in sorted(made_of.items(), key=lambda item: len(item[1])):
        if len(positions) < len(terms) or len(terms) == 1:
            for number, position in enumerate(positions):
                _claim(names, position, f"{key}_{number}" if positions[1:] else key)
    for key, value in logged.items():
        unnamed = [position for position in range(len(terms)) if position not in names]
        equal = [position for position in unnamed if _equals(terms[position], value)]
        if key not in made_of and len(equal) == 1:
            _claim(names, equal[0], key)
    for position in range(len(terms)):
        name = f"term_{position}"
        while name in names.values():
            name += "_"
        _claim(names, position, name)
    return [names[position] for position in range(len(terms))]


def _heads_by_key(
    terms: Sequence[Term], logged: Mapping[str, Tensor | float]
) -> dict[str, list[int]]:
    """Key -> positions of the terms that a logged tensor is made of, where there are any."""
    heads = {term.head for term in terms}
    made_of = {}
    for key, value in logged.items():
        if isinstance(value, Tensor) and value.numel() == 1 and value.grad_fn is not None:
            found = reached(value.grad_fn, heads)
            made_of[key] = [position for position, term in enumerate(terms) if term.head in found]
    return {key: positions for key, positions in made_of.items() if positions}


def _claim(names: dict[int, str], position: int, name: str) -> None:
    if name not in names.values():
        names.setdefault(position, name)


def _equals(term: Term, value: Tensor | float) -> bool:
    if isinstance(value, Tensor) and value.numel() != 1:
        return False
    number = float(value.detach() if isinstance(value, Tensor) else value)
    candidates = (term.value, term.mean, term.total)
    return any(math.isclose(number, float(own), rel_tol=1e-6) for own in candidates)
