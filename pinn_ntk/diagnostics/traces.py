"""Trace of each term's kernel: how fast a term learns in sum, and which lags behind.

| symbol | meaning |
| --- | --- |
| w_a | effective weight of term ``a``, 1 for a plain mean |
| N_a | rows of its residual |

The average rate of convergence of a term is its mean eigenvalue (Wang, Yu, Perdikaris 2022,
section 6), in the loss in force: 2 w_a Tr K_aa / N_a^2 for squares of equal weight. Unknown w_a are
taken for 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.looks.look import Look
from pinn_ntk.weights.trace import Convention, weights_from_traces

UNEVEN = 3.0
"""Ratio of two average rates from which the slower term is said to lag behind."""


class Traces(Diagnostic):
    """Traces of all rows, no block is formed; with a standard error where rows were left out."""

    name = "traces"
    tags = (
        Tag(
            "trace/<term>",
            "trace of K_aa over all rows: its learning rate in sum",
            "(r / theta)^2",
            chart="trace of each block",
            advice=(
                "A term whose trace is small learns slowly. Factors above 3 between terms of "
                "equally many rows are worth a balancer; with unequal numbers divide by the "
                'rows, and give it `convention="mean"`.'
            ),
        ),
        Tag(
            "trace_error/<term>",
            "its standard error, where rows were left out",
            "(r / theta)^2",
            advice="Of terms that take a backward pass a row; `max_rows` bounds these.",
        ),
    )

    def read(self, look: Look) -> Reading:
        """Traces, NaN for terms without a kernel."""
        undefined = {f"trace/{term}": math.nan for term in look.undefined}
        values = finite({f"trace/{term}": trace for term, trace in look.traces.items()})
        errors = {term: look.kernel.trace_error(term) for term in look.left_out}
        values |= finite({f"trace_error/{term}": error for term, error in errors.items()})
        facts = {"traces": dict(look.traces), "errors": errors}
        return Reading(look.step, values | undefined, facts=facts)

    def sentences(self, readings: Readings) -> Iterator[str]:
        said = _balance(
            readings[self.name].facts["traces"],
            readings["step"].facts["rows"],
            readings["weights"].facts["weights"] if "weights" in readings else {},
        )
        if said:
            yield said


def _balance(
    traces: Mapping[str, float], rows: Mapping[str, int], weights: Mapping[str, float]
) -> str:
    traces = {term: trace for term, trace in traces.items() if 0 < trace < math.inf}
    rows = {term: rows[term] for term in traces}
    weights = {term: weights.get(term, 1.0) for term in traces}
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
