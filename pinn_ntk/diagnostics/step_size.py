"""The largest stable step of plain gradient descent, beside the step size in use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.analysis.wording import number
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.errors import UnavailableError
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.parameters import may_descend_plainly, used_names

COPIES = 24
"""Bytes that an entry of a parameter, its step and its gradient take."""

SAME = 0.01
"""Distance of a step from that of plain descent, relative to its size, that passes for none."""


class StepSize(Diagnostic):
    """2 / lambda_max of D^(1/2) K D^(1/2), with the weights of a balancer if there is one.

    It holds for plain gradient descent on a sum of weighted squares, and is left out for others.
    Where groups of parameters have learning rates of their own, K is J diag(lr) J^T over the
    largest, which the bound is one of. A residual that is exactly zero is left out: what it would
    do elsewhere is unknown, and that of u - u.detach() moves nothing. Targets that the network
    makes and that are detached (temporal differences) are taken for constants.

    The summary speaks of it only where the step that was taken is -lr dL/dtheta: not with momentum,
    weight decay, clipping or an optimizer of another rule.
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
                "For SGD without momentum or clipping: compare it with ntk/lr. Adam and others "
                "follow another rule. With groups it is the largest of their rates, their ratios "
                "kept."
            ),
        ),
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._facts: dict[str, Any] = {}  # of the last reading, which waits for its step
        self._expected: ExpectedStep | None = None
        self._blind = False

    def fit_starts(self, module: nn.Module, *, resumed: bool) -> None:
        self._blind = False

    def read(self, look: Look) -> Reading | None:
        """The bound, an estimate where blocks are of some rows only."""
        self.batch_ends()
        known = look.descending or {}
        if not look.kernel.terms or not set(look.kernel.terms) <= known.keys():
            return None
        zero = [term for term in look.kernel.terms if not bool(known[term].count_nonzero())]
        if len(zero) == len(known):
            return None
        bound = max_stable_lr(look.descent, look.kernel, known, look.rows_kept)
        self._facts = {"bound": bound, "zero": zero, "groups": bool(look.group_scales)}
        self._expected = None if self._blind else self._expect(look)
        return Reading(look.step, finite({"max_stable_lr": bound}), facts=self._facts)

    def _expect(self, look: Look) -> ExpectedStep | None:
        """Without the gradients of the terms there is a bound still, and nobody asks again."""
        try:
            return ExpectedStep.of(look)
        except UnavailableError:
            self._blind = True
            return None

    def stepped(self, _look: Look) -> None:
        """Note whether it was a step of plain descent, for which alone the bound says something."""
        if self._expected is not None and self._expected.was_taken():
            self._facts["lr"] = self._expected.lr

    def batch_ends(self) -> None:
        self._expected, self._facts = None, {}

    def fit_ends(self) -> None:
        self.batch_ends()

    def sentences(self, readings: Readings) -> Iterator[str]:
        facts = readings[self.name].facts
        bound, lr = facts["bound"], facts.get("lr")
        if lr is None or not 0 < bound < math.inf:
            return
        said = f"Step size: by the kernel, plain gradient descent is unstable above {number(bound)}"
        if facts.get("zero"):
            said += f" (without {', '.join(facts['zero'])}, whose residual is exactly zero)"
        times = _times(lr / bound)
        if facts.get("groups"):
            yield (
                f"{said}, the largest learning rate of its groups, their ratios kept; those in "
                f"use, up to {number(lr)}, are {times}."
            )
        else:
            yield f"{said}; the learning rate in use, {number(lr)}, is {times}."

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_expected": None, "_facts": {}}


@dataclass(frozen=True)
class ExpectedStep:
    """The step of plain gradient descent, to be held against the one that is taken."""

    params: Sequence[Tensor]
    before: Sequence[Tensor]
    step: Sequence[Tensor]  # -lr dL/dtheta of each
    lr: float  # the largest of the groups

    @classmethod
    def of(cls, look: Look) -> ExpectedStep | None:
        """That of a look; None where the optimizer has another rule, or not all is known."""
        lr, whole = look.learning_rate, look.losses.keys() == look.residuals.keys()
        if lr is None or not whole or not all(map(may_descend_plainly, look.optimizers)):
            return None
        if look.n_params * COPIES > look.bounds.held:
            return None
        gradient = torch.stack(list(look.gradients.values())).sum(0)
        parts = gradient.split([p.numel() for p in look.params.values()])
        by_name = dict(zip(look.params, parts, strict=True))
        names = [name for name in look.params if name in used_names(look.kernel)]
        rates = {name: lr * look.group_scales.get(name, 1.0) for name in names}
        params = [look.params[name].detach() for name in names]
        step = [-rates[name] * by_name[name] for name in names]
        return cls(params, [p.double().flatten().clone() for p in params], step, lr)

    def was_taken(self) -> bool:
        """Whether the parameters have moved by it, as far as their rounding lets that be seen."""
        size = off = rounding = 0.0
        for now, before, step in zip(self.params, self.before, self.step, strict=True):
            moved = now.double().flatten() - before
            size += float(step.square().sum())
            off += float((moved - step.to(moved)).square().sum())
            rounding += float(before.square().sum()) * torch.finfo(now.dtype).eps ** 2
        return size > 0 and off + rounding <= SAME**2 * size


def _times(ratio: float) -> str:
    times = number(ratio)
    return "just that" if times == "1" else f"{times} times that"
