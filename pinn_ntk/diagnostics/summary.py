"""A measurement in words: a table of the terms, then what each diagnostic says, in one order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from pinn_ntk.analysis.wording import percent
from pinn_ntk.diagnostics.base import Diagnostic, Readings
from pinn_ntk.diagnostics.verdict import in_markdown
from pinn_ntk.looks.step_terms import PROBE, UNNAMED
from pinn_ntk.verdict.verdict import Verdict

ORDER = (
    "traces", "weights", "spectrum", "rank", "groups", "drift", "distance_to_limit", "step_size",
    "interference", "predicted_decrease",
)  # fmt: skip
"""In which diagnostics speak; others follow, and the certificate is the last to."""

Say = Callable[[str, Callable[[], list[str]]], list[str] | None]
"""Makes the sentences on something, so that some may fail without the others."""


def summary(readings: Readings, diagnostics: Iterable[Diagnostic], say: Say) -> str:
    """The last readings in words, as Markdown: a table of the terms and a list of findings."""
    facts = readings["step"].facts
    spoken = [d for d in ordered(diagnostics) if d.name in readings]
    findings = list(_undefined(facts))
    for diagnostic in spoken:
        about = f"the sentence on {diagnostic.title.removeprefix('the ')}"
        findings += say(about, partial(_sentences, diagnostic, readings)) or []
    findings += say("the sentence on rows left out", lambda: list(_left_out(readings))) or []
    findings += say("the sentence on rows drawn", lambda: list(_sampled(readings))) or []
    findings += _unnamed(facts)
    header = f"**Kernel at step {readings['step'].step}** on {facts['points']}"
    lines = [*_verdict(readings), header, "", *_table(readings), ""]
    return "\n".join(lines + [f"- {finding}" for finding in findings])


def _verdict(readings: Readings) -> list[str]:
    if "verdict" not in readings:
        return []
    return [*in_markdown(Verdict.of_state(readings["verdict"].facts)), ""]


def _sentences(diagnostic: Diagnostic, readings: Readings) -> list[str]:
    return list(diagnostic.sentences(readings))


def ordered(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Diagnostics in the order in which they speak, and in which tables list their tags."""
    places = {name: place for place, name in enumerate(ORDER)} | {"certificate": len(ORDER) + 1}
    return sorted(diagnostics, key=lambda diagnostic: places.get(diagnostic.name, len(ORDER)))


def _table(readings: Readings) -> list[str]:
    """A line a term; what was not asked for has no number."""
    facts = readings["step"].facts
    lines = [
        "| term | rows | trace | lambda_max | effective rank | condition | drift |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {term} | {rows} | {' | '.join(_cells(term, readings))} |"
        for term, rows in facts["rows"].items()
    ]
    return lines + [f"| {term} | - | undefined | - | - | - | - |" for term in facts["undefined"]]


def _cells(term: str, readings: Readings) -> Iterator[str]:
    def known(name: str, fact: str) -> Mapping[str, Any]:
        return readings[name].facts[fact] if name in readings else {}

    spectrum = known("spectrum", "terms").get(term, {})
    about = "~" if term in readings["step"].facts.get("sampled", {}) else ""
    yield _cell(known("traces", "traces").get(term), ".3g", about)
    yield _cell(spectrum.get("lambda_max"), ".3g", about)
    yield _cell(spectrum.get("effective_rank"), ".3g", about)
    yield _cell(spectrum.get("condition"), ".1e", about)
    yield _cell(known("drift", "drift").get(term), ".3g", about)


def _cell(value: float | None, form: str, about: str = "") -> str:
    return about + format(value, form) if value is not None and math.isfinite(value) else "-"


def _undefined(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["undefined"]:
        yield (
            f"Undefined: {', '.join(facts['undefined'])}, whose residual holds NaN or inf. Likely "
            "training has diverged (lower the learning rate) or the points include a singularity."
        )


def _left_out(readings: Readings) -> Iterator[str]:
    """Terms whose spectrum is of some rows only."""
    facts = readings["step"].facts
    spectra = readings["spectrum"].facts["terms"] if "spectrum" in readings else {}
    kept = {term: (spectrum["rows"], facts["rows"][term]) for term, spectrum in spectra.items()}
    fewer = _of_rows(kept, facts)
    if fewer:
        chosen = "drawn from equal strata" if facts["points"] == PROBE else "evenly strided"
        yield (
            f"Rows left out: {fewer} are in the blocks, {chosen} (max_points="
            f"{facts['max_points']}). Spectrum, lambda_max, ranks, condition and drift are of "
            "these, traces of all; the step size is an estimate."
        )


def _of_rows(counts: Mapping[str, tuple[int, int]], facts: Mapping[str, Any]) -> str:
    """How many rows of how many, of terms that lack some and that no sample stands for."""
    sampled = facts.get("sampled", {})
    return ", ".join(
        f"{some} of {rows} of {term}"
        for term, (some, rows) in counts.items()
        if some != rows and term not in sampled
    )


def _sampled(readings: Readings) -> Iterator[str]:
    """Terms of which some rows stand for all."""
    sampled = readings["step"].facts.get("sampled", {})
    known = readings["traces"].facts if "traces" in readings else {}
    listed = []
    for term, (measured, rows) in sampled.items():
        trace, error = (known.get(part, {}).get(term, 0.0) for part in ("traces", "errors"))
        exact = f" (standard error of the trace {percent(error / trace)})" if trace else ""
        listed.append(f"{measured} of {rows} of {term}{exact if error else ''}")
    if listed:
        yield (
            f"Rows measured (~): {', '.join(listed)}, drawn from equal strata, as all would take "
            "too long or too much memory (max_rows, memory_budget). Traces are estimated from "
            "them, and so is what follows from traces; spectrum, lambda_max, ranks, condition and "
            "drift are of them or fewer; no decrease is predicted."
        )


def _unnamed(facts: Mapping[str, Any]) -> Iterator[str]:
    unnamed = [t for t in (*facts["rows"], *facts["undefined"]) if UNNAMED.fullmatch(t)]
    if unnamed:
        yield (
            f"Names: {', '.join(unnamed)} (not logged before the backward pass: pass names=[...], "
            "or log each term in training_step)."
        )
