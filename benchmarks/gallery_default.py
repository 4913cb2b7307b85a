"""How the default of `NTKBalancer` follows from the gallery, in tables."""

from __future__ import annotations

import math
from statistics import fmean

from benchmarks.gallery_cells import by_problem, spread
from benchmarks.gallery_problems import DESIGNS, PROBLEMS, RULES, SEEDS, SETTINGS, SPARSER
from benchmarks.gallery_table import (
    Runs,
    decided,
    decided_setting,
    harm,
    medians,
    ratio,
    whole,
    worst_cases,
)
from benchmarks.markdown import number, table

WHOLE = sum(map(len, SEEDS.values())) * len(PROBLEMS) * len(RULES)
"""Runs of all rules."""


def verdict(of_rules: Runs, runs: Runs) -> str:
    """Worst cases of each rule, and what follows."""
    columns, cells = list(RULES), whole(medians(of_rules), RULES)
    if not cells:
        return "Nothing can be said yet."
    worst, harms = worst_cases(cells, columns), harm(cells, columns)
    rows = [[c, number(worst[c]), number(harms[c])] for c in columns]
    made = table(["rule", "worst ratio to the best rule", "worst ratio to none"], rows)
    done = len(of_rules) == WHOLE
    rule = decided([run for run in of_rules if (run["problem"], run["design"]) in cells], columns)
    said = f"The rule that follows is **{rule}**." if done else _so_far(rule, len(cells))
    return f"{made}\n\n{said}\n\n{settings(runs, rule)}".rstrip()


def settings(runs: Runs, rule: str) -> str:
    """Other settings of the rule that is taken; empty before they are trained."""
    columns = [rule, *(f"{rule} + {setting}" for setting in SETTINGS)]
    sparser = [f"{rule} + {setting}" for setting in SPARSER]
    cells = whole(medians(runs), columns)
    if not cells:
        return ""
    shown = [r for r in runs if r["design"] == DESIGNS[0] and r["column"] in [*columns, *sparser]]
    worst = worst_cases(cells, columns)
    made = table(["settings", "worst ratio to the best"], [[c, number(worst[c])] for c in columns])
    found = decided_setting([r for r in runs if (r["problem"], r["design"]) in cells], columns)
    parts = [
        "Its settings (weights every 100 steps, `ema=0.9` where nothing else is said):",
        by_problem(shown, [*columns, *sparser], spread),
        made,
        f"The settings that follow are those of **{found}**.",
        *(_sparser(runs, found, column) for column in sparser),
    ]
    return "\n\n".join(part for part in parts if part)


def _sparser(runs: Runs, found: str, column: str) -> str:
    """What it does to average over as many steps by fewer updates."""
    cells = whole(medians(runs), [found, column]).values()
    if not cells:
        return ""
    ratios = [ratio(of[column], of[found]) for of in cells]
    mean = math.exp(fmean(math.log(r) for r in ratios))
    return (
        f"The same average by a fifth of the updates, **{column}**: its error over that is "
        f"{number(mean)} in the geometric mean, {number(min(ratios))} to {number(max(ratios))}."
    )


def _so_far(rule: str, cells: int) -> str:
    of = f"{cells} of {len(PROBLEMS) * len(DESIGNS)}"
    return f"So far, of the {of} rows that all rules have, **{rule}** would follow."
