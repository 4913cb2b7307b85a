"""All that rules may ask of one measured step; each quantity is computed when it is first asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pinn_ntk.looks.look import Look
from pinn_ntk.verdict.demand import Demand
from pinn_ntk.verdict.directions import Directions
from pinn_ntk.verdict.duration import Duration
from pinn_ntk.verdict.elsewhere import Elsewhere
from pinn_ntk.verdict.meeting import Meeting
from pinn_ntk.verdict.network import Network
from pinn_ntk.verdict.noise import Noise
from pinn_ntk.verdict.parameters import Parameters
from pinn_ntk.verdict.parts import Parts
from pinn_ntk.verdict.scaled import Scaled
from pinn_ntk.verdict.smoothness import Smoothness
from pinn_ntk.verdict.training import Training
from pinn_ntk.verdict.walls import Walls
from pinn_ntk.verdict.waves import Waves
from pinn_ntk.verdict.wholeness import Wholeness

SOLVED = 0.1
"""Root mean square of a residual over its baseline below which a term is solved."""

BARELY = 0.3
"""The same where the baseline is not known but as the largest residual so far."""

RIGHT, WRONG = 0.05, 0.1
"""Error of u that residuals amount to, up to which barely solved terms are solved, and above which
solved ones are not enough."""

ERROR = "error of {} that residuals amount to, for the equation as written"
"""What `Case.error` and `Case.off` are called in evidence."""

CLASH = 0.2
"""Difference of two values that are asked for at one place, over the largest, that counts."""

STUCK, ALONE, CALM = 0.15, 0.1, 0.5
"""What is left of a term after the best step for all terms; share that one for it alone leaves;
|sum of gradients| over the sum of their sizes of a loss at rest."""

KEPT, ALL_BUT = 0.15, 0.8
"""Share of the loss that the best step leaves where terms are at odds; where it is nearly all."""

FALLS = 0.07
"""Decades in the last tenth of the steps by which a loss falls that is not held up yet."""

HARDLY = 1e-3
"""Rate 2 w mean(K_ii) of a term over that of the fastest, below which its weight is in its way."""

SOLVABLE = 0.3
"""Share of a term that the best step leaves, below which nothing but time is lacking."""

WHOLE = 0.003
"""|J d - dr/dd| over |dr/dd| from which a derivative is cut off."""

HALF = 0.5
"""What is left of a term with a source, from which others come after it."""

FINE = 15.0
"""Phase of an equation across its domain, from which a plain network hardly finds the solution."""

STANDS = 0.02
"""Decades in the last tenth of the steps below which a loss stands."""

FELL = 0.9
"""Residual over that of the last measurement from which a term still falls."""


class Case(
    Training,
    Network,
    Parameters,
    Elsewhere,
    Parts,
    Meeting,
    Demand,
    Duration,
    Waves,
    Walls,
    Scaled,
    Noise,
    Directions,
    Smoothness,
    Wholeness,
):
    """One measured step, as rules see it.

    Args:
        look: The look; None where all that is asked for is known.
        previous: Findings of earlier verdicts, oldest first.
        known: Name of a quantity -> value, in place of computing it.
    """

    def __init__(
        self,
        look: Look | None,
        previous: Sequence[Mapping[str, Any]] = (),
        known: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dict(known or {}))
        self.look = look  # type: ignore[assignment]
        self.previous = previous

    @property
    def step(self) -> int:
        """Step of the look, as loggers count it."""
        return 0 if self.look is None else self.look.step

    @property
    def saturated_first(self) -> float:
        """Share of flat units at the first measurement."""
        first = self.previous[0].get("saturated") if self.previous else self.saturated
        return first or 0.0

    @property
    def size_first(self) -> float | None:
        """The same at the first measurement."""
        return self.previous[0].get("size") if self.previous else self.size

    @property
    def baseline(self) -> dict[str, float]:
        """Term -> rms at u = 0; its largest part where that is 0; else the largest rms so far."""
        known = {t: zero for t, zero in self.zero.items() if t not in self.homogeneous}
        return {**self.peak, **self.parts, **known}

    @property
    def left(self) -> dict[str, float]:
        """Term -> rms over its baseline: what of it is left."""
        baseline = self.baseline
        return {t: x / baseline[t] if baseline[t] else 0.0 for t, x in self.rms.items()}

    @property
    def unsolved(self) -> dict[str, float]:
        """Terms that are not solved, the worst first -> what is left of them."""
        known = self.zero.keys() - set(self.homogeneous) | self.parts.keys()
        bound = {term: SOLVED if term in known else BARELY for term in self.rms}
        left = {t: x for t, x in self.left.items() if not x <= bound[t]}
        return dict(sorted(left.items(), key=lambda item: -item[1]))

    @property
    def solved(self) -> bool:
        """Whether every term is solved, or barely and u is right; and all are finite."""
        if not self.rms or self.undefined:
            return False
        if any(self.left.get(t, 0.0) ** 2 * ratio > BARELY**2 for t, ratio in self.fresh.items()):
            return False
        if not self.unsolved:
            return True
        return max(self.unsolved.values()) < BARELY and self.right and not self.unheld

    @property
    def right(self) -> bool:
        """Whether residuals amount to next to no error, as far as derivatives are whole.

        That is not known where the step that it is taken from leaves most of a term.
        """
        whole = all(cut <= WHOLE for cut in self.cut.values())
        left = max((self.apart.get(t, (0.0, 0.0))[1] for t in self.unsolved), default=0.0)
        return self.error is not None and self.amiss[1] < RIGHT and whole and left < HALF

    @property
    def amiss(self) -> tuple[str, float]:
        """What residuals say is most wrong, u or a coefficient, and its error; NaN if unknown."""
        known = {} if self.error is None else {"u": self.error}
        return worst_of({**known, **self.off})

    @property
    def worst(self) -> str:
        """The term of which most is left; one that u = 0 does not solve, if half of that is."""
        driven = {t: x for t, x in self.left.items() if t in self.zero and x > HALF}
        left = {t: x for t, x in driven.items() if t not in self.homogeneous} or self.left
        return max(left, key=left.__getitem__, default="")

    @property
    def stuck(self) -> tuple[str, float]:
        """Term that could be solved by itself, and what the best step for all leaves of it."""
        left = self.left
        after = {t: both * left[t] for t, (both, alone) in self.apart.items() if alone < ALONE}
        term, most = worst_of({t: x for t, x in after.items() if t in self.rms})
        return (term, most) if most > STUCK else ("", 0.0)

    @property
    def at_odds(self) -> bool:
        """Whether the loss is at rest where no step helps all terms, and no weight is why."""
        return self._held and self.stationary and self.kept > KEPT

    @property
    def nearly_at_odds(self) -> bool:
        """The same of a loss that hardly falls, if the best step would leave nearly all of it."""
        slowly = abs(self.course.get("falling", 0.0)) < FALLS
        return self.at_odds or (self._held and slowly and self.kept > ALL_BUT)

    @property
    def _held(self) -> bool:
        calm = (1.0 if self.cancelling is None else self.cancelling) < CALM
        term = self.stuck[0]
        return calm and bool(term) and not any(map(self.hardly_counts, (term, *self.unsolved)))

    @property
    def kept(self) -> float:
        """Share of the weighted loss that the best step for all terms would leave."""
        now = {t: self.weights.get(t, 1.0) * x**2 for t, x in self.rms.items()}
        after = {t: x * self.apart.get(t, (1.0, 0.0))[0] ** 2 for t, x in now.items()}
        total = sum(now.values())
        return sum(after.values()) / total if total else 0.0

    @property
    def turns(self) -> float:
        """Largest phase of an equation across its domain."""
        return max((max(phases, default=0.0) for phases in self.phase.values()), default=0.0)

    def hardly_counts(self, term: str) -> bool:
        """Whether another term learns far faster with the weights in force."""
        rates = {t: self.weights.get(t, 1.0) * x for t, x in self.rates.items() if t in self.rms}
        return rates.get(term, math.inf) < HARDLY * max(rates.values(), default=0.0)

    def timed(self, equation: str) -> bool:
        """Whether an equation runs in time from a condition, as far as is known."""
        return "early" in self.concentration.get(equation, {})

    @property
    def stationary(self) -> bool:
        """Whether the loss stands, as far as it is known."""
        return abs(self.course.get("falling", 0.0)) < STANDS

    @property
    def worst_falls(self) -> bool:
        """Whether the worst term fell since the last measurement, as far as it is known."""
        before = self.previous[-1].get("rms", {}).get(self.worst) if self.previous else None
        return before is None or self.rms[self.worst] < FELL * before

    def findings(self) -> dict[str, Any]:
        """All that was computed, as plain values."""
        _ = self.rms, self.rates, self.prints, self.curvature_now, self.saturated, self.size
        _ = self.ranges, self.steps, self.decay, self.balanced, self.curvature_unbalanced, self.lr
        return {name: plain(v) for name, v in self.known.items() if is_plain_value(v)}


def plain(value: Any) -> Any:
    """Tuples as lists."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def is_plain_value(value: Any) -> bool:
    """Whether a value is made of numbers and strings alone."""
    if isinstance(value, Mapping):
        return all(is_plain_value(entry) for entry in value.values())
    if isinstance(value, tuple | list):
        return all(is_plain_value(entry) for entry in value)
    return value is None or isinstance(value, bool | int | float | str)


def worst_of(values: Mapping[str, float]) -> tuple[str, float]:
    """Name and value of the largest; "" and NaN of none."""
    name = max(values, key=values.__getitem__, default="")
    return name, values.get(name, math.nan)
