"""docs/verdict.md: how often the verdict is right, and what each cause looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.report import ROOT
from pinn_ntk import Cause

PAGE = ROOT / "docs" / "verdict.md"


class Judged(Protocol):
    """A run and what was said of it, see `benchmarks.verdict`."""

    name: str
    twin: bool
    half: str
    planted: str
    named: str
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
        "accused though cured": f"{sum(map(_accuses, twins))} of {len(twins)}",
        "with a false sentence": f"{sum(bool(one.false) for one in done)} of {len(done)}",
    }


def _accuses(one: Any) -> bool:
    return Cause[one.named] not in {Cause.CLEAN, Cause.EARLY, Cause.UNKNOWN}


HEAD = """# The verdict: why a PINN does not train

`NTKMonitor` judges at every measurement: one cause, the numbers it rests on, how sure it is, and what
to do. It is on the terminal when a fit ends, in the text `ntk/verdict` and `ntk/summary` of
TensorBoard, and in `monitor.verdict`; `ntk/verdict` as a scalar is the number of the cause below, so
that its change shows. [Getting started](getting-started.md) has it in a loop without Lightning.

## How often it is right

{runs} small PINNs, broken on purpose (one mistake each, confirmed by a twin without it that works),
healthy, and stopped early, trained under `NTKMonitor()` as it comes by `python -m benchmarks.verdict`,
which writes this page. Thresholds were set on one half of them and never looked at the other.
A broken run counts where it fails: its solution is off by more than 20 %.

{table}

Cause planted against cause named, of both halves:

{confusion}

## The causes
"""

TAIL = """
## What it cannot see

- A consistent but wrong equation, a wrong sign in a source: all terms are solved, and it says so.
  Only a solution that is known tells (a manufactured one).
- Where the step cannot be run again (manual optimisation without `residuals=`, a module that has no
  copy, a `training_step` that needs its Trainer): nothing is known of u = 0, of fresh points, of
  float64, of chance, of cut derivatives, of uniqueness. The verdict says so.
- Fresh points need points that the batch or the module hold as tensors. Of data there are none.
- Whether a term is solved is told by a tenth of its residual at u = 0, or of the largest seen so far
  where that is zero: an answer that is right to 5 % everywhere but in a thin layer is called solved.
- One cause is named, the first in the order of this page that is seen. Mend it, and look again.
"""


def page(done: Sequence[Any], failing: Collection[str], path: str | Path) -> None:
    """Write the page."""
    halves = {half: [one for one in done if one.half == half] for half in ("set", "judge")}
    figures = {half: counts(of, failing) for half, of in halves.items()}
    lines = ["| | thresholds set on | never looked at |", "| --- | --- | --- |"]
    lines += [f"| {n} | {figures['set'][n]} | {figures['judge'][n]} |" for n in figures["set"]]
    head = HEAD.format(
        runs=len([one for one in done if not one.twin]),
        table="\n".join(lines),
        confusion=confusion(one for one in done if not one.twin),
    )
    Path(path).write_text(head + "\n".join(map(_paragraph, Cause)) + TAIL)


def _paragraph(cause: Cause) -> str:
    source = f" ({cause.source})" if cause.source else ""
    return (
        f"\n### {int(cause)}. {cause.title[0].upper()}{cause.title[1:]}\n\n{cause.is_}\n"
        f"Seen: {cause.seen}\nHelps: {cause.helps}{source}\n"
    )
