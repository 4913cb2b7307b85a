"""Looks at residuals A theta, whose Jacobian is A, and readings whose facts are made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pinn_ntk import NTK, Look, Spectrum
from pinn_ntk.diagnostics import Panel, Reading
from pinn_ntk.diagnostics.registry import chosen
from pinn_ntk.diagnostics.summary import summary
from pinn_ntk.looks.step_terms import BATCH, StepTerms


def rows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator, dtype=torch.float64)


def spectrum(*eigenvalues: float, floor: float = 1e-12) -> Spectrum:
    return Spectrum(torch.tensor(eigenvalues, dtype=torch.float64), floor)


def look_at(
    matrices: Mapping[str, Tensor],
    step: int = 0,
    *,
    points: str = BATCH,
    kept: Mapping[str, Tensor] | None = None,
    known: Mapping[str, Any] | None = None,
    **options: Any,
) -> Look:
    """A look at A theta, theta = 1, of the rows ``kept``; what is ``known`` is not computed."""
    columns = next(iter(matrices.values())).shape[1]
    theta = torch.ones(columns, dtype=torch.float64, requires_grad=True)
    found = StepTerms({name: A @ theta for name, A in matrices.items()}, {}, points, kept)
    quantities = {name: (value, None) for name, value in (known or {}).items()}
    params = {"theta": theta}
    return Look(step, found, params, params, kept=quantities, **options)


def linear(**matrices: Tensor) -> tuple[NTK, Tensor]:
    """Kernel of residuals A theta, and theta."""
    look = look_at(matrices)
    return look.kernel, look.params["theta"]


def ask(look: Look, *names: str) -> Panel:
    """Some diagnostics, all of them by default, that have read a look."""
    panel = Panel(chosen(names or None))
    panel.read(look)
    return panel


def values(panel: Panel) -> dict[str, float]:
    return {tag: x for reading in panel.readings.values() for tag, x in reading.values.items()}


def grouped(groups: dict[str, str]) -> Look:
    """r_pde = A theta + c x, r_bc = B theta; d r_pde / d c is x."""
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    c = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    params = {"theta": theta, "c": c, "lam": torch.ones(3, requires_grad=True)}
    residuals = {"pde": rows(3) @ theta + c * x, "bc": rows(2, seed=1) @ theta}
    return Look(0, StepTerms(residuals, {}), params, params, kept={"groups": (groups, None)})


def facts_of(s: Spectrum) -> dict[str, Any]:
    names = ("rank", "floor", "lambda_max", "effective_rank", "condition")
    return {"rows": len(s.eigenvalues), **{name: getattr(s, name) for name in names}}


def told(**changes: Mapping[str, Any] | None) -> dict[str, Reading]:
    """Readings of step 20: name of a diagnostic -> facts that differ; None is without them."""
    terms = {"pde": spectrum(100.0, 10.0, 1e-14), "bc": spectrum(2.0, 1.0)}
    start: dict[str, dict[str, Any]] = {
        "step": {
            "points": BATCH,
            "rows": {"pde": 3, "bc": 2},
            "undefined": [],
            "dtype": "float32",
            "max_points": 4,
        },
        "traces": {"traces": {"pde": 111.0, "bc": 3.0}, "errors": {}},
        "spectrum": {"terms": {term: facts_of(s) for term, s in terms.items()}},
        "drift": {
            "drift": {"pde": 0.2, "bc": 0.01, "kernel": 0.19, "parameters": 0.05},
            "moved_points": [],
        },
        "step_size": {"bound": 0.004, "lr": 0.001},
        "certificate": {"worst": 3e-8},
    }
    gone = {name for name, change in changes.items() if change is None}
    facts = {n: {**start.get(n, {}), **(changes.get(n) or {})} for n in {**start, **changes}}
    of_values = {n: facts[n] if n == "distance_to_limit" else {} for n in facts}
    return {n: Reading(20, of_values[n], facts=facts[n]) for n in facts if n not in gone}


def said(**changes: Mapping[str, Any] | None) -> str:
    """The summary of these readings."""
    return summary(told(**changes), chosen(), lambda _, part: part())


def says(text: str, sentence: str) -> bool:
    """Whether a text holds a sentence, or lacks one that "NOT " stands before."""
    return (sentence.removeprefix("NOT ") in text) != sentence.startswith("NOT ")
