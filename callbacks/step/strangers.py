"""Residuals of a user's function that do not belong to the terms of the loss as they are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from pinn_ntk.errors import ArgumentError
from pinn_ntk.graph.terms.term import Term


def strangers(residuals: Iterable[str], terms: Iterable[str], route: str, follows: str) -> str:
    """Which residuals no term of the loss belongs to, and what ``follows``; empty if none."""
    known = list(terms)
    names = [name for name in residuals if name not in known]
    if not names:
        return ""
    return (
        f"{route} gives {names}, but no terms of these names are found in the loss, only {known}; "
        f"{follows}. Return the names under which the terms are logged, or mark the residuals with "
        "pinn_ntk.tap."
    )


def check_rows(residuals: Mapping[str, Tensor], terms: Mapping[str, Term], route: str) -> None:
    """ArgumentError where a function returned a loss for the residual that is behind it."""
    for name, residual in residuals.items():
        rows = terms[name].residual.numel() if name in terms else 1
        if residual.ndim == 0 and rows > 1:
            raise ArgumentError(
                f"{route} returned a single number as {name!r}, whose term in the loss has {rows} "
                "rows. Likely it is the loss; expected the residual before it is squared and "
                'averaged, such as {"pde": u_xx - f}.'
            )
