"""docs/verdict.md: how often the verdict is right, and what each cause looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.report import ROOT
from pinn_ntk import Cause
from tests.broken.run import FAILS

PAGE = ROOT / "docs" / "verdict.md"

SEEDS, STRANGERS, LOOKED_AT = "other seeds", "by strangers", "thresholds set on"
"""Groups of runs: of a seed never looked at, of a hand that nobody had read, and the others."""

HEALTHY = ("CLEAN", "EARLY")

NEAR = 2.0
"""Factor within which an estimate of the error is near."""


class Judged(Protocol):
    """A run and what was said of it, see `benchmarks.verdict`."""

    name: str
    twin: bool
    seed: int
    half: str
    planted: str
    named: str
    error: float
    estimate: float | None
    sentence: str
    accused: list[str]
    false: list[str]


def fails(one: Judged) -> bool:
    """Whether something was to be named: it was planted, and the run failed."""
    return one.planted not in HEALTHY and not one.error <= FAILS


def group(one: Judged) -> str:
    """Which of the columns of the page a run counts in."""
    if one.seed:
        return SEEDS
    return STRANGERS if one.half == "judge" else LOOKED_AT


def confusion(done: Iterable[Judged]) -> str:
    """Cause planted -> causes named, with how often, of runs that failed and healthy ones."""
    rows: dict[str, Counter[str]] = {}
    for one in done:
        if not one.twin and (fails(one) or one.planted in HEALTHY):
            rows.setdefault(one.planted, Counter())[one.named] += 1
    lines = ["| planted | runs | named | others named |", "| --- | --- | --- | --- |"]
    for planted in sorted(rows, key=lambda name: int(Cause[name])):
        named = rows[planted]
        others = ", ".join(f"{n} {k}" for n, k in named.most_common() if n != planted)
        lines.append(f"| {planted} | {sum(named.values())} | {named[planted]} | {others or '-'} |")
    return "\n".join(lines)


def counts(done: Sequence[Judged]) -> dict[str, str]:
    """The figures that are to be reached."""
    broken = [one for one in done if fails(one)]
    healthy = [one for one in done if one.planted in HEALTHY and not one.twin]
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


def _accuses(one: Judged) -> bool:
    return Cause[one.named] not in {Cause.CLEAN, Cause.EARLY, Cause.UNKNOWN}


MEASURED = """Small PINNs, broken on purpose (one mistake each, confirmed by a twin without it that
works), healthy, and stopped early, trained under `NTKMonitor()` as it comes by
`python -m benchmarks.verdict`, which writes this section. A broken run counts where it fails: its
solution is off by more than 20 %.

{table}

{confusions}

Where nothing is wrong, or it is early, the verdict says what error of u the residuals amount to.
It is within a factor of {near:g} of the true one in {close} of {estimated} such runs, twins
included."""


def page(done: Sequence[Any], path: str | Path) -> None:
    """Write what was measured into the page, and the causes."""
    groups = {
        title: of
        for title in (STRANGERS, SEEDS, LOOKED_AT)
        if (of := [one for one in done if group(one) == title])
    }
    figures = {title: counts(of) for title, of in groups.items()}
    lines = [f"| | {' | '.join(figures)} |", f"| --- |{' --- |' * len(figures)}"]
    names = next(iter(figures.values()))
    lines += [f"| {n} | {' | '.join(of[n] for of in figures.values())} |" for n in names]
    close, estimated = estimates(done)
    measured = MEASURED.format(
        table="\n".join(lines),
        confusions="\n\n".join(_confused(title, of) for title, of in groups.items()),
        near=NEAR,
        close=close,
        estimated=estimated,
    )
    text = between(Path(path).read_text(), "measured", measured)
    Path(path).write_text(between(text, "causes", causes()))


def _confused(title: str, done: Sequence[Any]) -> str:
    """Cause planted against cause named, and the runs where these differ."""
    missed = [one for one in done if fails(one) and one.named != one.planted]
    misses = "\n".join(f"- {one.name}: {_first_line(one)}" for one in missed)
    return (
        f"### Runs {title}\n\nCause planted against cause named:\n\n{confusion(done)}\n\n"
        f"Where another cause was named than planted:\n\n{misses or '- nowhere'}"
    )


def estimates(done: Iterable[Judged]) -> tuple[int, int]:
    """Runs without a mistake in which the error is estimated within a factor, and all of these."""
    known = [
        one.estimate / one.error
        for one in done
        if one.estimate and one.error and one.planted in HEALTHY
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


def _first_line(one: Judged) -> str:
    return str(one.sentence).partition("\n")[0]


def _paragraph(cause: Cause) -> str:
    source = f" ({cause.source})" if cause.source else ""
    return (
        f"\n### {int(cause)}. {cause.title[0].upper()}{cause.title[1:]}\n\n{cause.is_}\n"
        f"Seen: {cause.seen}\nHelps: {cause.helps}{source}\n"
    )
