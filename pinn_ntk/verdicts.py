"""What a measurement says of the training itself, in sentences; a part of `pinn_ntk.words`.

| symbol | meaning |
| --- | --- |
| mu | rate of a mode, eigenvalue of D^(1/2) K_aa D^(1/2), see `pinn_ntk.step_size` |
| lr | learning rate in use |
| 1 - lr mu | factor by which a step of gradient descent multiplies the mode |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations

from pinn_ntk.analysis.definiteness import Definiteness
from pinn_ntk.analysis.interference import Interference
from pinn_ntk.measurement import Measurement

AGAINST = -0.1
"""Cosine below which two terms are said to work against each other."""

NEAR = 0.2
"""Distance from 1 up to which a ratio of decreases is said to confirm the kernel."""


def step_size(measurement: Measurement) -> str:
    """The learning rate in use beside the largest stable one; empty where that is not defined."""
    bound, lr = measurement.max_stable_lr, measurement.learning_rate
    if bound is None:
        return ""
    said = f"Step size: plain gradient descent on this loss is unstable above {bound:.2g}"
    if lr is not None and 0 < bound < math.inf:
        said += f"; the learning rate in use, {lr:.2g}, is {lr / bound:.2g} times that"
    return f"{said}. Adam and others follow another rule."


def time_scales(measurement: Measurement) -> str:
    """Steps in which modes fall by a factor of e; empty without learning rate or rates."""
    lr = measurement.learning_rate
    if not lr or not measurement.rates:
        return ""
    listed = "; ".join(
        f"{term} in {_steps(lr * fast)} along its fastest mode, in {_steps(lr * slow)} along the "
        "slowest above the noise"
        for term, (fast, slow) in measurement.rates.items()
    )
    return (
        f"Time scales: with plain gradient descent at the learning rate in use, {lr:.2g}, and each "
        f"term alone, residuals fall by a factor of e: {listed}."
    )


def _steps(rate: float) -> str:
    """Steps until a mode has fallen by a factor of e, at lr mu = ``rate``."""
    if rate >= 2:
        return "no time (it grows)"
    left = abs(1 - rate)
    steps = 0.0 if left == 0 else -1 / math.log(left) if rate > 1e-8 else 1 / rate
    if steps <= 1:
        return "a step"
    return f"{steps:.0f} steps" if 10 <= steps < 10_000 else f"{steps:.2g} steps"


def interferences(measured: Interference | None) -> str:
    """Which terms undo each other's steps; empty where nothing is known."""
    if measured is None:
        return ""
    cosines = {pair: measured.between(*pair) for pair in combinations(measured.terms, 2)}
    known = {pair: cosine for pair, cosine in cosines.items() if math.isfinite(cosine)}
    if not known:
        return ""
    against = [
        f"{a} and {b} work against each other (cosine {cosine:.2g})"
        for (a, b), cosine in sorted(known.items(), key=lambda item: item[1])
        if cosine < AGAINST
    ]
    if not against:
        (a, b), least = min(known.items(), key=lambda item: item[1])
        return f"Interference: no term undoes another's steps (least cosine {least:.2g}, {a}, {b})."
    rising = [term for term, rate in measured.decay.items() if rate < 0]
    said = f"Interference: {', '.join(against)}: a step for one undoes a part of the other's."
    if rising:
        said += f" The loss of {', '.join(rising)} rises while the sum falls."
    return said


def ranks(found: Mapping[str, Definiteness]) -> Iterator[str]:
    """Which terms must fall, and why others have lost rank, where it is known."""
    for term, definite in found.items():
        if definite.must_decrease:
            yield definite.statement
        elif definite.cause:
            yield f"{term}: {definite.cause[0].lower()}{definite.cause[1:]}"


def prediction(step: int, ratio: float) -> str:
    """How the forecast of a step came true."""
    fell = f"the loss fell by {ratio:.2g} times what the kernel says"
    said = f"Prediction: by the step at {step} {fell}"
    if abs(ratio - 1) <= NEAR:
        return f"{said}; it explains the training."
    return f"{said}; such steps are too long for residuals to pass for linear."


def infinite_width(distance: float | None) -> str:
    """Distance of the network's kernel from its limit of infinite width; empty if unknown."""
    if distance is None or not math.isfinite(distance):
        return ""
    return (
        f"Width: the kernel of the network itself is {distance:.2g} from its limit of infinite "
        "width, relative to its norm."
    )
