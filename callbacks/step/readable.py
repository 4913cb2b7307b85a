"""Losses that cannot be read: of several in one step, the others still are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.errors import IncompleteTermsError, OpaqueLossError

T = TypeVar("T")


def readable(guard: Guard, at: Backward, part: Callable[[], T]) -> T | None:
    """What a part reads of a loss; None, said once, where a step may have others to read."""
    try:
        return part()
    except (OpaqueLossError, IncompleteTermsError) as error:
        if at.module.automatic_optimization:
            raise
        message = f"a loss is left as it is, and others of the step are not: {error}"
        guard.warn_once("unreadable", message)
        return None
