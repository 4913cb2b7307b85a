"""Points given twice, looked for in all rows, where spectra are of some rows only."""

from __future__ import annotations

from collections.abc import Iterator

from pinn_ntk.analysis.definiteness import EQUAL
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings
from pinn_ntk.looks.look import Look

CLOSE = 0.02
"""Share of rows up to which those alike may be of points too close for a coarser dtype."""


class RepeatedPoints(Diagnostic):
    """Rows that cannot be told from another one; nothing is logged but sentences."""

    name = "repeated_points"
    title = "the count of repeated points"

    def read(self, look: Look) -> Reading:
        """Term -> rows that repeat an earlier one, of terms whose block is of some rows."""
        repeated = {term: look.kernel.rows(term) - n for term, n in look.distinct.items()}
        return Reading(look.step, facts={"repeated": repeated})

    def sentences(self, readings: Readings) -> Iterator[str]:
        step, rank = readings["step"].facts, readings.get("rank")
        close = 0.0 if step["dtype"] == "float64" else CLOSE
        for term, repeated in readings[self.name].facts["repeated"].items():
            rows = step["rows"][term]
            said = rank is not None and rank.facts.get(term, {}).get("repeats_said", False)
            if repeated > close * rows and not said:
                yield (
                    f"{term}: {rows} rows of which {rows - repeated} "
                    f"{'is' if rows - repeated == 1 else 'are'} different (looked for in all "
                    f"rows): {EQUAL}."
                )
