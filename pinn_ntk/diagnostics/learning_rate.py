"""The learning rate in use."""

from __future__ import annotations

from pinn_ntk.diagnostics.base import Diagnostic, Reading, Tag, finite
from pinn_ntk.looks.look import Look


class LearningRate(Diagnostic):
    """That of the optimizer which trains what the residuals depend on."""

    name = "learning_rate"
    tags = (
        Tag(
            "lr",
            "learning rate of the step, the largest of its groups",
            "as it is set",
            chart="learning rate",
        ),
    )

    def read(self, look: Look) -> Reading | None:
        """The rate; nothing where several optimizers train them, or none has one."""
        lr = look.learning_rate
        if lr is None:
            return None
        facts = {"lr": lr, "groups": bool(look.group_scales)}
        return Reading(look.step, finite({"lr": lr}), facts=facts)
