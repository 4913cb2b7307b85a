"""Whether the verdict names the cause: broken, early and healthy PINNs trained under NTKMonitor.

    python -m benchmarks.verdict

Trains the runs of ``tests/broken`` (about 17 a minute on two cores) with
`NTKMonitor()` as it comes, and compares what each verdict names at the end with what was planted.
Thresholds were set on seed 0 of the half "set"; those of "judge" are of strangers, judged once
before anybody looked at them. Prints the confusion table and writes docs/verdict.md and a JSON with
all verdicts; ``--beside`` puts earlier ones beside them.

| count | of |
| --- | --- |
| named | runs that fail whose cause is the one planted |
| accused | healthy and early runs of which something is said to be wrong, at any measurement |
| false | verdicts with a sentence that is not so, see `benchmarks.claims` |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import partial
from multiprocessing import get_context
from time import process_time
from typing import Any

from benchmarks.claims import false_claims
from benchmarks.report import FOLDER, begun, parser, read, write
from benchmarks.verdict_page import PAGE, confusion, counts, group, page
from pinn_ntk import Cause, Verdict
from pinn_ntk.callbacks import NTKMonitor
from tests.broken.cases import RUNS
from tests.broken.measure import quiet
from tests.broken.run import Run

RESULTS = FOLDER / "verdict.json"
BY_NAME = {run.name: run for run in RUNS}


@dataclass(frozen=True)
class Judged:
    """A run and what was said of it."""

    name: str
    twin: bool  # whether it is the cured twin
    seed: int
    half: str
    planted: str
    named: str
    confidence: str
    error: float
    estimate: float | None  # what the verdict takes the error for
    sentence: str
    accused: list[str] = field(default_factory=list)  # causes at measurements before the last
    false: list[str] = field(default_factory=list)
    seconds: float = 0.0


def judged(name: str, seed: int, *, twin: bool) -> Judged:
    """Train one run with the monitor."""
    run, start = BY_NAME[name], process_time()
    setup = run.cured(seed) if twin else run.build(seed)
    assert setup is not None
    monitor = NTKMonitor()
    error = setup.fit(monitor)
    verdict = monitor.verdict or Verdict(Cause.UNKNOWN)  # none where nothing could be measured
    earlier = [v.cause.name for _, v in monitor.verdicts[:-1] if v.accuses]
    planted = "CLEAN" if twin else run.cause
    return Judged(
        name=name,
        twin=twin,
        seed=seed,
        half=run.half,
        planted=planted,
        named=verdict.cause.name,
        confidence=verdict.confidence,
        error=error,
        estimate=verdict.findings.get("error"),
        sentence=str(verdict),
        accused=earlier,
        false=false_claims(verdict, setup.module, planted, error),
        seconds=process_time() - start,
    )


def all_judged(runs: Iterable[Run], seed: int, jobs: int, *, twins: bool) -> list[Judged]:
    """Train runs side by side; one line each."""
    tasks = [partial(judged, run.name, seed, twin=False) for run in runs]
    if twins:
        tasks += [partial(judged, run.name, seed, twin=True) for run in runs if run.mistake]
    done = []
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=quiet) as pool:
        for task in as_completed([pool.submit(task) for task in tasks]):
            one = task.result()
            done.append(one)
            mark = "" if one.named == one.planted else "   <-"
            twin = " (cured)" if one.twin else ""
            print(f"{one.name + twin:45} {one.planted:20} {one.named:20}{mark}", flush=True)
    return sorted(done, key=lambda one: (one.half, Cause[one.planted], one.name, one.twin))


def chosen(patterns: Sequence[str], half: str | None) -> list[Run]:
    """Runs by part of name or cause, of one half or both."""
    wanted = [f"*{pattern}*" for pattern in patterns] or ["*"]
    return [
        run
        for run in RUNS
        if half in {None, run.half} and any(fnmatch(f"{run.cause} {run.name}", w) for w in wanted)
    ]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, print, write."""
    options = parser(__doc__, RESULTS)
    options.add_argument("patterns", nargs="*", help="part of the name or of the cause of runs")
    options.add_argument("--half", choices=["set", "judge"])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--twins", action="store_true", help="cured twins as well")
    options.add_argument("--beside", nargs="*", default=[], help="JSONs that the page has as well")
    options.add_argument("--page", default=str(PAGE), help="where the page goes; empty for none")
    asked = options.parse_args(arguments)
    report = begun(asked.threads)
    runs = chosen(asked.patterns, asked.half)
    done = all_judged(runs, asked.seed, asked.jobs, twins=asked.twins)
    done += [Judged(**one) for file in asked.beside for one in read(file)["runs"]]
    for title in sorted({group(one) for one in done}):
        of = [one for one in done if group(one) == title]
        print(f"{title}\n{confusion(of)}\n{counts(of)}")
    report["runs"] = [asdict(one) for one in done]
    write(asked.json, report)
    if asked.page:
        page(done, asked.page)
    return report


if __name__ == "__main__":
    main()
