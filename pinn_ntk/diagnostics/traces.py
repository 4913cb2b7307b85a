"""Trace of each term's kernel, and the rate at which the term learns: which one lags behind.

| symbol | meaning |
| --- | --- |
| D_i | curvature of the loss, 2 w_i for a sum of w_i r_i^2, weights of a balancer included |
| w_a | effective weight of term ``a``, the sum of its w_i: 1 for a plain mean |
| mu_a | rate of the term, sum_i D_i K_ii, which is 2 w_a mean_i K_ii where all w_i are equal |

mu_a is the sum of the rates of the term's modes, the eigenvalues of K D (Wang, Yu, Perdikaris 2022,
eq. 6.3). Of a mean over points it does not depend on how many were drawn, unlike the trace and the
mean eigenvalue. Of other losses than squares w_a is taken; unknown w_a are taken for 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pinn_ntk.analysis.wording import number, within
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.graph.terms.curvature import curvature
from pinn_ntk.looks.look import Look
from pinn_ntk.weights.trace import unmoved, weights_from_traces

UNEVEN = 3.0
"""Ratio of two rates from which the slower term is said to lag behind."""


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
                "Grows with the number of rows: compare terms by trace over rows, times the "
                "effective weight. The summary does so, and names who lags behind. A factor above "
                "3 is worth a balancer."
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
        rows = {term: look.kernel.sampled(term)[1] for term in look.kernel.terms}
        eps = {term: torch.finfo(look.residuals[term].dtype).eps for term in rows}
        traces = {term: trace for term, trace in look.traces.items() if term in rows}
        still = unmoved(traces, rows, eps)
        moved = {term: trace for term, trace in traces.items() if term not in still}
        facts = {
            "traces": dict(look.traces),
            "errors": errors,
            "moved": {term: trace for term, trace in moved.items() if math.isfinite(trace)},
            "rates": {term: _rate(look, term) for term in moved},
            "balanced": look.balancing,
        }
        return Reading(look.step, values | undefined, facts=facts)

    def sentences(self, readings: Readings) -> Iterator[str]:
        facts = readings[self.name].facts
        rates = {term: rate for term, rate in facts["rates"].items() if 0 < rate < math.inf}
        if len(rates) < 2:
            return
        weights = readings["weights"].facts["weights"] if "weights" in readings else {}
        plain = all(math.isclose(weights.get(term, 1.0), 1.0, rel_tol=1e-5) for term in rates)
        if facts["balanced"]:
            yield _balanced(rates)
        elif _ends(rates)[2] < UNEVEN:
            yield _even(rates, plain=plain)
        else:
            yield f"{_uneven(rates, plain=plain)} {_advice(facts, readings, plain=plain)}"


def _rate(look: Look, term: str) -> float:
    """mu_a of a term, in the loss in force."""
    rows = look.kernel.sampled(term)[1]
    mean = look.traces[term] / rows
    found = None
    if term in look.terms and not look.found.from_function:
        found = curvature({term: look.terms[term]}, look.factors)
    if found is None or len(found[term]) != rows:
        return 2 * look.effective_weights.get(term, 1.0) * mean
    D = found[term]
    if bool((D[0] == D).all()):
        return float(D.sum()) * mean
    jacobian, diagonal = look.kernel.jacobian(term), look.kernel.diagonal(term)
    if jacobian.sample is not None:
        D = D[jacobian.sample.rows.to(D.device)]
    return jacobian.total(D.to(diagonal) * diagonal)


RATE = "2 w mean(K_ii), the rate at which a term learns"


def _balanced(rates: Mapping[str, float]) -> str:
    slow, fast, ratio = _ends(rates)
    apart = f"that of {fast} is {number(ratio, 3)} times that of {slow}"
    said = within(ratio) if ratio < UNEVEN else apart
    return f"Rates: {RATE}: with the weights in force, the balancer's included, {said}."


def _even(rates: Mapping[str, float], *, plain: bool) -> str:
    said = within(_ends(rates)[2])
    return f"Rates: {RATE}: {_loss(plain)} {said}, and no term lags behind."


def _uneven(rates: Mapping[str, float], *, plain: bool) -> str:
    slow, fast, ratio = _ends(rates)
    return (
        f"Rates: {RATE}: {_loss(plain)} that of {fast} is {number(ratio, 3)} times that of {slow}, "
        f"so {slow} lags behind."
    )


def _loss(plain: bool) -> str:
    return "with equal weights" if plain else "with the weights in force"


def _advice(facts: Mapping[str, Any], readings: Readings, *, plain: bool) -> str:
    """What the balancer sets by default."""
    weights = weights_from_traces(facts["moved"], readings["step"].facts["rows"])
    listed = ", ".join(f"{term} {number(weight, 3)}" for term, weight in weights.items())
    of_what = "Weights" if plain else "Weights of plain means of squares"
    own = "" if plain else ", which multiplies them with those of the loss"
    return f"{of_what} that even the rates out: {listed} (NTKBalancer() sets them{own})."


def _ends(values: Mapping[str, float]) -> tuple[str, str, float]:
    """Names of the least and of the largest value, and their ratio."""
    least, largest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return least, largest, values[largest] / values[least]
