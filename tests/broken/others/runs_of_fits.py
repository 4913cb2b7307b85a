"""Fits of curves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.broken.others import fits
from tests.broken.others.graded import case
from tests.broken.others.optimizers import adam, sgd
from tests.broken.run import Run


def wavy(x: Any) -> Any:
    return torch.sin(3 * x) + 0.5 * torch.cos(7 * x)


def ringing(x: Any) -> Any:
    return torch.sin(60 * x) * (1 + 0.3 * x)


def tones(x: Any) -> Any:
    return 0.5 * torch.sin(2 * x) + torch.sin(55 * x) - 0.5 * torch.cos(70 * x)


def barometer(h: Any) -> Any:
    """Deviation of the pressure from its mean over heights in metres."""
    return torch.exp(-h / 3000) - 0.5 + 0.3 * torch.sin(h / 900)


CURVE: dict[str, Any] = {"curve": wavy, "steps": 2000}

FITS: list[Run] = [
    case(
        "tones",
        "SPECTRAL_BIAS",
        fits.Curve,
        {"curve": tones, "octaves": 6, "act": nn.SiLU, "steps": 2000},
        {"octaves": 0},
    ),
    case(
        "ringing",
        "SPECTRAL_BIAS",
        fits.Curve,
        {"curve": ringing, "octaves": 6, "steps": 1500},
        {"octaves": 0},
    ),
    case(
        "barometer",
        "INPUTS_NOT_SCALED",
        fits.Curve,
        {"curve": barometer, "low": 0.0, "high": 11000.0, "steps": 2000},
        {"standardise": False},
    ),
    case("same-reading", "REPEATED_POINTS", fits.Curve, CURVE, {"readings": fits.FirstOnly}),
    case("flat-readings", "BROADCAST", fits.Curve, CURVE, {"problem": fits.FlatCurve}),
    case(
        "dead-relu",
        "SATURATED",
        fits.Curve,
        CURVE | {"act": nn.ReLU, "hidden": (48, 48)},
        {"start": fits.low_bias},
    ),
    case(
        "two-units",
        "TOO_NARROW",
        fits.Curve,
        CURVE | {"steps": 2500, "optim": adam(1e-2)},
        {"hidden": (1,)},
    ),
    case(
        "gauge-offset",
        "ROUNDING",
        fits.Curve,
        CURVE,
        {"offset": 4e7},
        note="float32 knows these readings to 4 units only",
    ),
    case(
        "curve-momentum",
        "STEP_TOO_LARGE",
        fits.Curve,
        CURVE | {"optim": sgd(0.05, momentum=0.9), "trainer": {"gradient_clip_val": 0.5}},
        {"optim": sgd(2.0, momentum=0.9)},
    ),
    case(
        "curve-decay",
        "RANDOM_OR_DECAY",
        fits.Curve,
        CURVE | {"optim": sgd(0.05, momentum=0.9)},
        {"optim": sgd(0.05, momentum=0.9, weight_decay=0.05)},
    ),
]
