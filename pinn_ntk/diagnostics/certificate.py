"""Whether the kernel agrees with ordinary backward passes."""

from __future__ import annotations

from collections.abc import Iterator

from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.looks.look import Look


class Certificate(Diagnostic):
    """Largest error of the kernel of a step against a random probe, relative to its size."""

    name = "certificate"
    tags = (
        Tag(
            "certificate",
            "largest relative error against ordinary backward passes",
            advice="1e-6 in float32, 1e-12 in float64.",
        ),
    )

    def __init__(self, *, certify: bool = True) -> None:
        self.certify = certify

    def read(self, look: Look) -> Reading:
        """The error; nothing is logged where the kernel was not checked."""
        found = look.kernel.certificate if self.certify else {}  # another callback's may be there
        worst = max(found.values(), default=None)
        values = {} if worst is None else finite({"certificate": worst})
        return Reading(look.step, values, facts={"worst": worst})

    def sentences(self, readings: Readings) -> Iterator[str]:
        worst = readings[self.name].facts["worst"]
        if worst is None:
            yield "Certificate: the kernel was not checked against ordinary backward passes."
        else:
            agrees = f"to {worst:.0e}" if worst else "to the last bit"
            yield f"Certificate: the kernel agrees with ordinary backward passes {agrees}."
