"""The files of this repository; scripts among them as modules, and run as users run them."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
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


def path_of(name: str) -> Path:
    (path,) = (p for f in ("examples", "studies") if (p := ROOT / f / f"{name}.py").exists())
    return path


def load(name: str) -> ModuleType:
    """A script, imported as by one beside it: ``wave`` is not that of Python."""
    path, of_python = list(sys.path), sys.modules.pop("wave", None)
    sys.path.insert(0, str(path_of(name).parent))
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = path
        sys.modules.pop("wave", None)
        if of_python is not None:
            sys.modules["wave"] = of_python


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
