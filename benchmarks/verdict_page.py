"""docs/verdict.md: how often the verdict is right, and what each cause looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.report import ROOT
from pinn_ntk import Cause
from tests.broken.cases import RUNS

PAGE = ROOT / "docs" / "verdict.md"

TITLES = {"set": "thresholds set on", "judge": "judged on"}
"""Half -> what it is called on the page."""

NEAR = 2.0
"""Factor within which an estimate of the error is near."""


class Judged(Protocol):
    """A run and what was said of it, see `benchmarks.verdict`."""

    name: str
    twin: bool
    half: str
    planted: str
    named: str
    error: float
    estimate: float | None
    sentence: str
    accused: list[str]
    false: list[str]


def confusion(done: Iterable[Any]) -> str:
    """Cause planted -> causes named, with how often."""
    rows: dict[str, Counter[str]] = {}
    for one in done:
        rows.setdefault(one.planted, Counter())[one.named] += 1
    lines = ["| planted | runs | named | others named |", "| --- | --- | --- | --- |"]
    for planted in sorted(rows, key=lambda name: int(Cause[name])):
        named = rows[planted]
        others = ", ".join(f"{n} {k}" for n, k in named.most_common() if n != planted)
        lines.append(f"| {planted} | {sum(named.values())} | {named[planted]} | {others or '-'} |")
    return "\n".join(lines)


def counts(done: Sequence[Any], failing: Collection[str]) -> dict[str, str]:
    """The figures that are to be reached."""
    broken = [one for one in done if one.name in failing and not one.twin]
    healthy = [one for one in done if one.planted in {"CLEAN", "EARLY"} and not one.twin]
    twins = [one for one in done if one.twin]
    right = sum(one.named == one.planted for one in broken)
    accused = sum(bool(one.accused) or _accuses(one) for one in healthy)
    return {
        "cause named": f"{right} of {len(broken)}",
        "accused though healthy or early": f"{accused} of {len(healthy)}",
        "accused though cured": f"{sum(map(_accuses, twins))} of {len(twins)}"
        if twins
        else "not run",
        "with a false sentence": f"{sum(bool(one.false) for one in done)} of {len(done)}",
    }


def _accuses(one: Any) -> bool:
    return Cause[one.named] not in {Cause.CLEAN, Cause.EARLY, Cause.UNKNOWN}


MEASURED = """Small PINNs, broken on purpose (one mistake each, confirmed by a twin without it that
works), healthy, and stopped early, trained under `NTKMonitor()` as it comes by
`python -m benchmarks.verdict`, which writes this section. A broken run counts where it fails: its
solution is off by more than 20 %. Thresholds were set on {set} of them, of eight hands; {judge}
were written by three hands that had seen neither the rules nor the first ones nor each other, and
were judged before anybody looked at them: that is what to expect of a run of your own.

{table}

Cause planted against cause named:

{confusion}

Where another cause was named than planted:

{misses}

Where nothing is wrong, or it is early, the verdict says what error of u the residuals amount to.
It is within a factor of {near:g} of the true one in {close} of {estimated} such runs, twins
included."""


def page(done: Sequence[Any], failing: Collection[str], path: str | Path) -> None:
    """Write what was measured into the page, and the causes."""
    figures = {
        title: counts(of, failing)
        for half, title in TITLES.items()
        if (of := [one for one in done if one.half == half])
    }
    lines = [f"| | {' | '.join(figures)} |", f"| --- |{' --- |' * len(figures)}"]
    names = next(iter(figures.values()))
    lines += [f"| {n} | {' | '.join(of[n] for of in figures.values())} |" for n in names]
    first = [one for one in done if not one.twin]
    missed = [one for one in first if one.name in failing and one.named != one.planted]
    close, estimated = estimates(done)
    measured = MEASURED.format(
        set=sum(run.half == "set" for run in RUNS),
        judge=sum(run.half == "judge" for run in RUNS),
        table="\n".join(lines),
        confusion=confusion(first),
        misses="\n".join(f"- {one.name} ({one.half}): {_first_line(one)}" for one in missed),
        near=NEAR,
        close=close,
        estimated=estimated,
    )
    text = between(Path(path).read_text(), "measured", measured)
    Path(path).write_text(between(text, "causes", causes()))


def estimates(done: Iterable[Any]) -> tuple[int, int]:
    """Runs without a mistake in which the error is estimated within a factor, and all of these."""
    known = [
        one.estimate / one.error
        for one in done
        if one.estimate and one.error and one.planted in {"CLEAN", "EARLY"}
    ]
    return sum(1 / NEAR <= ratio <= NEAR for ratio in known), len(known)


def between(text: str, name: str, new: str) -> str:
    """A page with something new between two of its comments."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}{new}\n{end}{tail}"


def causes() -> str:
    """A paragraph a cause, by number."""
    return "\n".join(map(_paragraph, Cause)).strip()


def _first_line(one: Any) -> str:
    return str(one.sentence).partition("\n")[0]


def _paragraph(cause: Cause) -> str:
    source = f" ({cause.source})" if cause.source else ""
    return (
        f"\n### {int(cause)}. {cause.title[0].upper()}{cause.title[1:]}\n\n{cause.is_}\n"
        f"Seen: {cause.seen}\nHelps: {cause.helps}{source}\n"
    )
