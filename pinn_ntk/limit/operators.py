"""Linear differential operators on the inputs of a network.

An operator maps multi-indices over the input coordinates to coefficients: {(2, 0): 1.0,
(0, 2): -c**2} is u -> u_tt - c^2 u_xx for inputs (t, x). A coefficient is a number, or one a point
(N,), and is not differentiated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from pinn_ntk.limit.jets import IndexSet, MultiIndex, derivatives

Operator = Mapping[MultiIndex, float | Tensor]

HIGHEST = 4
"""Order of operators up to which the limit kernels are tested."""


def identity(dim: int) -> dict[MultiIndex, float]:
    """u itself, of points with ``dim`` coordinates."""
    return {(0,) * dim: 1.0}


def laplacian(dim: int) -> dict[MultiIndex, float]:
    """Sum of the second derivatives."""
    return {_twice(dim, i): 1.0 for i in range(dim)}


def biharmonic(dim: int) -> dict[MultiIndex, float]:
    """The Laplacian of the Laplacian.

    >>> biharmonic(2)
    {(4, 0): 1.0, (2, 2): 2.0, (0, 4): 1.0}
    """
    terms: dict[MultiIndex, float] = {}
    for i, j in itertools.product(range(dim), repeat=2):
        index = tuple(map(sum, zip(_twice(dim, i), _twice(dim, j), strict=True)))
        terms[index] = terms.get(index, 0.0) + 1.0
    return terms


def checked(operator: Operator, points: Tensor, name: str) -> dict[MultiIndex, Tensor]:
    """The operator of a term with a coefficient a point, (N,), after a look at every part of it."""
    if not operator:
        raise ValueError(f"the operator of term {name!r} is empty; {{(0,): 1.0}} is u itself.")
    terms = {}
    for index, coefficient in operator.items():
        _check_index(index, points.shape[1], name)
        value = torch.as_tensor(coefficient, dtype=points.dtype, device=points.device).detach()
        if value.shape not in (torch.Size([]), torch.Size([len(points)])):
            raise ValueError(
                f"the coefficient of {index} in term {name!r} has shape {tuple(value.shape)}; "
                f"expected one number, or one for each of the {len(points)} points, "
                f"({len(points)},)."
            )
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"the coefficient of {index} in term {name!r} holds NaN or inf.")
        terms[index] = value.expand(len(points))
    return terms


def coefficients(terms: Mapping[MultiIndex, Tensor], indices: IndexSet) -> Tensor:
    """What turns a truncated Taylor series over A into the operator's values, (A, N)."""
    like = next(iter(terms.values()))
    rows = torch.stack([terms.get(index, torch.zeros_like(like)) for index in indices.indices])
    return rows * derivatives(indices.indices, like)[:, None]


def _check_index(index: MultiIndex, dim: int, name: str) -> None:
    whole = isinstance(index, tuple) and all(isinstance(n, int) and n >= 0 for n in index)
    if not whole or len(index) != dim:
        raise ValueError(
            f"{index!r} in the operator of term {name!r} is no multi-index for points with {dim} "
            f"coordinates; expected a tuple of {dim} integers from 0 on, as in "
            f"{_twice(dim, dim - 1)} for the second derivative in the last coordinate."
        )
    if sum(index) > HIGHEST:
        raise ValueError(
            f"{index} in the operator of term {name!r} has order {sum(index)}; limit kernels are "
            f"computed for operators up to order {HIGHEST}."
        )


def _twice(dim: int, place: int) -> MultiIndex:
    return tuple(2 * (i == place) for i in range(dim))
