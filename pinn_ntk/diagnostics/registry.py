"""The diagnostics that there are, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pinn_ntk.diagnostics.base import Diagnostic
from pinn_ntk.diagnostics.certificate import Certificate
from pinn_ntk.diagnostics.distance_to_limit import DistanceFromLimit
from pinn_ntk.diagnostics.drift import KernelDrift
from pinn_ntk.diagnostics.groups import Groups
from pinn_ntk.diagnostics.interference import TermInterference
from pinn_ntk.diagnostics.learning_rate import LearningRate
from pinn_ntk.diagnostics.predicted_decrease import PredictedDecrease
from pinn_ntk.diagnostics.rank import Rank
from pinn_ntk.diagnostics.spectrum import Spectra
from pinn_ntk.diagnostics.step_size import StepSize
from pinn_ntk.diagnostics.traces import Traces
from pinn_ntk.diagnostics.verdict import Judgement
from pinn_ntk.diagnostics.weights_in_force import WeightsInForce

CLASSES: tuple[type[Diagnostic], ...] = (
    Spectra,  # forms the blocks, off which others read for nothing
    Traces,
    WeightsInForce,
    Rank,
    Groups,
    KernelDrift,
    DistanceFromLimit,
    StepSize,
    LearningRate,
    TermInterference,
    PredictedDecrease,
    Certificate,
    Judgement,  # of all that the others have computed
)
"""In the order in which they read a look."""

BY_NAME = {kind.name: kind for kind in CLASSES}


def chosen(
    given: Sequence[str | Diagnostic] | None = None,
    *,
    certify: bool = True,
    save_start: bool = True,
    limit: bool = True,
) -> list[Diagnostic]:
    """Diagnostics by name, or as they are given; all that there are where nothing is given."""
    if isinstance(given, str):
        raise TypeError(f"diagnostics is the string {given!r}; expected a list, as in [{given!r}].")
    if given is not None and not isinstance(given, Sequence):
        raise TypeError(f"diagnostics is {given!r}; expected a list of names and objects.")
    every = [name for name in BY_NAME if limit or name != DistanceFromLimit.name]
    options = {Certificate.name: {"certify": certify}, KernelDrift.name: {"save_start": save_start}}
    found = [_one(entry, options) for entry in (every if given is None else given)]
    names = [diagnostic.name for diagnostic in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"diagnostics has {twice} twice; give each of yours a name of its own.")
    order = {name: place for place, name in enumerate(BY_NAME)}
    return sorted(found, key=lambda diagnostic: order.get(diagnostic.name, len(order)))


def _one(entry: object, options: Mapping[str, dict[str, Any]]) -> Diagnostic:
    if isinstance(entry, str):
        if entry not in BY_NAME:
            raise ValueError(f"there is no diagnostic {entry!r}; there are {list(BY_NAME)}.")
        return BY_NAME[entry](**options.get(entry, {}))
    if not isinstance(entry, Diagnostic):
        raise TypeError(
            f"a diagnostic is {entry!r}; expected one of the names {list(BY_NAME)}, or an object "
            "of a subclass of pinn_ntk.diagnostics.Diagnostic (not the class itself)."
        )
    if not entry.name or entry.name == "step":
        raise ValueError(
            f"{type(entry).__name__}.name is {entry.name!r}; expected a name of its own, under "
            "which its state goes into checkpoints."
        )
    return entry
