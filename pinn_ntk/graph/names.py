"""Names for loss terms, found among the numbers that the user logs anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from pinn_ntk.graph.paths import reached

if TYPE_CHECKING:
    from pinn_ntk.graph.terms import Term


def name_terms(terms: Sequence[Term], logged: Mapping[str, Tensor | float]) -> list[str]:
    """Name each of ``terms`` after the key under which the user logged it.

    A logged tensor with a graph names the terms whose heads it depends on: ``key`` if that is one,
    ``key_0``, ``key_1``, ... if there are several; the key with the fewest heads wins. One that
    depends on all terms is the total and names nothing, unless there is only one term. Any other
    scalar names a term if it equals, to 1e-6, the contribution of that term alone to the loss, or
    the plain mean or sum of its phi(r). The rest is called ``term_<position>``.

    Args:
        terms: The terms, in order.
        logged: Key -> what was logged: a scalar tensor, alive or detached, or a float. Tensors of
            several entries are passed over.

    Returns:
        One name a term, all different.
    """
    names: dict[int, str] = {}
    traced = _by_graph(terms, logged)
    for key, positions in sorted(traced.items(), key=lambda item: len(item[1])):
        if len(positions) < len(terms) or len(terms) == 1:
            for number, position in enumerate(positions):
                _claim(names, position, key if len(positions) == 1 else f"{key}_{number}")
    for key, value in logged.items():
        if key not in traced and (number := _scalar(value)) is not None:
            equal = [i for i, term in enumerate(terms) if i not in names and _equals(term, number)]
            if len(equal) == 1:
                _claim(names, equal[0], key)
    for position in range(len(terms)):
        _claim(names, position, f"term_{position}")
    return [names[position] for position in range(len(terms))]
