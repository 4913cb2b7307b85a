"""Train runs and see that broken ones fail, cured and healthy ones work.

python -m tests.broken [PATTERN ...] [--half set|judge] [--jobs 2] [--no-cured]

Prints cause, half, name, error, error of the cured twin, and processor time of the run.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from multiprocessing import get_context

from tests.broken.measure import BY_NAME, Measured, measure, quiet
from tests.broken.run import Run


def chosen(patterns: list[str], half: str | None) -> list[Run]:
    wanted = [f"*{pattern}*" for pattern in patterns] or ["*"]
    return [
        run
        for run in BY_NAME.values()
        if half in {None, run.half}
        and any(fnmatch(f"{run.cause} {run.name}", pattern) for pattern in wanted)
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="part of the name or of the cause")
    parser.add_argument("--half", choices=["set", "judge"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-cured", action="store_true", help="leave the cured twins out")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    runs = {run.name: run for run in chosen(asked.patterns, asked.half)}
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), initializer=quiet) as pool:
        tasks = {pool.submit(measure, n, asked.seed, not asked.no_cured): n for n in runs}
        done = []
        for task in as_completed(tasks):
            if (failed := task.exception()) is not None:
                print(f"{tasks[task]} raised {failed!r}", flush=True)
                continue
            done.append(Measured(runs[tasks[task]], *task.result()))
            print(done[-1], flush=True)
    astray = [measured.run.name for measured in done if not measured.as_planned]
    print(f"{len(done)} runs, {sum(m.seconds for m in done):.0f} s; not as planned: {astray}")


if __name__ == "__main__":
    main()
