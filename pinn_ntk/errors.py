"""Warnings and errors of the package, one class a cause, so that each can be filtered alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class NTKWarning(UserWarning):
    """Something the kernel engine did that costs time or accuracy, said once a cause."""


class ArgumentError(ValueError):
    """An argument that cannot be right, as it turns out in a fit; it ends the fit."""


class ResidualError(ValueError):
    """A residual that has no kernel: no rows, no graph, NaN or inf, or an unusable dtype."""


class OpaqueLossError(ValueError):
    """A path from the loss into the network meets no squared (or other known) residual."""


class IncompleteTermsError(ValueError):
    """The terms found do not add up to the gradient of the loss."""


class GradientError(IncompleteTermsError):
    """The gradient of a term is NaN or inf, though the loss is finite."""


OF_THE_STEP = (ResidualError, OpaqueLossError, IncompleteTermsError)
"""What is wrong with one loss or its residuals, at one step; the next may do."""


class UnavailableError(RuntimeError):
    """A shared quantity failed, now or when somebody else asked for it; the cause is attached.

    Its ``title`` is the quantity in words, such as "the kernel".
    """

    def __init__(self, title: str) -> None:
        super().__init__(f"{title} is not available")
        self.title = title


_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


def warn(message: str, stacklevel: int = 1) -> None:
    """Give an `NTKWarning`, or tell whoever listens, who knows how often it was said."""
    tell = _listener.get()
    if tell is None:
        warnings.warn(message, NTKWarning, stacklevel=stacklevel + 1)
    else:
        tell(message)


@contextmanager
def heard_by(listener: Callable[[str], None]) -> Iterator[None]:
    """Within, and in this thread, warnings of this package go to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
