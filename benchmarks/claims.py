"""A checker of claims: whether what a verdict says of a run is so, asked of the run itself.

It knows what was planted, and looks at module and optimizer after training; no number of the
verdict is taken for granted where it can be had another way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pinn_ntk import Cause, Verdict

FAILED = 0.2
"""Relative error of the solution from which a run is not clean."""

Check = Callable[[Verdict, nn.Module], bool]
"""Whether a verdict of one cause is so."""


def false_claims(verdict: Verdict, module: nn.Module, planted: str, error: float) -> list[str]:
    """Sentences of a verdict that are not so."""
    false = []
    if verdict.cause is Cause.CLEAN and planted not in {"CLEAN", "EARLY"} and not error <= FAILED:
        false.append(f"nothing wrong is seen, at an error of {error:.2g}")
    if verdict.accuses and planted in {"CLEAN", "EARLY"}:
        false.append(f"{verdict.title} in a run without a mistake")
    check = CHECKS.get(verdict.cause)
    if check is not None and not check(verdict, module):
        false.append(f"{verdict.title}: not so")
    if any(not math.isfinite(one.value) for one in verdict.evidence):
        false.append("evidence that is not a number")
    return false


def _held_by_none(verdict: Verdict, module: nn.Module) -> bool:
    """Parameters that are said to be held by no optimizer are held by none, or are frozen."""
    held = {id(p) for group in _groups(module) for p in group["params"]}
    named = dict(module.named_parameters())
    said = [name.partition(" and ")[0] for name in verdict.about.split(", ")]
    known = [named[name] for name in said if name in named]
    return all(id(p) not in held or not p.requires_grad for p in known)


def _lost(_: Verdict, module: nn.Module) -> bool:
    """What has diverged gives no finite numbers, or its loss gave none."""
    return not all(bool(p.isfinite().all()) for p in module.parameters()) or _any_nan(module)


def _any_nan(module: nn.Module) -> bool:
    trainer = getattr(module, "_trainer", None)
    metrics = {} if trainer is None else trainer.callback_metrics
    return any(not bool(torch.as_tensor(value).isfinite().all()) for value in metrics.values())


def _decays(verdict: Verdict, module: nn.Module) -> bool:
    """Where weight decay is named, some group decays; where chance is, something draws numbers."""
    if verdict.title != "weight decay":
        return True
    return any(group.get("weight_decay") for group in _groups(module))


def _groups(module: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups of all optimizers, in any of the shapes that Lightning takes."""
    made = module.configure_optimizers()  # type: ignore[operator]
    if isinstance(made, tuple) and made and isinstance(made[0], list):  # optimizers, schedulers
        made = made[0]
    each = made if isinstance(made, list | tuple) else [made]
    optimizers = [one["optimizer"] if isinstance(one, dict) else one for one in each]
    return [group for optimizer in optimizers for group in optimizer.param_groups]


CHECKS: dict[Cause, Check] = {
    Cause.NOT_TRAINED: _held_by_none,
    Cause.DIVERGED: _lost,
    Cause.RANDOM_OR_DECAY: _decays,
}
