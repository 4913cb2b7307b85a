"""The files of this repository; scripts among them as modules, and run as users run them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
ENVIRONMENT.pop("PYTHONWARNINGS", None)


def sources(*folders: str) -> list[Path]:
    """Python files under ``folders``, without what the symlink ``pinn_ntk/callbacks`` repeats."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return sorted(file for file in files if file == file.resolve())


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imported(file: Path, *, inside: bool = True) -> set[str]:
    """Modules that a file imports, with what is taken from them; inside of functions, too."""
    tree, modules = ast.parse(file.read_text()), set()
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def folder_of(name: str) -> Path:
    """Where a module lies; of two of one name, that of the studies."""
    file = f"{name.replace('.', '/')}.py"
    return next(p for f in ("studies", "examples") if (p := ROOT / f).joinpath(file).exists())


def path_of(name: str) -> Path:
    return folder_of(name) / f"{name.replace('.', '/')}.py"


@contextmanager
def beside(folder: Path) -> Iterator[None]:
    """Imports are as from a script in ``folder``: ``wave`` is not that of Python."""
    path, of_python = list(sys.path), sys.modules.pop("wave", None)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        sys.modules.pop("wave", None)
        if of_python is not None:
            sys.modules["wave"] = of_python


def load(name: str) -> ModuleType:
    """A script or what it imports, such as ``gallery.points``, imported as by one beside it."""
    with beside(folder_of(name)):
        return importlib.import_module(name)


def example(name: str) -> ModuleType:
    """A script of ``examples/``, under a name that no study has."""
    known = f"examples.{name}"
    if known not in sys.modules:
        file = ROOT / "examples" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(known, file)
        sys.modules[known] = importlib.util.module_from_spec(spec)
        with beside(file.parent):
            spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


def run(
    *command: str | Path, env: dict[str, str] | None = ENVIRONMENT, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """What a command did that has to succeed."""
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def python(
    script: Path, *options: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A script, run by a Python of its own."""
    return run(sys.executable, script, *map(str, options), cwd=cwd)


def command(name: str, *options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return python(path_of(name), *options, cwd=cwd)


def study(name: str, folder: Path, *options: str) -> dict[str, Any]:
    """The numbers that a study writes, and what it prints; its figure shows something."""
    from matplotlib.image import imread  # here, because most of those that import this draw nothing

    printed = command(name, *options, "--folder", str(folder / name)).stdout
    assert imread(folder / name / f"{name}.png")[..., :3].std() > 0.05
    return json.loads((folder / name / f"{name}.json").read_text()) | {"printed": printed}
