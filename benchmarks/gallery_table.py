"""What the runs of the gallery benchmark say: medians, ranges, ratios, and which rule is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Runs = Sequence[Mapping[str, Any]]
Cell = tuple[str, str]
"""A problem and a design of its points."""

HARM = 1.5
"""Factor over the error without balancing from which a rule harms."""

TIE = 1.1
"""Factor within which two worst cases are equal."""

HOW = f"""The rule of `NTKBalancer` is taken by this, written down before the table was looked at:

1. Of each problem and each design of its points, the median over the seeds of the error at the end
   (a run that diverged counts as infinite).
2. A rule that is worse than no balancing by more than a factor of {HARM} in any of these drops out;
   where all do, the one stays whose largest such factor is the smallest.
3. Of those left, the rule with the smallest worst case is taken: the largest ratio, over problems
   and designs, of its median to the smallest median of all rules. Within a factor of {TIE} the
   cheaper rule wins.
4. That rule is then trained with other settings (average, warm-up, bound on changes), and the one
   with the smallest worst-case ratio to the best setting is taken; within a factor of {TIE} the
   settings of the table stay."""
"""How the default is decided."""


def error_of(run: Mapping[str, Any], what: str = "error") -> float:
    """The error of a run, inf where it diverged."""
    return math.inf if run[what] is None else float(run[what])


def medians(runs: Runs, what: str = "error") -> dict[Cell, dict[str, float]]:
    """Problem and design -> column -> median over the seeds."""
    found: dict[Cell, dict[str, list[float]]] = {}
    for run in runs:
        cell = found.setdefault((run["problem"], run["design"]), {})
        cell.setdefault(run["column"], []).append(error_of(run, what))
    return {cell: {c: median(errors) for c, errors in of.items()} for cell, of in found.items()}


def ratio(error: float, other: float) -> float:
    """How many times larger an error is, inf where it is infinite."""
    return math.inf if math.isinf(error) else error / other


def worst_cases(
    table: Mapping[Cell, Mapping[str, float]], columns: Sequence[str]
) -> dict[str, float]:
    """Column -> largest ratio to the best of the columns, over cells that have all of them."""
    full = whole(table, columns)
    return {
        column: max(ratio(of[column], min(of[c] for c in columns)) for of in full.values())
        for column in columns
    }


def harm(table: Mapping[Cell, Mapping[str, float]], columns: Sequence[str]) -> dict[str, float]:
    """Column -> largest ratio to no balancing."""
    full = whole(table, [*columns, "none"])
    return {
        column: max(ratio(of[column], of["none"]) for of in full.values()) for column in columns
    }


def whole(
    table: Mapping[Cell, Mapping[str, float]], columns: Iterable[str]
) -> dict[Cell, Mapping[str, float]]:
    """Cells that have all the columns."""
    return {cell: of for cell, of in table.items() if set(columns) <= of.keys()}


def cost(runs: Runs) -> dict[str, float]:
    """Column -> mean seconds of one core a run."""
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(run["column"], []).append(run["seconds"])
    return {column: sum(seconds) / len(seconds) for column, seconds in found.items()}


def decided(runs: Runs, columns: Sequence[str]) -> str:
    """The rule that `HOW` takes of the columns, "none" among them."""
    rules, table = [c for c in columns if c != "none"], medians(runs)
    harms = harm(table, rules)
    left = [rule for rule in rules if harms[rule] <= HARM]
    left = left or [min(rules, key=lambda rule: harms[rule])]
    worst = worst_cases(table, columns)
    least = min(worst[rule] for rule in left)
    near = [rule for rule in left if worst[rule] <= TIE * least]
    seconds = cost(runs)
    return min(near, key=lambda rule: seconds[rule])


def decided_setting(runs: Runs, columns: Sequence[str]) -> str:
    """The setting that `HOW` takes; the first column is that of the table."""
    worst = worst_cases(medians(runs), columns)
    best = min(columns, key=lambda column: worst[column])
    return columns[0] if worst[columns[0]] <= TIE * worst[best] else best
