"""Rows of each term that carry no rank of their own: broadcast, equal, or moved by no parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pinn_ntk.analysis.definiteness import EQUAL, Definiteness, definiteness
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings
from pinn_ntk.looks.look import Look


class Rank(Diagnostic):
    """Causes of lost rank of the block of each term; nothing is logged but sentences.

    Equal rows are looked for among all rows where blocks are of some only; of terms that were
    sampled, among those measured.
    """

    name = "rank"
    title = "the definiteness"

    def read(self, look: Look) -> Reading:
        """What each block has lost rank by, as far as that is known."""
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
        return Reading(look.step, facts={term: _facts(one) for term, one in found.items()})

    def sentences(self, readings: Readings) -> Iterator[str]:
        facts = readings[self.name].facts
        yield from (of_term["broadcast"] for of_term in facts.values() if of_term["broadcast"])
        still = [f"{of_term['still']} of {of_term['rows']} of {t}" for t, of_term in _still(facts)]
        if still:
            yield (
                f"Rows that no parameter of the kernel moves, of those looked at: "
                f"{', '.join(still)}. Right for a hard constraint; else a detach(), or a "
                "derivative that is zero, as the second of ReLU."
            )
        if equal := [f"{n} of {rows} of {term}" for term, n, rows in _equal(facts)]:
            yield (
                f"{EQUAL[0].upper()}{EQUAL[1:]} from an earlier one, to rounding, of those looked "
                f"at: {', '.join(equal)}."
            )


def _facts(found: Definiteness) -> dict[str, Any]:
    searched, different = found.searched or (found.rows, found.distinct)
    return {
        "broadcast": found.cause if found.broadcast else "",
        "still": found.still,
        "rows": found.rows,
        "searched": searched,
        "equal": searched - different,
    }


def _still(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((term, of_term) for term, of_term in facts.items() if of_term["still"])


def _equal(facts: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Terms of which rows are equal to others, and not for a broadcast that is said."""
    for term, of_term in facts.items():
        if of_term["equal"] and not of_term["broadcast"]:
            yield term, of_term["equal"], of_term["searched"]
