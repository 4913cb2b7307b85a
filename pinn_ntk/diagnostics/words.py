"""A measurement of the kernel in words: a table of the terms, and what the numbers mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from pinn_ntk.diagnostics import verdicts
from pinn_ntk.diagnostics.decrease import Judged
from pinn_ntk.diagnostics.measurement import PROBE, Attempt, Measurement, outright

CONSTANT, MOVED = 0.1, 0.5
"""Drift up to which the kernel passes for constant, and from which it plainly does not."""

UNNAMED = re.compile(r"term_\d+")
"""What terms are called that were not logged."""


def summary(
    measurement: Measurement,
    *,
    max_points: int | None = None,
    judged: Judged | None = None,
    attempt: Attempt = outright,
) -> str:
    """What a measurement says, in words, as Markdown.

    Args:
        measurement: What was measured at one step.
        max_points: The limit that was in force, to be named where rows were left out.
        judged: The last forecast whose outcome is known.
        attempt: Makes each finding, so that one may fail without the others.

    Returns:
        A table of the loss terms and a list of findings.
    """
    findings: list[str] = []
    for about, find in _findings(measurement, max_points, judged).items():
        findings += attempt(f"the sentence on {about}", find) or []
    header = f"**Kernel at step {measurement.step}** on {measurement.points}"
    lines = [header, "", *_table(measurement), ""]
    return "\n".join(lines + [f"- {finding}" for finding in findings if finding])


def _findings(
    measurement: Measurement, max_points: int | None, judged: Judged | None
) -> dict[str, Callable[[], list[str]]]:
    """What a sentence is about -> the sentences, empty where there is nothing to say."""
    terms = list(measurement.spectra)
    return {
        "undefined terms": lambda: [_undefined(measurement)],
        "balance": lambda: [verdicts.balance(measurement)],
        "weights": lambda: [_weights(measurement.effective_weights)],
        "spectra": lambda: [_resolved(term, measurement) for term in terms],
        "ranks": lambda: [*verdicts.ranks(measurement.definiteness)],
        "repeated points": lambda: [*verdicts.repeats(measurement)],
        "groups of parameters": lambda: _groups(measurement),
        "drift": lambda: [_drift(measurement)],
        "moved points": lambda: [_moved_points(measurement)],
        "infinite width": lambda: [verdicts.infinite_width(measurement)],
        "the step size": lambda: [verdicts.step_size(measurement)],
        "time scales": lambda: [verdicts.time_scales(measurement)],
        "interference": lambda: [verdicts.interferences(measurement.interference)],
        "the prediction": lambda: [] if judged is None else [verdicts.prediction(judged)],
        "trust": lambda: [_trust(measurement)],
        "rows left out": lambda: [_left_out(term, measurement, max_points) for term in terms],
        "names": lambda: [_unnamed(measurement)],
    }


def _table(measurement: Measurement) -> list[str]:
    lines = [
        "| term | rows | trace | lambda_max | effective rank | condition | drift |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for term, s in measurement.spectra.items():
        drift = measurement.drift.get(term, math.nan)
        moved = f"{drift:.3g}" if math.isfinite(drift) else "-"
        lines.append(
            f"| {term} | {measurement.rows[term]} | {measurement.traces[term]:.3g} | "
            f"{s.lambda_max:.3g} | {s.effective_rank:.3g} | {s.condition:.1e} | {moved} |"
        )
    return lines + [f"| {term} | - | undefined | - | - | - | - |" for term in measurement.undefined]


def _undefined(measurement: Measurement) -> str:
    if not measurement.undefined:
        return ""
    return (
        f"Undefined: {_listed(measurement.undefined)}, whose residual holds NaN or inf. Likely "
        "training has diverged (lower the learning rate) or the points include a singularity."
    )


def _resolved(term: str, measurement: Measurement) -> str:
    spectrum, dtype = measurement.spectra[term], measurement.dtype
    rank, size = spectrum.rank, len(spectrum.eigenvalues)
    carrying = f"{spectrum.effective_rank:.2g}"
    said = (
        f"{term}: {carrying} {'direction carries' if carrying == '1' else 'directions carry'} the "
        f"kernel, {rank} of {size} stand above the rounding noise"
    )
    if rank == size:
        return f"{said}."
    finer = "" if dtype == "float64" else "; a model in float64 resolves more"
    return (
        f"{said}; the rest, {size - rank}, is not resolved in {dtype}: eigenvalues there are at "
        f"most of the order of {spectrum.floor:.1e}, and how slowly they are learned, if at all, "
        f"is not known{finer}."
    )


def _weights(weights: Mapping[str, float]) -> str:
    if all(math.isclose(weight, 1.0, rel_tol=1e-5) for weight in weights.values()):
        return ""
    listed = ", ".join(f"{term} {weight:.3g}" for term, weight in weights.items())
    return f"Weights in force, where 1 is a plain mean over the rows: {listed}."


def _groups(measurement: Measurement) -> list[str]:
    """Shares of the groups of parameters in each trace."""
    lines = []
    for term, trace in measurement.traces.items():
        shares = {g: traces.get(term, 0.0) for g, traces in measurement.group_traces.items()}
        if shares and 0 < trace < math.inf:
            parts = ", ".join(f"{g} {share / trace:.2g}" for g, share in shares.items())
            lines.append(f"{term}: shares of the groups of parameters in its trace: {parts}.")
    return lines


def _drift(measurement: Measurement) -> str:
    moved = measurement.drift.get("parameters")
    drift = measurement.drift
    whole = {"the kernel": drift.get("kernel", math.nan)}
    single = {f"the kernel of {t}": drift.get(t, math.nan) for t in measurement.spectra}
    for drifts in (whole, single):
        known = {name: drift for name, drift in drifts.items() if math.isfinite(drift)}
        if moved and known:
            return _verdict(known, moved)
    return ""


def _verdict(drifts: Mapping[str, float], moved: float) -> str:
    worst = max(drifts.values())
    verdict = "in between: the linear theory of the first kernel holds roughly"
    if worst <= CONSTANT:
        verdict = "nearly constant: the linear theory of the first kernel describes the training"
    elif worst >= MOVED:
        verdict = "changed: the linear theory of the first kernel no longer holds over the training"
    listed = ", ".join(f"{name} {drift:.2g}" for name, drift in drifts.items())
    return (
        f"Drift since the first measurement, relative to the norm: {listed}, the parameters "
        f"{moved:.2g}; {verdict}."
    )


def _moved_points(measurement: Measurement) -> str:
    if not measurement.moved_points:
        return ""
    return (
        f"Points: those of {_listed(measurement.moved_points)} changed since the first "
        "measurement, so the drift of their kernel is not defined. NTKMonitor(probe=...) measures "
        "on points that stay."
    )


def _unnamed(measurement: Measurement) -> str:
    unnamed = [t for t in (*measurement.spectra, *measurement.undefined) if UNNAMED.fullmatch(t)]
    if not unnamed:
        return ""
    return f"Names: {_listed(unnamed)} (not logged: pass names=[...] or log each term)."


def _trust(measurement: Measurement) -> str:
    if measurement.certificate is None:
        return "Certificate: the kernel was not checked against ordinary backward passes."
    return (
        f"Certificate: the kernel agrees with ordinary backward passes to "
        f"{measurement.certificate:.0e}."
    )


def _left_out(term: str, measurement: Measurement, max_points: int | None) -> str:
    rows, kept = measurement.rows[term], len(measurement.spectra[term].eigenvalues)
    if rows == kept:
        return ""
    chosen = "drawn from equal strata" if measurement.points == PROBE else "evenly strided"
    limit = "" if max_points is None else f" (max_points={max_points})"
    return (
        f"{term}: spectrum, lambda_max, ranks, condition and drift are those of {kept} of its "
        f"{rows} rows, {chosen}{limit}; the trace is of all rows, the step size an estimate."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
