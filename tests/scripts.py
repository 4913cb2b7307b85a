"""The scripts of ``examples/`` and ``studies/``: as modules, and run as users run them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.image import imread

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
ENVIRONMENT.pop("PYTHONWARNINGS", None)


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


def python(script: Path, *options: Any, **where: Any) -> subprocess.CompletedProcess[str]:
    """A script, run by a Python of its own."""
    given = [sys.executable, str(script), *map(str, options)]
    done = subprocess.run(
        given, env=ENVIRONMENT, capture_output=True, text=True, check=False, **where
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    return done


def command(name: str, *options: str, **where: Any) -> subprocess.CompletedProcess[str]:
    return python(path_of(name), *options, **where)


def study(name: str, folder: Path, *options: str) -> dict[str, Any]:
    """The numbers that a study writes, and what it prints; its figure shows something."""
    printed = command(name, *options, "--folder", str(folder / name)).stdout
    assert imread(folder / name / f"{name}.png")[..., :3].std() > 0.05
    return json.loads((folder / name / f"{name}.json").read_text()) | {"printed": printed}
