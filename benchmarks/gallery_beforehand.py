"""What was known beforehand of the problems of the gallery, and what weights then did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

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
        start, count = run["start"], run["rows"]
        per_row = {t: start[f"trace/{t}"] / n for t, n in count.items() if f"trace/{t}" in start}
        rows.append([
            problem.title,
            ", ".join(f"{t.removeprefix('loss_')} {n}" for t, n in count.items()),
            _of_terms(per_row, ".2g"),
            _of_terms({t: start.get(f"effective_rank/{t}", math.nan) for t in per_row}, ".2g"),
            f"{max(per_row.values()) / min(per_row.values()):.2g}",
        ])  # fmt: skip
    head = ["problem", "rows", "trace a row", "effective rank", "largest over smallest trace a row"]
    return f"Seed 0.\n\n{table(head, rows)}"


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


def _causes(runs: Runs) -> Counter[str]:
    return Counter(
        Cause(int(run["end"]["verdict"])).title if "verdict" in run["end"] else "none"
        for run in runs
    )


def _of_terms(values: Mapping[str, float], how: str) -> str:
    return ", ".join(f"{t.removeprefix('loss_')} {value:{how}}" for t, value in values.items())
