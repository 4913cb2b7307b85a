"""Arguments of a user that fitted once: what does not fit later is the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pinn_ntk.errors import ArgumentError


class Arguments:
    """Names of the arguments that were right; only one that never was stops the fit."""

    def __init__(self) -> None:
        self._right: set[str] = set()

    def forget(self) -> None:
        """Another module is trained."""
        self._right.clear()

    @contextmanager
    def fitting(self, argument: str) -> Iterator[None]:
        """Make a ValueError of the ArgumentError of one that was right before."""
        try:
            yield
        except ArgumentError as error:
            if argument in self._right:
                raise ValueError(str(error)) from None
            raise
        self._right.add(argument)
