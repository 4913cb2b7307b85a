"""The largest stable step of plain gradient descent, beside the step size in use."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.analysis.wording import number
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.looks.look import Look


class StepSize(Diagnostic):
    """2 / lambda_max of D^(1/2) K D^(1/2), with the weights of a balancer if there is one.

    It holds for plain gradient descent on a sum of weighted squares, and is left out for others.
    Where groups of parameters have learning rates of their own, K is J diag(lr) J^T over the
    largest, which the bound is one of. A residual that is exactly zero is left out: what it would
    do elsewhere is unknown, and that of u - u.detach() moves nothing. Targets that the network
    makes and that are detached (temporal differences) are taken for constants.
    """

    name = "step_size"
    title = "the largest stable learning rate"
    tags = (
        Tag(
            "max_stable_lr",
            "step size from which gradient descent is unstable",
            "theta^2 / loss",
            chart="learning rate",
            advice=(
                "Compare it with ntk/lr under SGD; Adam follows another rule. With groups it is "
                "the largest of their rates, their ratios kept."
            ),
        ),
    )

    def read(self, look: Look) -> Reading | None:
        """The bound, an estimate where blocks are of some rows only."""
        known = look.descending or {}
        if not look.kernel.terms or not set(look.kernel.terms) <= known.keys():
            return None
        zero = [term for term in look.kernel.terms if not bool(known[term].count_nonzero())]
        if len(zero) == len(known):
            return None
        bound = max_stable_lr(look.descent, look.kernel, known, look.rows_kept)
        facts = {"bound": bound, "zero": zero, "groups": bool(look.group_scales)}
        return Reading(look.step, finite({"max_stable_lr": bound}), facts=facts)

    def sentences(self, readings: Readings) -> Iterator[str]:
        facts = readings[self.name].facts
        bound = facts["bound"]
        lr = readings["learning_rate"].facts["lr"] if "learning_rate" in readings else None
        if not 0 < bound < math.inf:
            yield "Step size: no step is too long for this loss, whose kernel is zero."
            return
        said = f"Step size: plain gradient descent on this loss is unstable above {number(bound)}"
        if facts.get("zero"):
            said += f" (without {', '.join(facts['zero'])}, whose residual is exactly zero)"
        if lr is not None:
            times = _times(lr / bound)
            if facts.get("groups"):
                said += (
                    f", the largest learning rate of its groups, their ratios kept; those in use, "
                    f"up to {number(lr)}, are {times}"
                )
            else:
                said += f"; the learning rate in use, {number(lr)}, is {times}"
        yield f"{said}. Adam and others follow another rule."


def _times(ratio: float) -> str:
    times = number(ratio)
    return "just that" if times == "1" else f"{times} times that"
