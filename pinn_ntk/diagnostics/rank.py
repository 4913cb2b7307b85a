"""Rank of each term's kernel: whether its loss must fall, and why rank is lost."""

from __future__ import annotations

from collections.abc import Iterator

from pinn_ntk.analysis.definiteness import Definiteness, definiteness
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings
from pinn_ntk.looks.look import Look


class Rank(Diagnostic):
    """Definiteness of the block of each term; nothing is logged but sentences."""

    name = "rank"
    title = "the definiteness"

    def read(self, look: Look) -> Reading:
        """Whether each block has full rank, and the causes that are known if not."""
        found = {
            term: definiteness(
                look.sampled,
                term,
                None if term in look.left_out else look.residuals.get(term),
                spectrum=look.spectra[term],
                whole=look.kernel,
                distinct=look.distinct,
            )
            for term in look.sampled.terms
        }
        facts = {term: _facts(one) for term, one in found.items()}
        for term in look.left_out:
            facts[term]["must_decrease"] = False  # of rows that were not measured nothing is known
        return Reading(look.step, facts=facts)

    def sentences(self, readings: Readings) -> Iterator[str]:
        for term, facts in readings[self.name].facts.items():
            cause = facts["cause"]
            if facts["must_decrease"]:
                yield facts["statement"]
            elif cause:
                yield f"{term}: {cause[0].lower()}{cause[1:]}"


def _facts(found: Definiteness) -> dict[str, object]:
    return {
        "must_decrease": found.must_decrease,
        "statement": found.statement,
        "cause": found.cause,
        "equal": found.rows - found.distinct,
        "repeats_said": bool(found.broadcast or found.searched),
    }
