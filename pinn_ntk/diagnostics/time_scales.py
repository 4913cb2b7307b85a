"""In how many steps the modes of each term fall.

| symbol | meaning |
| --- | --- |
| mu | rate of a mode, eigenvalue of D^(1/2) K_aa D^(1/2), see `pinn_ntk.analysis.step_size` |
| lr | learning rate in use |
| 1 - lr mu | factor by which a step of gradient descent multiplies the mode |
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pinn_ntk.analysis.step_size import mode_rates
from pinn_ntk.analysis.wording import number, steps
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings
from pinn_ntk.looks.look import Look


class TimeScales(Diagnostic):
    """Rates of the fastest and of the slowest mode above the noise; sentences only."""

    name = "time_scales"
    title = "the rate of each mode"

    def read(self, look: Look) -> Reading:
        """Term -> rates, each term taken alone."""
        known = {t: D for t, D in (look.descending or {}).items() if bool(D.count_nonzero())}
        spectra = look.spectra
        if look.group_scales:
            spectra = {term: look.descent.spectrum(term) for term in known if term in spectra}
        rates = mode_rates(look.descent, look.kernel, spectra, known, look.rows_kept)
        plain = {term: list(ends) for term, ends in rates.items()}
        return Reading(look.step, facts={"rates": plain})

    def sentences(self, readings: Readings) -> Iterator[str]:
        known = readings["learning_rate"].facts if "learning_rate" in readings else {}
        lr = known.get("lr")
        rates = readings[self.name].facts["rates"]
        if not lr or not rates:
            return
        listed = "; ".join(
            f"{term} {_steps(lr * fast)} along its fastest mode, {_steps(lr * slow)} along the "
            "slowest above the noise"
            for term, (fast, slow) in rates.items()
        )
        at = f"rate in use, {number(lr)}"
        if known.get("groups"):
            at = f"rates of the groups in use, {number(lr)} at most"
        yield (
            f"Time scales: with plain gradient descent at the learning {at}, "
            f"and each term alone, residuals fall by a factor of e: {listed}."
        )


def _steps(rate: float) -> str:
    """In how many steps a mode falls by a factor of e, at lr mu = ``rate``."""
    if rate >= 2:
        return "never (it grows)" if rate > 2 else "never (it swings)"
    left = abs(1 - rate)
    if not rate:
        return "never (it stands still)"
    return steps(0.0 if left == 0 else -1 / math.log(left) if rate > 1e-8 else 1 / rate)
