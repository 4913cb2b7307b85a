"""Warnings and errors of the package, one class a cause, so that each can be filtered alone."""

from __future__ import annotations


class NTKWarning(UserWarning):
    """Something the kernel engine did that costs time or accuracy, said once a cause."""


class ResidualError(ValueError):
    """A residual that has no kernel: no rows, no graph, NaN or inf, or an unusable dtype."""


class OpaqueLossError(ValueError):
    """A path from the loss into the network meets no squared (or other known) residual."""


class IncompleteTermsError(ValueError):
    """The terms found do not add up to the gradient of the loss."""


OF_THE_STEP = (ResidualError, OpaqueLossError, IncompleteTermsError)
"""What is wrong with one loss or its residuals, at one step; the next may do."""


class UnavailableError(RuntimeError):
    """A shared quantity failed, now or when somebody else asked for it; the cause is attached.

    Its ``title`` is the quantity in words, such as "the kernel".
    """

    def __init__(self, title: str) -> None:
        super().__init__(f"{title} is not available")
        self.title = title
