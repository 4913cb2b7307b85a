"""Tables of the gallery: a row a problem, a cell a column of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from benchmarks.gallery_problems import PROBLEMS
from benchmarks.gallery_table import Runs, error_of
from benchmarks.markdown import number, table


def by_problem(runs: Runs, columns: Iterable[str], cell: Callable[[Runs], str]) -> str:
    """Problem x column, a cell of its runs; those that have none get a dash."""
    shown, rows = list(columns), []
    for title in (problem.title for problem in PROBLEMS):
        found = [[r for r in runs if (r["problem"], r["column"]) == (title, c)] for c in shown]
        rows.append([title, *(cell(of) if of else "-" for of in found)])
    return table(["problem", *shown], rows)


def spread(runs: Runs) -> str:
    """Median of the error at the end; the smallest and the largest where there are several."""
    found = sorted(error_of(run) for run in runs)
    middle = number(median(found))
    return f"{middle} ({number(found[0])}, {number(found[-1])})" if found[1:] else middle
