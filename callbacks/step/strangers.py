"""Residuals of a user's function that do not belong to the terms of the loss as they are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from pinn_ntk.errors import ArgumentError
from pinn_ntk.graph.terms.term import Term


class Strangers:
    """Which residuals no term of a loss belongs to, known when the step with all losses is over.

    Where losses of a step are several, not all need be looked at: there a key that was logged is
    known as well.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A batch starts."""
        self._given: dict[str, None] = {}
        self.known: dict[str, None] = {}
        self._follows = self._without = ""

    def meet(self, given: Iterable[str], known: Iterable[str]) -> None:
        """What a function gives, and the terms that were found in one loss."""
        self._given |= dict.fromkeys(given)
        self.known |= dict.fromkeys(known)

    def matter(self, follows: str, without: str = "") -> None:
        """What ``follows`` for residuals without a term, and for terms ``without`` a residual."""
        self._follows, self._without = self._follows or follows, self._without or without

    def said(self, route: str, logged: Iterable[str]) -> str:
        """Which of either there are, in words; empty if there are none."""
        names = [n for n in self._given if n not in self.known and n not in logged]
        missing = [n for n in self.known if n not in self._given]
        if not names and missing and self._without:
            return f"{route} gives no residuals for {missing} of the loss; {self._without}"
        if not names or not self._follows:
            return ""
        return (
            f"{route} gives {names}, but no terms of these names are found in the loss, only "
            f"{list(self.known)}; {self._follows}. Return the names under which the terms are "
            "logged, or mark the residuals with pinn_ntk.tap."
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
