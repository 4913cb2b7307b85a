"""Names for loss terms, taken from the numbers that the user logs anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from pinn_ntk.graph.nodes import origin
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.graph.terms.paths import reached
from pinn_ntk.graph.terms.term import Term


def name_terms(terms: Sequence[Term], logged: Mapping[str, Tensor | float]) -> list[str]:
    """Name each of ``terms`` after the key under which the user logged it, all different.

    A logged tensor with a graph names the terms whose heads it is made of: ``key`` for a single
    one, ``key_0``, ``key_1``, ... for several; of two keys the one with fewer heads wins, then the
    earlier one. A key that is made of all terms is the total and names none, unless there is only
    one term. Any other scalar names the one term that it equals, to a relative 1e-6: either the
    contribution of that term to the loss, or the plain mean or sum of its phi(r). What is left is
    called ``term_<position>``. Larger tensors are passed over.
    """
    logged = {k: plain(v) if isinstance(v, Tensor) else v for k, v in logged.items()}
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
            found = reached(origin(value)[0], heads)
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
