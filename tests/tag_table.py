"""The table of tags in the monitor's docstring and in docs, made of the diagnostics' own tags.

Write both anew: python -m tests.tag_table
"""

from __future__ import annotations

import re
from pathlib import Path

from pinn_ntk.callbacks.report import OVERHEAD, WEIGHT, WEIGHT_ERROR
from pinn_ntk.diagnostics.registry import chosen
from pinn_ntk.diagnostics.summary import ordered

ROOT = Path(__file__).parents[1]
DOCSTRING, DOCS = ROOT / "callbacks" / "monitor.py", ROOT / "docs" / "getting-started.md"


def rows(*, advice: bool) -> list[str]:
    tags = [tag for diagnostic in ordered(chosen()) for tag in diagnostic.tags]
    rows = []
    for tag in [*tags, *([WEIGHT, WEIGHT_ERROR] if advice else []), OVERHEAD]:
        mark = "`" if advice else "``"
        cells = [f"{mark}ntk/{tag.pattern}{mark}", tag.meaning, tag.unit]
        rows.append(f"| {' | '.join([*cells, tag.advice] if advice else cells)} |")
    return rows


def table(file: Path) -> str:
    """The table as it is to stand in a file."""
    advice, indent = file == DOCS, "" if file == DOCS else "    "
    header = ["key", "meaning", "unit", *(["how to read it"] if advice else [])]
    rule = " | ".join(["---"] * len(header))
    lines = [f"| {' | '.join(header)} |", f"| {rule} |", *rows(advice=advice)]
    return "".join(f"{indent}{line}\n" for line in lines)


def found(file: Path) -> str:
    """The table as it stands in a file."""
    match = re.search(
        r"^ *\| key \| meaning \| unit \|.*\n(?: *\|.*\n)+", file.read_text(), re.MULTILINE
    )
    assert match is not None, f"{file} has no table of tags"
    return match[0]


def main() -> None:
    for file in (DOCSTRING, DOCS):
        file.write_text(file.read_text().replace(found(file), table(file)))


if __name__ == "__main__":
    main()
