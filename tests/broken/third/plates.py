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
    Run("third-beam-cubed-relu", "DERIVATIVE_VANISHES", "set", Beam, BEAM, {"act": CubedReLU}),
    Run("third-beam-supports", "IMBALANCE", "set", Beam, BEAM, {"w_bc": 1e-5}),
    Run("third-beam", "CLEAN", "set", Beam, {"steps": 700, "lr": 4e-3}),
    Run("third-membrane-flat", "BROADCAST", "set", Membrane, PLATE, {"flat": True}),
    Run("third-membrane-whole", "REPEATED_POINTS", "set", Membrane, PLATE, {"whole": True}),
    Run("third-membrane-bias", "SATURATED", "set", Membrane, PLATE, {"bias": 12.0}),
    Run("third-membrane-no-source", "NOTHING_TO_FIND", "set", Membrane, PLATE, {"source": False}),
    Run("third-membrane-step", "STEP_TOO_LARGE", "set", Membrane, PLATE, {"lr": 2.0}),
    Run("third-membrane", "CLEAN", "set", Membrane, {"steps": 500, "height": 0.5}),
    Run("third-membrane-early", "EARLY", "set", Membrane, {"steps": 60, "lr": 2e-3}),
    Run("third-line-difference", "ROUNDING", "set", Line, {**LINE, "h": 0.02}, {"h": 2e-5}),
    Run("third-line-waves", "SPECTRAL_BIAS", "set", Line,
        {**LINE, "k": 16, "react": 1.0, "fourier": 18}, {"fourier": 0}),
    Run("third-line-graph", "DETACHED", "set", Line, LINE, {"second_graph": False}),
    Run("third-line-dropout", "RANDOM_OR_DECAY", "set", Line, LINE, {"dropout": 0.4}),
    Run("third-line-few", "POINTS", "set", Line, {**LINE, "k": 3, "react": 1.0, "lr": 1e-2},
        {"points": 4}),
    Run("third-line-schedule", "STEP_TOO_SHORT", "set", Line, LINE, {"schedule": 0.9}),
    Run("third-neumann-level", "NOT_UNIQUE", "set", Line, NEUMANN, {"mean": False}),
    Run("third-neumann", "CLEAN", "set", Line, {**NEUMANN, "lr": 3e-3}),
    Run("third-samples-column", "BROADCAST", "set", Samples, DATA, {"column": False}),
    Run("third-samples-high", "SPECTRAL_BIAS", "set", Samples,
        {**DATA, "freq": 10.0, "count": 256, "fourier": True}, {"fourier": False}),
    Run("third-samples-dead", "SATURATED", "set", Samples, {**DATA, "act": nn.ReLU},
        {"bias": -6.0}),
    Run("third-samples-pressure", "ROUNDING", "set", Samples,
        {**DATA, "amplitude": 0.85}, {"offset": 2e7}),
    Run("third-samples-narrow", "TOO_NARROW", "set", Samples,
        {"steps": 1500, "freq": 3.0, "lr": 1e-2}, {"width": 2}),
    Run("third-samples-early", "EARLY", "set", Samples, {"steps": 60, "freq": 2.0, "lr": 1e-3}),
]  # fmt: skip
