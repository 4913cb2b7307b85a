"""Chapters of the code: what each may import, held by one table, and how large a module may be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.scripts import ROOT, imported, name_of, sources

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "lazy": set(),
    "taps": set(),
    "tensorboard": set(),
    "limit": {"lazy"},
    "kernel": {"errors"},
    "graph": {"kernel", "errors"},
    "graph.terms": {"graph", "errors"},
    "graph.jacobian": {"graph", "kernel", "errors"},
    "analysis": {"graph", "graph.terms", "kernel", "errors"},
    "looks": {"analysis", "graph", "graph.terms", "graph.jacobian", "kernel", "errors"},
    "weights": {"looks", "analysis", "kernel", "taps", "errors"},
    "verdict": {"looks", "analysis", "graph", "graph.terms", "graph.jacobian", "kernel", "errors"},
    "diagnostics": {
        *("verdict", "weights", "looks", "limit", "analysis", "graph", "graph.terms", "kernel"),
        *("tensorboard", "errors", "lazy"),
    },
    "integrations": {"diagnostics", "verdict", "weights", "looks", "errors"},
    "callbacks.trainer": {"diagnostics", "looks", "tensorboard", "errors"},
    "callbacks.step": {
        *("callbacks.trainer", "weights", "looks", "graph", "graph.terms", "kernel"),
        *("taps", "errors"),
    },
    "callbacks.weighting": {
        *("callbacks.step", "callbacks.trainer", "weights", "looks", "graph", "graph.terms"),
        "errors",
    },
    "callbacks": {
        *("callbacks.weighting", "callbacks.step", "callbacks.trainer", "diagnostics"),
        *("verdict", "weights", "looks", "graph", "kernel", "errors", "lazy"),
    },
}
"""Chapter -> chapters that it may import, besides itself; from the bottom up."""

FOLDERS = sorted(set(MAY_IMPORT) - {"errors", "lazy", "taps"})
FILES = sources("pinn_ntk", "callbacks")


def module_of(file: Path) -> str:
    """Name below ``pinn_ntk``, such as ``graph.terms.find``."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "callbacks" else parts[1:]).removesuffix(".__init__")


def chapter_of(module: str) -> str:
    fitting = [c for c in MAY_IMPORT if f"{module}.".startswith(f"{c}.")]
    assert fitting, f"{module} belongs to no chapter"
    return max(fitting, key=len)


MODULES = {module_of(file) for file in FILES}


def imported_here(file: Path) -> set[str]:
    """Modules of this package that a file names, inside of functions and for types too."""
    ours = {n.removeprefix("pinn_ntk.") for n in imported(file) if n.startswith("pinn_ntk.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in ours}


def test_the_table_runs_one_way():
    below: set[str] = set()
    for chapter, uses in MAY_IMPORT.items():
        assert uses <= below, f"{chapter} uses a chapter that stands above it"
        below.add(chapter)


@pytest.mark.parametrize("file", [f for f in FILES if f.parent != ROOT / "pinn_ntk"], ids=name_of)
def test_imports_follow_the_table(file: Path):
    own = chapter_of(module_of(file))
    used = {chapter_of(module) for module in imported_here(file)} - {own}
    assert used <= MAY_IMPORT[own]


def test_the_imports_of_a_module_are_seen():
    engine = ROOT / "pinn_ntk"
    assert "graph.nodes" in imported_here(engine / "graph" / "walk.py")
    assert "limit.distance" in imported_here(engine / "diagnostics" / "distance_to_limit.py")


@pytest.mark.parametrize("chapter", FOLDERS)
def test_every_chapter_says_what_it_is_for_and_what_it_may_import(chapter: str):
    start = ROOT if chapter.startswith("callbacks") else ROOT / "pinn_ntk"
    text = start.joinpath(*chapter.split("."), "__init__.py").read_text()
    said = re.search(r"^May import: ([^;]+?)\.$", ast.get_docstring(ast.parse(text)) or "", re.M)
    assert said is not None
    names = set() if said[1] == "nothing of this package" else set(re.split(r",\s+", said[1]))
    if "the engine" in names:  # all of pinn_ntk that is no callback
        names = names - {"the engine"} | {c for c in MAY_IMPORT if not c.startswith("callbacks")}
    assert names >= MAY_IMPORT[chapter]


def lines_of_code(file: Path) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    text = file.read_text()
    strings = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    prose = {n for s in strings for n in range(s.lineno, (s.end_lineno or s.lineno) + 1)}
    numbered = enumerate(map(str.strip, text.splitlines()), start=1)
    return sum(bool(line) and line[0] != "#" and n not in prose for n, line in numbered)


@pytest.mark.parametrize("file", FILES + sources("examples", "studies", "benchmarks"), ids=name_of)
def test_no_module_is_too_long(file: Path):
    assert len(file.read_text().splitlines()) <= 300
    assert lines_of_code(file) <= 180


def test_loose_modules_are_few():
    loose = {"__init__.py", "errors.py", "lazy.py", "taps.py"}
    assert {file.name for file in (ROOT / "pinn_ntk").glob("*.py")} == loose
    assert len(list((ROOT / "callbacks").glob("*.py"))) <= 8
