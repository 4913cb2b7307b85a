"""The largest stable step of plain gradient descent, beside the step size in use."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.looks.look import Look


class StepSize(Diagnostic):
    """2 / lambda_max of D^(1/2) K D^(1/2), with the weights of a balancer if there is one.

    It holds for plain gradient descent on a sum of weighted squares, and is left out for others.
    """

    name = "step_size"
    title = "the largest stable learning rate"
    tags = (
        Tag(
            "max_stable_lr",
            "step size from which gradient descent is unstable",
            "theta^2 / loss",
            chart="learning rate",
            advice="Compare it with the rate in use under SGD; Adam follows another rule.",
        ),
    )

    def read(self, look: Look) -> Reading | None:
        """The bound, an estimate where blocks are of some rows only."""
        known = look.curvature or {}
        if not look.kernel.terms or not set(look.kernel.terms) <= known.keys():
            return None
        bound = max_stable_lr(look.sampled, look.kernel, known, look.rows_kept)
        return Reading(look.step, finite({"max_stable_lr": bound}), facts={"bound": bound})

    def sentences(self, readings: Readings) -> Iterator[str]:
        bound = readings[self.name].facts["bound"]
        lr = readings["learning_rate"].facts["lr"] if "learning_rate" in readings else None
        said = f"Step size: plain gradient descent on this loss is unstable above {bound:.2g}"
        if lr is not None and 0 < bound < math.inf:
            said += f"; the learning rate in use, {lr:.2g}, is {lr / bound:.2g} times that"
        yield f"{said}. Adam and others follow another rule."
