"""From one measured step to a verdict: rules are asked in order, the first that speaks is it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pinn_ntk.looks.look import Look
from pinn_ntk.looks.rerun import Rerun
from pinn_ntk.verdict.case import Case
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.rules import balance, conflict, numbers, places, scales, solution, steps
from pinn_ntk.verdict.verdict import FACT, POSSIBLE, Evidence, Verdict

Rule = Callable[[Case], Verdict | None]

ALWAYS: tuple[Rule, ...] = (numbers.diverged, numbers.detached, numbers.wrapped, numbers.lost)
"""Asked whatever is solved."""

SOLVED: tuple[Rule, ...] = (
    numbers.kinks,
    scales.repeated_points,
    solution.swallowed,
    scales.nothing_to_find,
    places.points,
    places.too_few_data,
    places.handful,
    places.not_unique,
    places.unconditioned,
    places.without_rate,
    conflict.clash,
    balance.long_time,
    steps.on_its_way,
    solution.fine,
    places.short,
    solution.clean,
)
"""Asked where all terms are solved: nothing else is wrong then."""

UNSOLVED: tuple[Rule, ...] = (
    numbers.broadcast,
    steps.random,
    numbers.kinks,
    numbers.not_trained,
    numbers.kernel_is_zero,
    scales.repeated_points,
    scales.nothing_to_find,
    steps.begun,
    numbers.frozen,
    scales.inputs_not_scaled,
    scales.saturated,
    steps.thrown,
    places.between,
    scales.outputs_not_scaled,
    steps.decay,
    solution.rounding,
    numbers.cut_off,
    steps.step_too_short,
    steps.stopped,
    steps.unstable,
    steps.jumps,
    steps.just_grown,
    places.never_unique,
    steps.early,
    places.points,
    solution.too_narrow,
    solution.few_parameters,
    conflict.torn,
    conflict.clash,
    balance.causality,
    conflict.contradiction,
    conflict.incompatible,
    balance.left_out,
    balance.imbalance,
    balance.outweighed,
    balance.long_time,
    places.handful,
    solution.spectral_bias,
    places.not_unique,
    places.unconditioned,
    places.without_rate,
    solution.fine,
    steps.going,
    solution.rounded_before,
)
"""Asked in this order where a term is not solved: facts before likelihoods."""

FURTHER: tuple[Rule, ...] = (
    numbers.broadcast,
    numbers.kinks,
    numbers.not_trained,
    numbers.frozen,
    scales.repeated_points,
    scales.inputs_not_scaled,
    scales.saturated,
)
"""Asked besides, for what else was seen."""


def diagnose(
    look: Look,
    *,
    residuals: Callable[[Any, Any], Mapping[str, Tensor]] | None = None,
    points: Any = None,
    previous: Sequence[Verdict] = (),
) -> Verdict:
    """Why the training that a look is of does not go on, or that nothing wrong is seen.

    The rules of docs/verdict.md are asked in order, facts before likelihoods, and the first that
    reaches its threshold gives the verdict. No rule is asked for what is wrong where every term is
    solved: its residual is below a tenth of what u = 0 leaves, or of its own largest part.
    With nothing but a look, what takes a second run of the residuals is left out, and so is what
    takes earlier steps; the verdict says what was not looked at.

    Args:
        look: The step, before its backward pass. ``pinn_ntk.look(..., progress=...)`` gives it what
            is known of the steps before.
        residuals: Function of a model and of points that gives ``{name: live residual}``, named as
            in the look. It is called with copies of both: at u = 0, at other points, in float64,
            with other parameters; the model of the look stays as it is.
        points: What the function takes: a tensor, or tensors in a dict or list.
        previous: Verdicts of earlier steps, oldest first.

    Returns:
        The verdict. ``print`` gives it in at most five lines.

    Example:
        >>> import torch
        >>> from pinn_ntk import look
        >>> _ = torch.manual_seed(0)
        >>> x = torch.linspace(0, 1, 20)[:, None]
        >>> net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
        >>> optimizer = torch.optim.Adam(net[2].parameters(), lr=1e-2)
        >>> loss = (net(x) - torch.sin(6 * x)).square().mean()
        >>> verdict = diagnose(look(loss, net, names=["data"], optimizer=optimizer))
        >>> verdict.cause.name, verdict.confidence, verdict.about
        ('NOT_TRAINED', 'fact', '0.weight, 0.bias')
    """
    if residuals is not None and isinstance(look.module, nn.Module):
        look = replace(look, rerun=Rerun(look.module, points, residuals))
    case = Case(look, [verdict.findings for verdict in previous])
    found = judge(case)
    return recalled(found, previous, case) if found.cause is Cause.UNKNOWN else found


AT_STEP = "seen at step"
"""The first evidence of what was seen earlier."""


def recalled(found: Verdict, previous: Sequence[Verdict], case: Case) -> Verdict:
    """What was last said to be wrong, of a term that is not solved since, where nothing else is.

    Not what a measurement says for certain or not at all, such as points that repeat.
    """
    last = next((v for v in reversed(previous) if v.cause is not Cause.UNKNOWN), None)
    if last is None or last.cause not in SLOWLY or last.about not in case.unsolved:
        return found
    earlier = tuple(one for one in last.evidence if one.quantity != AT_STEP)
    first = next((one for one in last.evidence if one.quantity == AT_STEP), None)
    seen = (first or Evidence(AT_STEP, last.step, "no longer"), *earlier[:2])
    return replace(found, cause=last.cause, about=last.about, evidence=seen, remedy=last.remedy,
                   title=last.title, confidence=POSSIBLE)  # fmt: skip


SLOWLY = {
    Cause.IMBALANCE,
    Cause.CAUSALITY,
    Cause.CONTRADICTION,
    Cause.SPECTRAL_BIAS,
}
"""Causes that do not go while a term stays unsolved."""


@torch.enable_grad()
def judge(case: Case) -> Verdict:
    """The first rule that speaks, with what else was seen and what was not looked at."""
    rules = [*ALWAYS, *(SOLVED if case.solved else UNSOLVED)]
    verdict = next((v for v in (asked(rule, case) for rule in rules) if v is not None), None)
    verdict = verdict or solution.unknown(case)
    also: list[str] = []
    if verdict.accuses and not case.solved:
        others = [asked(rule, case) for rule in FURTHER]
        also = [
            o.sentence for o in others if o and o.confidence == FACT and o.cause != verdict.cause
        ]
    return replace(
        verdict,
        also=tuple(also[:2]),
        not_looked_at=() if verdict.confidence == FACT else _not_looked_at(case),
        step=case.step,
        findings=case.findings(),
    )


def asked(rule: Rule, case: Case) -> Verdict | None:
    """What a rule says; one that fails says nothing, and that is noted."""
    try:
        return rule(case)
    except Exception as error:  # noqa: BLE001 - the others are asked all the same
        case.missing[rule.__name__.replace("_", " ")] = f"{type(error).__name__}: {error}"
        return None


def _not_looked_at(case: Case) -> tuple[str, ...]:
    """What could not be had, grouped by the reason."""
    reasons: dict[str, list[str]] = {}
    for title, reason in case.missing.items():
        reasons.setdefault(reason, []).append(title)
    return tuple(f"{', '.join(titles)} ({reason})" for reason, titles in reasons.items())
