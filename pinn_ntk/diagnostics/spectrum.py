"""Spectrum of each term's kernel: its directions, and how fast each of them is learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.diagnostics.figures import history_figure
from pinn_ntk.kernel.spectrum import Spectrum
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.step_terms import BATCH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACTS = ("rank", "floor", "lambda_max", "effective_rank", "condition")
"""What table and sentences say of each spectrum, besides its rows."""


class Spectra(Diagnostic):
    """Eigenvalues of the block of each term, of the rows kept."""

    name = "spectrum"
    title = "the spectra"
    tags = (
        Tag(
            "lambda_max/<term>",
            "largest eigenvalue of K_aa: the fastest rate",
            "(r / theta)^2",
            advice="Close to the trace: one direction carries all.",
        ),
        Tag(
            "effective_rank/<term>",
            "directions that carry K_aa, Tr^2 / Frobenius^2",
            advice=(
                "Near 1: one direction carries nearly all of K_aa, however many points there are."
            ),
        ),
        Tag(
            "log10_condition/<term>",
            "log10 of lambda_max over the last above the noise",
            advice=(
                "Under gradient flow: decades in time between the first and the last thing learned."
            ),
        ),
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.spectra: dict[str, list[tuple[int, Spectrum]]] = {}  # of all fits
        self._points = BATCH

    def read(self, look: Look) -> Reading:
        """Scalars of each spectrum, and the spectrum itself."""
        self._points = look.points
        values: dict[str, float] = {}
        tensors: dict[str, Tensor] = {}
        facts: dict[str, Any] = {}
        terms: dict[str, dict[str, float]] = {}
        for term, spectrum in look.spectra.items():
            values[f"lambda_max/{term}"] = spectrum.lambda_max
            values[f"effective_rank/{term}"] = spectrum.effective_rank
            values[f"log10_condition/{term}"] = math.log10(spectrum.condition)
            tensors[f"spectrum/{term}"] = spectrum.eigenvalues
            facts[f"spectrum/{term}"] = {
                "rel_floor": spectrum.floor / (spectrum.lambda_max or 1.0),
                "block": term,
                "n_points": len(spectrum.eigenvalues),
                "n_params": look.n_params,
                "dtype": look.finite.dtype,
            }
            known = {name: getattr(spectrum, name) for name in FACTS}
            terms[term] = {"rows": len(spectrum.eigenvalues), **known}
        for term, spectrum in look.spectra.items():
            self.spectra.setdefault(term, []).append((look.total_step, spectrum))
        return Reading(look.step, finite(values), tensors, {**facts, "terms": terms})

    def sentences(self, readings: Readings) -> Iterator[str]:
        terms = readings[self.name].facts["terms"]
        above = {term: (facts["rank"], facts["rows"]) for term, facts in terms.items()}
        lost = [f"{term} {rank} of {rows}" for term, (rank, rows) in above.items() if rank < rows]
        if lost:
            yield (
                f"Rank: eigenvalues above the rounding noise: {', '.join(lost)}; condition is that "
                "of these alone."
            )

    def figure(self) -> tuple[str, Figure] | None:
        if not self.spectra:
            return None
        return "history", history_figure(self.spectra, points=self._points)

    def state_dict(self) -> dict[str, Any]:
        plain = {
            term: [(step, spectrum.eigenvalues, spectrum.floor) for step, spectrum in series]
            for term, series in self.spectra.items()
        }
        return {"spectra": plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.spectra = {
            term: [(step, Spectrum(values, floor)) for step, values, floor in series]
            for term, series in state.get("spectra", {}).items()
        }
