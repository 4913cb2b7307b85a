"""Weights of the loss in force, whoever put them there."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pinn_ntk.analysis.wording import number
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.looks.look import Look


class WeightsInForce(Diagnostic):
    """Sum of the coefficients of each term in the loss, a balancer's weight included."""

    name = "weights"
    title = "the weights in force"
    tags = (
        Tag(
            "effective_weight/<term>",
            "weight in the loss in force: 1 for a plain mean",
            chart="weights in the loss",
            advice=(
                "Yours times the balancer's; N for a sum over N rows. Two sources of weights "
                "multiply: leave your own at 1 under a balancer."
            ),
        ),
    )

    def read(self, look: Look) -> Reading:
        """Weights of the terms whose place in the loss is known."""
        weights = look.effective_weights
        values = finite({f"effective_weight/{term}": w for term, w in weights.items()})
        return Reading(look.step, values, facts={"weights": dict(weights)})

    def sentences(self, readings: Readings) -> Iterator[str]:
        weights = finite(readings[self.name].facts["weights"])
        if not all(math.isclose(weight, 1.0, rel_tol=1e-5) for weight in weights.values()):
            listed = ", ".join(f"{term} {number(weight, 3)}" for term, weight in weights.items())
            yield f"Weights in force, where 1 is a plain mean over the rows: {listed}."
