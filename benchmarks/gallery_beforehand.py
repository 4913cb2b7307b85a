"""What was known beforehand of the problems of the gallery, and what weights then did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from scipy.stats import spearmanr

from benchmarks.gallery_problems import DESIGNS, PROBLEMS, RULES
from benchmarks.gallery_table import Runs, medians, ratio
from benchmarks.markdown import number, table
from pinn_ntk.verdict.cause import Cause


def spectra(runs: Runs) -> str:
    """Traces a row, effective ranks and conditions at the first step, by term."""
    rows = []
    for problem in PROBLEMS:
        found = [r for r in runs if r["problem"] == problem.title and r["design"] == DESIGNS[0]]
        if not found:
            continue
        run = min(found, key=lambda r: (r["seed"], r["column"]))
        start, per_row = run["start"], _per_row(run)
        rows.append([
            problem.title,
            _of_terms(run["rows"], "d"),
            _of_terms(per_row, ".2g"),
            _of_terms({t: start.get(f"effective_rank/{t}", math.nan) for t in per_row}, ".2g"),
            f"{_spread(per_row.values()):.2g}",
        ])  # fmt: skip
    head = ["problem", "rows", "trace a row", "effective rank", "largest over smallest trace a row"]
    return f"Seed 0.\n\n{table(head, rows)}\n\n{correlations(runs)}"


def foretold(runs: Runs) -> str:
    """Verdicts of the runs without balancing at their end, beside what the rules gained."""
    of_design = [run for run in runs if run["design"] == DESIGNS[0]]
    found, rows = medians(of_design), []
    for problem in PROBLEMS:
        of = found.get((problem.title, DESIGNS[0]), {})
        gains = {c: ratio(of["none"], of[c]) for c in RULES if c != "none" and c in of}
        if not gains:
            continue
        by_gain = sorted(gains, key=lambda column: gains[column])
        least, most = by_gain[0], by_gain[-1]
        plain = [r for r in of_design if (r["problem"], r["column"]) == (problem.title, "none")]
        rows.append([
            problem.title,
            ", ".join(f"{cause} ({count})" for cause, count in _causes(plain).most_common()),
            number(of["none"]),
            f"{number(gains[most])} ({most})",
            f"{number(gains[least])} ({least})",
        ])  # fmt: skip
    head = ["problem", "verdict at the end, without balancing", "error", "largest gain", "least"]
    said = (
        "In brackets the number of seeds. A gain is the error without balancing over that of a "
        "rule, medians, with all points."
    )
    return f"{said}\n\n{table(head, rows)}"


def correlations(runs: Runs) -> str:
    """Spearman's rank correlation of ratios of traces and of weights with what `trace` gains."""
    found, start, end, gains = medians(runs), [], [], []
    for problem in PROBLEMS:
        of = found.get((problem.title, DESIGNS[0]), {})
        if of.keys() >= {"none", "trace"}:
            run = _first(runs, problem.title, "trace")
            start.append(_spread(_per_row(run).values()))
            end.append(_spread(run["weights"].values()))
            gains.append(ratio(of["none"], of["trace"]))
    if len(gains) < len(PROBLEMS) or any(len(set(of)) == 1 for of in (start, end, gains)):
        return "Nothing can be said of the gain yet."
    first, last = (float(spearmanr(which, gains).statistic) for which in (start, end))
    return (
        "Over the ten problems, the rank correlation of the gain of `trace` (error without "
        f"balancing over its error) with the last column is {first:.2f}; with the largest over the "
        f"smallest of its weights at the end it is {last:.2f}."
    )


def _first(runs: Runs, problem: str, column: str) -> Mapping[str, Any]:
    """Seed 0, with all points."""
    wanted = (problem, DESIGNS[0], column, 0)
    return next(r for r in runs if (r["problem"], r["design"], r["column"], r["seed"]) == wanted)


def _per_row(run: Mapping[str, Any]) -> dict[str, float]:
    start, rows = run["start"], run["rows"]
    return {t: start[f"trace/{t}"] / n for t, n in rows.items() if f"trace/{t}" in start}


def _spread(values: Iterable[float]) -> float:
    of = list(values)
    return max(of) / min(of)


def _causes(runs: Runs) -> Counter[str]:
    return Counter(
        Cause(int(run["end"]["verdict"])).title if "verdict" in run["end"] else "none"
        for run in runs
    )


def _of_terms(values: Mapping[str, float], how: str) -> str:
    return ", ".join(f"{t.removeprefix('loss_')} {value:{how}}" for t, value in values.items())
