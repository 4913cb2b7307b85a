"""Spectrum of each term's kernel: its directions, and how fast each of them is learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pinn_ntk.analysis.wording import number
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
                "How many directions learn at all. Near 1 with hundreds of points: spectral "
                "bias, or points that say the same."
            ),
        ),
        Tag(
            "log10_condition/<term>",
            "log10 of lambda_max over the last above the noise",
            advice="The number of decades in time between the first and the last thing learned.",
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
        dtype = readings["step"].facts["dtype"]
        rank = readings["rank"].facts if "rank" in readings else {}
        for term, facts in readings[self.name].facts["terms"].items():
            yield _resolved(term, facts, dtype, rank.get(term, {}).get("equal", 0))

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


def _resolved(term: str, facts: Mapping[str, Any], dtype: str, equal: int) -> str:
    rank, size = facts["rank"], facts["rows"]
    if not rank:
        return f"{term}: the kernel is zero, so nothing of it is learned."
    carrying = number(facts["effective_rank"])
    said = (
        f"{term}: {carrying} {'direction carries' if carrying == '1' else 'directions carry'} the "
        f"kernel, {rank} of {size} {'stands' if rank == 1 else 'stand'} above the rounding noise"
    )
    if rank == size:
        return f"{said}."
    if rank >= size - equal:
        return f"{said}; the rest, {size - rank}, belong to rows that are equal to others."
    floor = number(facts["floor"])
    finer = "" if dtype == "float64" else "; a model in float64 resolves more"
    return (
        f"{said}; the rest, {size - rank}, is not resolved in {dtype}: eigenvalues there are at "
        f"most of the order of {floor}, and how slowly they are learned, if at all, is not known"
        f"{finer}."
    )
