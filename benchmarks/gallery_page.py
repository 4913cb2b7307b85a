"""docs/gallery.md and its figure: the table of the gallery, made of its runs."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.gallery_beforehand import foretold, spectra
from benchmarks.gallery_cells import by_problem, spread
from benchmarks.gallery_default import WHOLE, verdict
from benchmarks.gallery_figure import draw
from benchmarks.gallery_problems import DESIGNS, PROBLEMS, RULES, STEPS, example
from benchmarks.gallery_table import HOW, Runs, cost, decided, error_of, medians
from benchmarks.markdown import number, table
from benchmarks.report import ROOT

PAGE = ROOT / "docs" / "gallery.md"
FIGURE = ROOT / "docs" / "figures" / "gallery.png"
README = ROOT / "README.md"
BEGIN, END = "<!-- made by python -m benchmarks.gallery --page -->", "<!-- end -->"


def page(runs: Runs, path: Path = PAGE, figure: Path = FIGURE, readme: Path = README) -> None:
    """Write what stands between the marks of the page and of README, and draw the figure."""
    for file, made in ((path, body(runs)), (readme, summary(runs))):
        before, _, rest = file.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        file.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")
    draw(runs, figure)


def summary(runs: Runs) -> str:
    """README's table: without weights, with the rule that is taken, with the best rule."""
    of_rules = [run for run in runs if run["column"] in RULES]
    of_design = [run for run in of_rules if run["design"] == DESIGNS[0]]
    taken, found, rows = decided(of_rules, list(RULES)), medians(of_design), []
    for title, of in ((p.title, found.get((p.title, DESIGNS[0]), {})) for p in PROBLEMS):
        if of.keys() >= RULES.keys():
            best = min(RULES, key=lambda column: of[column])
            plain, weighted = (
                spread([r for r in of_design if (r["problem"], r["column"]) == (title, c)])
                for c in ("none", taken)
            )
            rows.append([title, plain, weighted, f"{number(of[best])} ({best})"])
    return table(["problem", "without weights", f"`{taken}`", "best rule of each"], rows)


def body(runs: Runs) -> str:
    """All tables."""
    of_rules = [run for run in runs if run["column"] in RULES]
    made = (
        f"{len(of_rules)} of {WHOLE} runs of {STEPS} steps were made: three seeds with all points, "
        "one with a tenth of the boundary. A cell has the median over the seeds of the "
        "relative L2 error at the end, in brackets the smallest and the largest."
    )
    parts = [
        made,
        *(errors(of_rules, design) for design in DESIGNS),
        "### How the default is decided",
        HOW,
        verdict(of_rules, runs),
        "### Published, with other budgets",
        published(),
        "### Cost",
        costs(of_rules),
        "### At the best step",
        best(of_rules),
        "### Weights at the end",
        weights(of_rules),
        "### Learning rate against the largest stable one",
        bounds(of_rules),
        "### What the spectra had said at the first step",
        spectra(of_rules),
        "### What the verdict says without balancing, and what weights gain",
        foretold(of_rules),
    ]
    return "\n\n".join(parts)


def errors(runs: Runs, design: str) -> str:
    """Problem x rule: median, least and largest error."""
    of_design = [run for run in runs if run["design"] == design]
    made = by_problem(of_design, RULES, spread)
    return f"### {design[0].upper()}{design[1:]}\n\n{made}"


def best(runs: Runs) -> str:
    """The same at the best step of the course, with all points."""

    def cell(of: Runs) -> str:
        steps = median(run["best_step"] for run in of)
        return f"{number(median(error_of(run, 'best') for run in of))} ({steps:g})"

    of_design = [run for run in runs if run["design"] == DESIGNS[0]]
    made = by_problem(of_design, RULES, cell)
    said = "Median of the smallest error of the course, and of its step in brackets."
    return f"{said}\n\n{made}"


def weights(runs: Runs) -> str:
    """Weights of seed 0 at the end, with all points, over that of the equation."""

    def cell(of: Runs) -> str:
        found = of[0]["weights"]
        return ", ".join(f"{t.removeprefix('loss_')} {w:.3g}" for t, w in found.items()) or "1"

    first = [run for run in runs if run["design"] == DESIGNS[0] and run["seed"] == 0]
    made = by_problem(first, RULES, cell)
    return f"Seed 0, all points.\n\n{made}"


def bounds(runs: Runs) -> str:
    """Learning rate at the end over the largest stable one of plain descent."""

    def cell(of: Runs) -> str:
        ratios = [
            r["end"]["lr"] / r["end"]["max_stable_lr"] for r in of if "max_stable_lr" in r["end"]
        ]
        return f"{median(ratios):.2g}" if ratios else "-"

    of_design = [run for run in runs if run["design"] == DESIGNS[0]]
    made = by_problem(of_design, RULES, cell)
    said = (
        "Median over the seeds. The bound is that of plain gradient descent; Adam, which trained "
        "here, is not bound by it."
    )
    return f"{said}\n\n{made}"


def published() -> str:
    """What the scripts quote; the budgets stand in it."""
    rows = [[p.title, example(p.script).PUBLISHED] for p in PROBLEMS]
    return table(["problem", "relative L2 error"], rows)


def costs(runs: Runs) -> str:
    """Seconds of one core a step, of problems that all rules have."""
    keys = [{r["problem"] + r["design"] for r in runs if r["column"] == c} for c in RULES]
    common = set.intersection(*keys) if all(keys) else set()
    seconds = cost([run for run in runs if run["problem"] + run["design"] in common])
    rows = [[c, f"{1e3 * seconds[c] / STEPS:.3g}"] for c in RULES if c in seconds]
    said = "Milliseconds of one core a step, mean over runs that all rules have, two side by side."
    return f"{said}\n\n{table(['rule', 'ms'], rows)}"
