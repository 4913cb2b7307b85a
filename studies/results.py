"""What the studies have in common: tables, figures and numbers under ``logs/``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's colours, told apart by the colour-blind too."""
STYLES = ("-", "--", "-.", ":", "-", "--")
T = TypeVar("T")
Record = dict[str, Any]
"""Numbers of one run, ready for JSON."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floating-point numbers with three digits.

    Example:
        >>> print(markdown(["width", "drift"], [[10, 0.12345]]))
        | width | drift |
        | --- | --- |
        | 10 | 0.123 |
    """
    texts = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *texts])


def of(records: Iterable[Record], **wanted: object) -> list[Record]:
    """The records of these settings, which may lie apart from the numbers under "setting"."""
    return [r for r in records if wanted.items() <= r.get("setting", r).items()]


def labelled(label: str, curves: Iterable[T]) -> Iterator[tuple[str | None, T]]:
    """Curves of one kind; only the first has the label, so that the legend has it once."""
    return zip(chain([label], repeat(None)), curves, strict=False)


def save(folder: Path, figure: Figure, numbers: Record) -> None:
    """Write ``<name>.png`` and ``<name>.json`` into a folder of that name."""
    write_json(folder / f"{folder.name}.json", numbers)
    figure.savefig(folder / f"{folder.name}.png", dpi=150)
    print(f"\nfigure and numbers: {folder / folder.name}.png, .json")


def write_json(path: Path, numbers: Record) -> None:
    """Write the file at once, so that a run that is stopped leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(numbers, indent=1) + "\n")
    draft.replace(path)


def remembered(path: Path, setting: Record, run: Callable[[], Record]) -> Record:
    """A setting and what its run gave: from the file, or from a run that is made now."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if not setting.items() <= known.items():
        known = setting | run()
        write_json(path, known)
    return known
