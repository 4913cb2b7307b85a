"""The runs of the stationary problems."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.broken.run import Run
from tests.broken.third.stationary import Beam, CubedReLU, Line, Membrane, Samples

BEAM: dict[str, Any] = {"steps": 650}
PLATE: dict[str, Any] = {"steps": 500}
LINE: dict[str, Any] = {"steps": 800}
DATA: dict[str, Any] = {"steps": 1200}
NEUMANN: dict[str, Any] = {"steps": 700, "ends": "neumann"}

PLATES = [
    Run("third-beam-cubed-relu", "DERIVATIVE_VANISHES", "judge", Beam, BEAM, {"act": CubedReLU}),
    Run("third-beam-supports", "IMBALANCE", "judge", Beam, BEAM, {"w_bc": 1e-5}),
    Run("third-beam", "CLEAN", "judge", Beam, {"steps": 700, "lr": 4e-3}),
    Run("third-membrane-flat", "BROADCAST", "judge", Membrane, PLATE, {"flat": True}),
    Run("third-membrane-whole", "REPEATED_POINTS", "judge", Membrane, PLATE, {"whole": True}),
    Run("third-membrane-bias", "SATURATED", "judge", Membrane, PLATE, {"bias": 12.0}),
    Run("third-membrane-no-source", "NOTHING_TO_FIND", "judge", Membrane, PLATE, {"source": False}),
    Run("third-membrane-step", "STEP_TOO_LARGE", "judge", Membrane, PLATE, {"lr": 2.0}),
    Run("third-membrane", "CLEAN", "judge", Membrane, {"steps": 500, "height": 0.5}),
    Run("third-membrane-early", "EARLY", "judge", Membrane, {"steps": 60, "lr": 2e-3}),
    Run("third-line-difference", "ROUNDING", "judge", Line, {**LINE, "h": 0.02}, {"h": 2e-5}),
    Run("third-line-waves", "SPECTRAL_BIAS", "judge", Line,
        {**LINE, "k": 16, "react": 1.0, "fourier": 18}, {"fourier": 0}),
    Run("third-line-graph", "DETACHED", "judge", Line, LINE, {"second_graph": False}),
    Run("third-line-dropout", "RANDOM_OR_DECAY", "judge", Line, LINE, {"dropout": 0.4}),
    Run("third-line-few", "POINTS", "judge", Line, {**LINE, "k": 3, "react": 1.0, "lr": 1e-2},
        {"points": 4}),
    Run("third-line-schedule", "STEP_TOO_SHORT", "judge", Line, LINE, {"schedule": 0.9}),
    Run("third-neumann-level", "NOT_UNIQUE", "judge", Line, NEUMANN, {"mean": False}),
    Run("third-neumann", "CLEAN", "judge", Line, {**NEUMANN, "lr": 3e-3}),
    Run("third-samples-column", "BROADCAST", "judge", Samples, DATA, {"column": False}),
    Run("third-samples-high", "SPECTRAL_BIAS", "judge", Samples,
        {**DATA, "freq": 10.0, "count": 256, "fourier": True}, {"fourier": False}),
    Run("third-samples-dead", "SATURATED", "judge", Samples, {**DATA, "act": nn.ReLU},
        {"bias": -6.0}),
    Run("third-samples-pressure", "ROUNDING", "judge", Samples,
        {**DATA, "amplitude": 0.85}, {"offset": 2e7}),
    Run("third-samples-narrow", "TOO_NARROW", "judge", Samples,
        {"steps": 1500, "freq": 3.0, "lr": 1e-2}, {"width": 2}),
    Run("third-samples-early", "EARLY", "judge", Samples, {"steps": 60, "freq": 2.0, "lr": 1e-3}),
]  # fmt: skip
