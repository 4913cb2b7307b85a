"""Whether terms help each other or undo each other's steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pinn_ntk.analysis.interference import Interference, interference_figure, interference_of
from pinn_ntk.analysis.wording import cosine as in_words
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.looks.look import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGGED = 1000
"""Pairs of terms, 45 terms, above which the summary alone tells of them."""

DOUBLE = 8  # bytes of a number

AGAINST = -0.1
"""Cosine below which two terms are said to work against each other."""


class TermInterference(Diagnostic):
    """Cosines of the gradients of the terms whose place in the loss is known, weights in force.

    Of more than 45 terms the summary alone tells of them.
    """

    name = "interference"
    tags = (
        Tag(
            "interference/<a>/<b>",
            "cosine of the gradients of two terms, weights in force",
            chart="interference",
            advice="Below 0: a step for one term undoes a part of the other's.",
        ),
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._panels: list[tuple[int, Interference]] = []  # the first and the last

    def read(self, look: Look) -> Reading | None:
        """Cosines of all pairs; nothing for fewer than two terms."""
        if not look.kernel.terms or len(look.losses) < 2:
            return None
        if len(look.losses) * look.n_params * DOUBLE > look.bounds.held:
            facts = {"cosines": [], "decay": {}, "too_large": len(look.losses) * look.n_params}
            return Reading(look.step, facts=facts)
        measured = interference_of(look.gradients)
        measured = Interference(measured.terms, measured.matrix.cpu())
        self._panels[1:] = [(look.total_step, measured)]
        pairs, matrix = combinations(range(len(measured.terms)), 2), measured.cosine.tolist()
        cosines = [(measured.terms[i], measured.terms[j], matrix[i][j]) for i, j in pairs]
        logged = cosines if len(cosines) <= LOGGED else []
        values = finite({f"interference/{a}/{b}": cosine for a, b, cosine in logged})
        facts = {"cosines": [list(pair) for pair in cosines], "decay": measured.decay}
        return Reading(look.step, values, facts=facts)

    def sentences(self, readings: Readings) -> Iterator[str]:
        facts = readings[self.name].facts
        known = {(a, b): cosine for a, b, cosine in facts["cosines"] if math.isfinite(cosine)}
        if "too_large" in facts:
            yield (
                f"Interference: left out; the gradients of all terms, {facts['too_large']:.1e} "
                "numbers, take more than half of memory_budget."
            )
        if known:
            yield _said(known, facts["decay"])

    def figure(self) -> tuple[str, Figure] | None:
        panels = {f"step {step}": measured for step, measured in self._panels}
        return ("interference", interference_figure(panels)) if panels else None

    def state_dict(self) -> dict[str, Any]:
        plain = [[step, list(one.terms), one.matrix.cpu()] for step, one in self._panels]
        return {"panels": plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        panels = state.get("panels", [])
        self._panels = [(step, Interference(tuple(terms), m)) for step, terms, m in panels]


def _said(known: Mapping[tuple[str, str], float], decay: Mapping[str, float]) -> str:
    against = [
        f"{a} and {b} work against each other (cosine {in_words(cosine)})"
        for (a, b), cosine in sorted(known.items(), key=lambda item: item[1])
        if cosine < AGAINST
    ]
    if not against:
        (a, b), least = min(known.items(), key=lambda item: item[1])
        said = "no term undoes" if least >= 0 else "terms hardly undo"
        other = "another's" if least >= 0 else "each other's"
        return f"Interference: {said} {other} steps (least cosine {in_words(least)}, {a}, {b})."
    rising = [term for term, rate in decay.items() if rate < 0]
    said = f"Interference: {', '.join(against)}: a step for one undoes a part of the other's."
    if rising:
        loss, rises = ("losses", "rise") if rising[1:] else ("loss", "rises")
        said += f" The {loss} of {', '.join(rising)} {rises} while the sum falls."
    return said
