"""Whether a step for one term helps the others or undoes a part of theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pinn_ntk.analysis.interference import Interference, interference_figure, interference_of
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.looks.look import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGGED = 1000
"""Pairs of terms, 45 terms, above which the figure alone tells of them."""

DOUBLE = 8  # bytes of a number


class TermInterference(Diagnostic):
    """Cosines of the gradients of the terms whose place in the loss is known, weights in force.

    Of more than 45 terms the figure alone tells of them.
    """

    name = "interference"
    tags = (
        Tag(
            "interference/<a>/<b>",
            "cosine of the gradients of two terms, weights in force",
            chart="interference",
            advice=(
                "Below 0: a step for one term undoes a part of the other's, as at every minimum of "
                "their sum."
            ),
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
            return Reading(look.step, facts={"too_large": len(look.losses) * look.n_params})
        measured = interference_of(look.gradients)
        measured = Interference(measured.terms, measured.matrix.cpu())
        self._panels[1:] = [(look.total_step, measured)]
        pairs, matrix = combinations(range(len(measured.terms)), 2), measured.cosine.tolist()
        cosines = [(measured.terms[i], measured.terms[j], matrix[i][j]) for i, j in pairs]
        logged = cosines if len(cosines) <= LOGGED else []
        values = finite({f"interference/{a}/{b}": cosine for a, b, cosine in logged})
        return Reading(look.step, values)

    def sentences(self, readings: Readings) -> Iterator[str]:
        facts = readings[self.name].facts
        if "too_large" in facts:
            yield (
                f"Interference: left out; the gradients of all terms, {facts['too_large']:.1e} "
                "numbers, take more than half of memory_budget."
            )

    def figure(self) -> tuple[str, Figure] | None:
        panels = {f"step {step}": measured for step, measured in self._panels}
        return ("interference", interference_figure(panels)) if panels else None

    def state_dict(self) -> dict[str, Any]:
        plain = [[step, list(one.terms), one.matrix.cpu()] for step, one in self._panels]
        return {"panels": plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        panels = state.get("panels", [])
        self._panels = [(step, Interference(tuple(terms), m)) for step, terms, m in panels]
