"""Quantities that several readers share: computed once, and so is their failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pinn_ntk.errors import UnavailableError
from pinn_ntk.graph.subclasses import plain_functions

T = TypeVar("T")


class Shared(Generic[T]):
    """An attribute of a `Look` that is computed when it is first asked for."""

    def __init__(self, title: str, compute: Callable[[Any], T]) -> None:
        self.title, self.compute = title, compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, look: Any, owner: type | None = None) -> T:
        if look is None:
            return self  # type: ignore[return-value]
        if self.name not in look.kept:
            try:
                with plain_functions():
                    look.kept[self.name] = self.compute(look), None
            except Exception as failure:  # noqa: BLE001 - raised to each who asks
                look.kept[self.name] = None, failure
        value, error = look.kept[self.name]
        if isinstance(error, UnavailableError):
            raise UnavailableError(error.title) from error.__cause__
        if error is not None:
            raise UnavailableError(self.title) from error
        return value  # type: ignore[no-any-return]


def shared(title: str) -> Callable[[Callable[[Any], T]], Shared[T]]:
    """Make a method of a `Look` a quantity that is called so in messages."""
    return lambda compute: Shared(title, compute)
