"""From one measured step to a verdict: rules are asked in order, the first that speaks is it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from pinn_ntk.errors import UnavailableError
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.rerun import Rerun
from pinn_ntk.verdict.case import Case
from pinn_ntk.verdict.quantity import CannotBeLookedAtError
from pinn_ntk.verdict.rules import balance, numbers, scales, solution, steps
from pinn_ntk.verdict.verdict import FACT, Verdict

Rule = Callable[[Case], Verdict | None]

ALWAYS: tuple[Rule, ...] = (numbers.diverged, numbers.detached)
"""Asked whatever is solved."""

SOLVED: tuple[Rule, ...] = (
    numbers.derivative_vanishes,
    scales.repeated_points,
    scales.nothing_to_find,
    solution.points,
    solution.not_unique,
    solution.clean,
)
"""Asked where all terms are solved: nothing else is wrong then."""

UNSOLVED: tuple[Rule, ...] = (
    numbers.derivative_vanishes,
    scales.repeated_points,
    numbers.broadcast,
    numbers.derivative_vanishes,
    numbers.not_trained,
    scales.repeated_points,
    scales.inputs_not_scaled,
    scales.saturated,
    scales.nothing_to_find,
    scales.outputs_not_scaled,
    steps.begun,
    steps.random_or_decay,
    solution.rounding,
    numbers.cut_off,
    steps.step_too_short,
    steps.step_too_large,
    steps.early,
    solution.points,
    solution.too_narrow,
    balance.imbalance,
    balance.causality,
    balance.contradiction,
    solution.spectral_bias,
    solution.not_unique,
)
"""Asked in this order where a term is not solved: facts before likelihoods."""

FURTHER: tuple[Rule, ...] = UNSOLVED[:8]
"""Asked besides, for what else was seen."""


def diagnose(
    look: Look,
    *,
    residuals: Callable[[Any, Any], Mapping[str, Tensor]] | None = None,
    points: Any = None,
    previous: Sequence[Verdict] = (),
) -> Verdict:
    """Why the training that a look is of does not go on, or that nothing wrong is seen."""
    if residuals is not None and isinstance(look.module, nn.Module):
        look = replace(look, rerun=Rerun(look.module, points, residuals))
    return judge(Case(look, [verdict.findings for verdict in previous]))


def judge(case: Case) -> Verdict:
    """The first rule that speaks, with what else was seen and what was not looked at."""
    rules = [*ALWAYS, *(SOLVED if case.solved else UNSOLVED)]
    verdict = next((v for v in map(lambda rule: asked(rule, case), rules) if v is not None), None)
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
        not_looked_at=_not_looked_at(case),
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
