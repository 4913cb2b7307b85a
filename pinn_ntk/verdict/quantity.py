"""Quantities of a case: computed when a rule first asks, and left out where they cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pinn_ntk.errors import UnavailableError

T = TypeVar("T")


class Measured:
    """What has quantities: values that are known, and reasons why others are not."""

    def __init__(self, known: dict[str, Any] | None = None) -> None:
        self.known: dict[str, Any] = dict(known or {})
        self.missing: dict[str, str] = {}  # title of a quantity -> why it could not be looked at

    def remembered(self, name: str) -> Any:
        """What an earlier measurement found; None where there is none."""


Lasting = Callable[[Any], bool]
"""Whether a value stays what it is for the rest of the training."""


class Quantity(Generic[T]):
    """An attribute that is computed once; ``default`` where that fails, with the reason kept.

    A value that lasts is taken from an earlier measurement.
    """

    def __init__(
        self,
        title: str,
        default: Callable[[], T],
        compute: Callable[[Any], T],
        lasts: Lasting | None = None,
    ) -> None:
        self.title, self.default, self.compute, self.lasts = title, default, compute, lasts
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, case: Any, owner: type | None = None) -> T:
        if case is None:
            return self  # type: ignore[return-value]
        if self.name not in case.known:
            try:
                case.known[self.name] = self._lasting(case) or self.compute(case)
            except Exception as error:  # noqa: BLE001 - a rule goes without it
                case.known[self.name] = self.default()
                case.missing[self.title] = reason(error)
        return case.known[self.name]  # type: ignore[no-any-return]

    def _lasting(self, case: Measured) -> Any:
        if self.lasts is None:
            return None
        before = case.remembered(self.name)
        return before if before and self.lasts(before) else None


def reason(error: BaseException) -> str:
    """An error in a few words."""
    cause = error.__cause__ if isinstance(error, UnavailableError) and error.__cause__ else error
    said = str(cause).partition("\n")[0].rstrip(". ")
    return said if isinstance(cause, CannotBeLookedAtError) else f"{type(cause).__name__}: {said}"


class CannotBeLookedAtError(ValueError):
    """What a quantity needs is not there."""


def quantity(
    title: str, default: Callable[[], Any], lasts: Lasting | None = None
) -> Callable[[Callable[[Any], T]], Quantity[T]]:
    """Make a method a quantity that is called so in messages."""
    return lambda compute: Quantity(title, default, compute, lasts)


def nothing() -> None:
    """The default of a quantity that is one number."""
