"""Trace of each term's kernel, of all rows."""

from __future__ import annotations

import math

from pinn_ntk.diagnostics.base import Diagnostic, Reading, Tag, finite
from pinn_ntk.looks.look import Look


class Traces(Diagnostic):
    """Traces of all rows, no block is formed; with a standard error where rows were left out."""

    name = "traces"
    tags = (
        Tag(
            "trace/<term>",
            "trace of K_aa over all rows: its learning rate in sum",
            "(r / theta)^2",
            chart="trace of each block",
            advice=(
                "Grows with the number of rows: compare terms by trace over rows, times the "
                "effective weight. It does not say which term is solved."
            ),
        ),
        Tag(
            "trace_error/<term>",
            "its standard error, where rows were left out",
            "(r / theta)^2",
            advice="Of terms that take a backward pass a row; `max_rows` bounds these.",
        ),
    )

    def read(self, look: Look) -> Reading:
        """Traces, NaN for terms without a kernel."""
        undefined = {f"trace/{term}": math.nan for term in look.undefined}
        values = finite({f"trace/{term}": trace for term, trace in look.traces.items()})
        errors = {term: look.kernel.trace_error(term) for term in look.left_out}
        values |= finite({f"trace_error/{term}": error for term, error in errors.items()})
        facts = {"traces": dict(look.traces), "errors": errors}
        return Reading(look.step, values | undefined, facts=facts)
