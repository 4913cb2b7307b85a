"""What a measurement says of the training itself, in sentences; a part of `pinn_ntk.diagnostics.words`.

| symbol | meaning |
| --- | --- |
| mu | rate of a mode, eigenvalue of D^(1/2) K_aa D^(1/2), see `pinn_ntk.analysis.step_size` |
| lr | learning rate in use |
| w_a | effective weight of term ``a``, see `pinn_ntk.graph.terms.curvature.effective_weights` |
| N_a | rows of its residual |
| 1 - lr mu | factor by which a step of gradient descent multiplies the mode |

The average rate of convergence of a term is its mean mu (Wang, Yu, Perdikaris 2022, section 6), in
the loss in force: 2 w_a Tr K_aa / N_a^2 for squares of equal weight. Unknown w_a are taken for 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations

from pinn_ntk.analysis.definiteness import Definiteness
from pinn_ntk.analysis.interference import Interference
from pinn_ntk.diagnostics.decrease import Judged
from pinn_ntk.diagnostics.measurement import Measurement
from pinn_ntk.weights.trace import Convention, weights_from_traces

UNEVEN = 3.0
"""Ratio of two average rates from which the slower term is said to lag behind."""

AGAINST = -0.1
"""Cosine below which two terms are said to work against each other."""

CLOSE = 0.02
"""Share of rows up to which those alike may be of points too close for a coarser dtype."""

NEAR = 0.2
"""Distance from 1 up to which a ratio of decreases is said to confirm the kernel."""


def balance(measurement: Measurement) -> str:
    """Which term lags behind; empty for fewer than two terms."""
    traces = {term: trace for term, trace in measurement.traces.items() if 0 < trace < math.inf}
    rows = {term: measurement.rows[term] for term in traces}
    weights = {term: measurement.effective_weights.get(term, 1.0) for term in traces}
    rates = {term: 2 * weights[term] * traces[term] / rows[term] ** 2 for term in traces}
    rates = {term: rate for term, rate in rates.items() if 0 < rate < math.inf}
    if len(rates) < 2:
        return ""
    plain = all(math.isclose(weight, 1.0, rel_tol=1e-5) for weight in weights.values())
    if plain and len(set(rows.values())) == 1:
        return _even_rows(traces, rows)
    return f"Traces: {_uneven_rows(traces, rates, plain)}{_rules(traces, rates, rows)}"


def _even_rows(traces: Mapping[str, float], rows: Mapping[str, int]) -> str:
    """Rates are proportional to traces."""
    slow, fast, ratio = _ends(traces)
    if ratio < UNEVEN:
        return f"Traces: within a factor of {ratio:.2g}; with equal weights no term lags behind."
    return (
        f"Traces: that of {fast} is {ratio:.3g} times that of {slow}, so with equal weights {slow} "
        f"lags behind. Weights that even the traces out: {_trace_rule(traces, rows, 'sum')}."
    )


def _uneven_rows(traces: Mapping[str, float], rates: Mapping[str, float], plain: bool) -> str:
    slow, fast, ratio = _ends(traces)
    said = f"that of {fast} is {ratio:.3g} times that of {slow}"
    if ratio < UNEVEN:
        said = f"within a factor of {ratio:.2g}"
    loss = "for plain means over the rows" if plain else "with the weights in force"
    slow, fast, ratio = _ends(rates)
    if ratio < UNEVEN:
        return (
            f"{said}; {loss} the average rates of convergence, 2 w Tr K / N^2, are within a factor "
            f"of {ratio:.2g}, and no term lags behind."
        )
    return (
        f"{said}; {loss} the average rate of convergence, 2 w Tr K / N^2, of {fast} is "
        f"{ratio:.3g} times that of {slow}, so {slow} lags behind."
    )


def _rules(traces: Mapping[str, float], rates: Mapping[str, float], rows: Mapping[str, int]) -> str:
    """Weights of the trace rule, where a term lags behind."""
    if _ends(rates)[2] < UNEVEN:
        return ""
    of_traces = f"that even the traces out: {_trace_rule(traces, rows, 'sum')}"
    if len(set(rows.values())) == 1:
        return f" Weights {of_traces}."
    return (
        " Weights that even the rates of plain means of squares out: "
        f'{_trace_rule(traces, rows, "rate")} (NTKBalancer(convention="rate")); {of_traces} (the '
        'trace rule, eqs 6.5 and 6.6, convention="sum").'
    )


def _trace_rule(
    traces: Mapping[str, float], rows: Mapping[str, int], convention: Convention
) -> str:
    weights = weights_from_traces(traces, rows, convention)
    return ", ".join(f"{term} {weight:.3g}" for term, weight in weights.items())


def _ends(values: Mapping[str, float]) -> tuple[str, str, float]:
    """Names of the least and of the largest value, and their ratio."""
    least, largest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return least, largest, values[largest] / values[least]


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
        f"{term} {_steps(lr * fast)} along its fastest mode, {_steps(lr * slow)} along the slowest "
        "above the noise"
        for term, (fast, slow) in measurement.rates.items()
    )
    return (
        f"Time scales: with plain gradient descent at the learning rate in use, {lr:.2g}, and each "
        f"term alone, residuals fall by a factor of e: {listed}."
    )


def _steps(rate: float) -> str:
    """In how many steps a mode falls by a factor of e, at lr mu = ``rate``."""
    if rate >= 2:
        return "never (it grows)" if rate > 2 else "never (it swings)"
    left = abs(1 - rate)
    steps = 0.0 if left == 0 else -1 / math.log(left) if rate > 1e-8 else 1 / rate
    if steps <= 1:
        return "in a step"
    return f"in {steps:.0f} steps" if 10 <= steps < 10_000 else f"in {steps:.2g} steps"


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
        said = "no term undoes" if least >= 0 else "terms hardly undo"
        other = "another's" if least >= 0 else "each other's"
        return f"Interference: {said} {other} steps (least cosine {least:.2g}, {a}, {b})."
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


def repeats(measurement: Measurement) -> Iterator[str]:
    """Which terms repeat points, of those whose spectrum is of some rows only, where not said."""
    for term, repeated in measurement.repeated.items():
        rows, found = measurement.rows[term], measurement.definiteness.get(term)
        said = found is not None and bool(found.broadcast or found.searched)
        close = 0.0 if measurement.dtype == "float64" else CLOSE
        if repeated > close * rows and not said:
            yield (
                f"{term}: duplicated points, {rows} rows of which {rows - repeated} are different "
                "(looked for in all rows)."
            )


def prediction(judged: Judged) -> str:
    """How the forecast of a step came true, and whether the loss fell or rose."""
    said = f"Prediction: by the step at {judged.step} the loss {_came_true(judged)}"
    if abs(judged.ratio - 1) > NEAR:
        return f"{said}; such steps are too long for residuals to pass for linear."
    if judged.predicted is not None and judged.predicted < 0:
        return f"{said}: the step is too long, for linear residuals as well."
    return f"{said}; the kernel at that step explains that step."


def _came_true(judged: Judged) -> str:
    foretold, opposite, noun = "fell", "rose", "fall"
    if judged.predicted is None:
        foretold, opposite, noun = "changed", "changed", "change"
    elif judged.predicted < 0:
        foretold, opposite, noun = "rose", "fell", "rise"
    ratio = f"{judged.ratio:.2g}"
    if judged.ratio < 0:
        return f"{opposite}, by {ratio.removeprefix('-')} times the {noun} that the kernel says"
    much = "as much" if ratio == "1" else f"{ratio} times as much"
    return f"{foretold} {much} as the kernel says"


def infinite_width(measurement: Measurement) -> str:
    """Distance of the network's kernel from its limit of infinite width; empty if unknown."""
    distance, moved = measurement.distance_to_limit, measurement.drift.get("parameters")
    if distance is None or not math.isfinite(distance):
        return ""
    said = (
        f"Width: the kernel of the network itself is {distance:.2g} from its limit of infinite "
        "width, relative to the norm of that"
    )
    if moved == 0:
        return (
            f"{said}; at this first measurement that comes of its finite width alone, unless it "
            "was trained before."
        )
    return (
        f"{said}; by now that is width and training together, and the distance at the first "
        "measurement is that of the width."
    )
