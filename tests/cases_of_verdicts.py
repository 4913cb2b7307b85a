"""Cases whose quantities are made up: a training of two terms that is not solved, for no reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinn_ntk.verdict.case import Case

UNSOLVED: dict[str, Any] = {
    "rms": {"pde": 0.5, "bc": 0.4},
    "zero": {"pde": 1.0, "bc": 1.0},
    "rows": {"pde": 40, "bc": 2},
    "shapes": {"pde": [40, 1], "bc": [2, 1]},
    "undefined": [],
    "weights": {"pde": 1.0, "bc": 1.0},
    "rates": {"pde": 10.0, "bc": 1.0},
    "gradients": {"pde": 1.0, "bc": 1.0},
    "cancelling": 0.5,
    "modes": {"pde": (0.1, 0.5), "bc": (0.1, 0.5)},
    "accidents": {},
    "untrained": "",
    "optimizers": ["Adam"],
    "plain": False,
    "lr": 1e-3,
    "curvature_now": 100.0,
    "curvature_unbalanced": None,
    "steps": 2000,
    "reach": 1e3,
    "scheduled": 2.0,
    "course": {"fallen": 1.0, "falling": 0.01, "rising": 0.1, "jitter": 0.001},
    "not_finite": None,
    "decay": None,
    "balanced": False,
    "stays": True,
    "prints": {},
    "n_params": 2000,
    "inputs": {"largest": 1.0, "spread": 0.5, "offset": 0.0},
    "saturated": 0.1,
    "dead": None,
    "activations": ["TanhBackward0"],
    "unheld": [],
    "unheld_share": None,
    "idle": [],
    "frozen": [],
    "frozen_share": None,
    "frozen_network": False,
    "order": {"pde": 2, "bc": 0},
    "random": {"pde": 0.0, "bc": 0.0},
    "rounding": {"pde": 1e-6, "bc": 1e-6},
    "cut": {"pde": 1e-6, "bc": 1e-6},
    "kinks": {"pde": 1e-12},
    "parts": {},
    "forgotten": None,
    "repeated": {"pde": (40, 40), "bc": (2, 2)},
    "concentration": {"pde": {"share": 0.3, "early": 0.1}},
    "fresh": {"pde": 1.0},
    "outside": {},
    "n_points": 40,
    "free": {"u": 1e-6, "size": 1e-5, "k": 1e-4},
    "free_beside": {},
    "clash": None,
    "duration": {},
    "explained": {},
    "told": {},
    "error": 0.3,
    "off": {},
    "torn": {},
    "exact": {},
    "demand": {"pde": 0.5, "bc": 1.0},
    "leap": 0.02,
    "wrapped": 0,
    "moved": {},
    "unreached": None,
    "size": 1.0,
    "base": None,
    "constant": 0.0,
    "apart": {},
    "phase": {},
    "walled": {},
    "redrawn": {},
    "loose": False,
    "beginnings": False,
    "without_rate": [],
    "within": [],
    "short": {},
    "unit": 1.0,
    "ranges": {"pde": [(0.0, 1.0)]},
}

SOLVED = {"rms": {"pde": 0.01, "bc": 0.01}, "error": 0.01}
"""What is different where all is well."""


def case(*, previous: tuple[Mapping[str, Any], ...] = (), **known: Any) -> Case:
    """A case with these quantities, and for the rest those of `UNSOLVED`."""
    return Case(None, previous, {**UNSOLVED, **known})
