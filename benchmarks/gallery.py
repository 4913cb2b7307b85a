"""Which balancing rule when: ten problems, eight columns, three seeds, and fewer boundary points.

    python -m benchmarks.gallery              # trains what is missing, two runs side by side
    python -m benchmarks.gallery wave burgers # some of it, by part of the name of the script
    python -m benchmarks.gallery --settings   # other settings of the rule that the table takes
    python -m benchmarks.gallery --page       # trains nothing, writes docs/gallery.md

Every run takes `STEPS` steps on one thread. What was trained is kept in
benchmarks/results/gallery.json after every run, and not trained again. All seeds count, runs that
diverge too; `HOW` in `benchmarks.gallery_table` says how the default of `NTKBalancer` follows.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.gallery_problems import DESIGNS, PROBLEMS, RULES, SEEDS, SETTINGS, SPARSER
from benchmarks.gallery_run import Task, train
from benchmarks.gallery_table import decided
from benchmarks.report import FOLDER, begun, parser, read

RESULTS = FOLDER / "gallery.json"


def tasks(
    columns: Iterable[str], scripts: Sequence[str] = (), designs: Sequence[str] = DESIGNS
) -> list[Task]:
    """All runs of some columns, seed by seed, so that a part of them is a table, too."""
    wanted = [p for p in PROBLEMS if not scripts or any(part in p.script for part in scripts)]
    parts = sorted((seed, designs.index(design)) for design in designs for seed in SEEDS[design])
    every = itertools.product(parts, wanted, list(columns))
    return [Task(p.title, designs[design], column, seed) for (seed, design), p, column in every]


def key(run: dict[str, Any]) -> str:
    """Name of a run in the results."""
    return Task(run["problem"], run["design"], run["column"], run["seed"]).key


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """Runs that were made before, by name."""
    return {key(run): run for run in read(path)["runs"]} if path.exists() else {}


def trained(wanted: Sequence[Task], done: dict[str, dict[str, Any]], path: Path, jobs: int) -> None:
    """Train what is missing, and write the results after every run."""
    missing = [task for task in wanted if task.key not in done]
    report = begun(1)
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=os.nice, initargs=(5,)) as pool:
        running = [pool.submit(train, task) for task in missing]
        bar = tqdm(as_completed(running), total=len(missing), unit="run", smoothing=0.05)
        for finished in bar:
            record = finished.result()
            done[Task(record.problem, record.design, record.column, record.seed).key] = (
                record.as_json()
            )
            keep(path, report, done.values())
            bar.set_postfix_str(f"{record.problem}, {record.column}: {record.error:.2g}")


def keep(path: Path, report: Mapping[str, Any], runs: Iterable[dict[str, Any]]) -> None:
    """Write the results, a line a run; a stop in between leaves those of before."""
    head = json.dumps(dict(report), indent=1).removesuffix("\n}")
    lines = ",\n".join(json.dumps(run) for run in sorted(runs, key=key))
    partial = path.with_suffix(".part")
    partial.write_text(f'{head},\n "runs": [\n{lines}\n]\n}}\n')
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, and write."""
    options = parser(__doc__, RESULTS)
    options.add_argument("scripts", nargs="*", help="part of the names of scripts to train")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--settings", action="store_true", help="other settings of the rule taken")
    options.add_argument("--page", action="store_true", help="write the page, train nothing")
    asked = options.parse_args(arguments)
    done = kept(asked.json)
    if asked.page:
        from benchmarks.gallery_page import page

        page(list(done.values()))
        return {"runs": list(done.values())}
    columns: list[str] = list(RULES)
    if asked.settings:
        rule = decided(list(done.values()), columns)
        columns = [f"{rule} + {setting}" for setting in SETTINGS | SPARSER]
    designs = DESIGNS[:1] if asked.settings else DESIGNS
    trained(tasks(columns, asked.scripts, designs), done, asked.json, asked.jobs)
    return {"runs": list(done.values())}


if __name__ == "__main__":
    print(json.dumps({"runs": len(main()["runs"])}))
