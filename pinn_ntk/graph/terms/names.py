"""Names for loss terms, taken from the numbers that the user logs anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.nodes import inputs, missing, operands, origin, output_shape, saved, signed
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.graph.terms.paths import reached
from pinn_ntk.graph.terms.term import Term

Logged: TypeAlias = Tensor | float | Sequence[Tensor | float]
"""What was logged under a key: a number, or several, one after the other."""


def name_terms(terms: Sequence[Term], logged: Mapping[str, Logged]) -> list[str]:
    """Name each of ``terms`` after the key under which the user logged it, all different.

    A logged tensor with a graph names the terms whose heads it is made of: ``key`` for a single
    one, ``key_0``, ``key_1``, ... for several, and where several numbers were logged under the key.
    Of two keys the one with fewer heads wins, then the earlier one. What is made of all terms is
    the total and names none, unless there is only one term. Any other scalar names the one term
    that it equals, to a relative 1e-6: either the contribution of that term to the loss, or the
    plain mean or sum of its phi(r). What is left is called ``term_<position>``. Larger tensors are
    passed over.
    """
    names: dict[int, str] = {}
    listed = {key: _listed(value) for key, value in logged.items()}
    made_of = {key: [_made_of(terms, value) for value in values] for key, values in listed.items()}
    live = {key: _parts(made, len(terms)) for key, made in made_of.items() if any(made)}
    for key, positions in sorted(live.items(), key=lambda item: len(item[1])):
        for number, position in enumerate(positions):
            several = positions[1:] or listed[key][1:]
            _claim(names, position, f"{key}_{number}" if several else key)
    for key in (key for key in listed if key not in live):
        _name_by_value(names, terms, key, listed[key])
    for position in range(len(terms)):
        name = f"term_{position}"
        while name in names.values():
            name += "_"
        _claim(names, position, name)
    return [names[position] for position in range(len(terms))]


def totals(terms: Sequence[Term], logged: Mapping[str, Logged]) -> set[str]:
    """Keys of what is made of all terms, by its graph or the sum of their contributions."""
    last = {key: _listed(value)[-1] for key, value in logged.items()}
    total = sum(float(term.value) for term in terms)
    made_of = {key: _made_of(terms, value) for key, value in last.items()}
    whole = {key for key, positions in made_of.items() if len(positions) == len(terms)}
    return whole | {key for key in last if not made_of[key] and _is_close(last[key], total)}


def _listed(value: Logged) -> list[Tensor | float]:
    values = value if isinstance(value, Sequence) else [value]
    return [plain(one) if isinstance(one, Tensor) else one for one in values]


def _made_of(terms: Sequence[Term], value: Tensor | float) -> set[int]:
    """Positions of the terms that a logged tensor is made of; of a number without graph, none."""
    if not isinstance(value, Tensor) or value.numel() != 1 or value.grad_fn is None:
        return set()
    found = reached(_picked(*origin(value)), {term.head for term in terms})
    return {position for position, term in enumerate(terms) if term.head in found}


def _picked(node: Node, output: int) -> Node:
    """What made a number; of one that is picked from a stack, that one alone."""
    while operation(node).name in {"Select", "Unbind"} and not missing(node):
        ((_, stack, _),) = inputs(node)
        if operation(stack).name != "Stack" or output_shape(stack) != (len(operands(stack)),):
            break
        place = output if operation(node).name == "Unbind" else signed(saved(node, "index"))
        picked, output = operands(stack)[place]
        if picked is None:
            break
        node = picked
    return node


def _parts(made: Sequence[set[int]], terms: int) -> list[int]:
    """Positions of terms behind what was logged under one key, totals left out."""
    return sorted(set().union(*(some for some in made if len(some) < terms or terms == 1)))


def _name_by_value(
    names: dict[int, str], terms: Sequence[Term], key: str, values: Sequence[Tensor | float]
) -> None:
    for number, value in enumerate(values):
        unnamed = [position for position in range(len(terms)) if position not in names]
        equal = [position for position in unnamed if _equals(terms[position], value)]
        if len(equal) == 1:
            _claim(names, equal[0], f"{key}_{number}" if values[1:] else key)


def _claim(names: dict[int, str], position: int, name: str) -> None:
    if name not in names.values():
        names.setdefault(position, name)


def _equals(term: Term, value: Tensor | float) -> bool:
    return any(_is_close(value, float(own)) for own in (term.value, term.mean, term.total))


def _is_close(value: Tensor | float, expected: float) -> bool:
    if isinstance(value, Tensor) and value.numel() != 1:
        return False
    number = float(value.detach() if isinstance(value, Tensor) else value)
    return math.isclose(number, expected, rel_tol=1e-6)
