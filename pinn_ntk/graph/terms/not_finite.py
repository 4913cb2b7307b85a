"""Where the gradient of a finite loss becomes NaN or inf: in which term, at which operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from pinn_ntk.graph.nodes import kind, origin
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.terms.paths import nodes_below
from pinn_ntk.graph.terms.term import Term

WORDS = {
    "Sqrt": "sqrt",
    "Rsqrt": "rsqrt",
    "Pow": "a power",
    "Div": "a division, or the derivative of a root,",
    "Log": "log",
    "Reciprocal": "a reciprocal",
    "Mul": "a product with nan or inf",
}
"""What an operation is called, where its name is not enough."""

Gradients = Sequence[Tensor | None]


class Place(NamedTuple):
    """An operation that makes NaN or inf of a finite gradient."""

    node: Node
    bad: int  # numbers that are not finite
    size: int


def cause(loss: Tensor, terms: Sequence[Term], leaves: Sequence[Tensor]) -> str:
    """Which terms of a finite loss have no finite gradient, and why; empty where unclear."""
    named = [term.name for term in terms if not _is_finite(term, leaves)]
    place = first_place(loss, leaves)
    if place is None or not named:
        return ""
    name = operation(place.node).name
    word = WORDS.get(name, name.lower())
    return (
        f"the loss is finite, but the gradient of {' and '.join(map(repr, named))} is not: {word} "
        f"({kind(place.node)}) makes nan or inf of {place.bad} of {place.size} numbers, likely "
        "where its slope is infinite, as that of sqrt at 0. A mask or torch.where behind it does "
        "not help, since 0 * inf is nan. Leave such points out before the network, clamp what goes "
        "in (x.clamp(min=1e-12)), or add a small number under the root."
    )


def first_place(output: Tensor, leaves: Sequence[Tensor]) -> Place | None:
    """The first operation of a backward pass that makes NaN or inf of a finite gradient.

    >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> place = first_place(x.sqrt().sum(), [x])
    >>> kind(place.node), place.bad, place.size
    ('SqrtBackward0', 1, 2)
    """
    found: list[Place] = []
    with _watched(nodes_below([origin(output)[0]]), found):
        torch.autograd.grad(output, leaves, retain_graph=True, allow_unused=True)
    return found[0] if found else None


@contextmanager
def _watched(nodes: dict[Node, None], found: list[Place]) -> Iterator[None]:
    handles: list[RemovableHandle] = []
    try:
        handles += [node.register_hook(partial(_compare, node, found)) for node in nodes]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _compare(node: Node, found: list[Place], made: Gradients, given: Gradients) -> None:
    if found or not all(g is None or bool(g.isfinite().all()) for g in given):
        return
    for gradient in made:
        if gradient is not None and (bad := int((~gradient.isfinite()).sum())):
            found.append(Place(node, bad, gradient.numel()))
            return


def _is_finite(term: Term, leaves: Sequence[Tensor]) -> bool:
    gradients = torch.autograd.grad(
        term.residual, leaves, term.slope, retain_graph=True, allow_unused=True
    )
    return all(g is None or bool(g.isfinite().all()) for g in gradients)
