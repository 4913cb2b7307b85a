"""docs/integrations.md: each script runs in an environment of its own, and prints what is said."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.scripts import ENVIRONMENT, ROOT

FOLDER, PAGE = ROOT / "tests" / "libraries", ROOT / "docs" / "integrations.md"

PINNED = "-c", str(ROOT / "constraints.txt")

NEEDS: dict[str, list[str]] = {
    "pina": [*PINNED, "pina-mathlab==0.3.2.post2610"],
    "torchphysics": ["torchphysics==1.1.2", "numpy<2"],  # its own bound; our pins have numpy 2
    "anypinn": [*PINNED, "anypinn[lib]==0.25.8"],
    "pinnstorch": [*PINNED, "pinnstorch==0.1.2", "pyDOE==0.3.8", "lightning", "requests"],
    "deepxde": [*PINNED, "deepxde==1.15.0"],
    "loggers": [*PINNED, "wandb", "mlflow"],
    "plain_loop": [],
}
"""Script -> what pip installs for it, besides torch and what this package needs."""

OURS = ["pytorch-lightning", "scipy", "tensorboard", "jsonargparse[signatures]<5", "matplotlib"]

VARIES = {"overhead_fraction", "verdict"}
"""Not compared word for word: time, and what depends on it or on the last digits."""


def scripts() -> dict[str, str]:
    """Script -> its text."""
    files = sorted(FOLDER.glob("with_*.py"))
    return {file.stem.removeprefix("with_"): file.read_text() for file in files}


def section(name: str) -> str:
    """The part of the page that holds the command of a script."""
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (part,) = (p for p in parts if f"run.py {name}\n" in p)
    return part


def block(name: str, kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", section(name), re.DOTALL)
    assert found is not None
    return found[1]


def write(name: str, printed: str) -> None:
    """Put what was printed into the page, where ``PINN_NTK_WRITE`` asks for it."""
    part = section(name)
    PAGE.write_text(PAGE.read_text().replace(part, part.replace(block(name, "json"), printed)))


def environment(name: str) -> Path:
    """Python of the environment of a script; made once in ``PINN_NTK_LIBS``, if that is set."""
    base = os.environ.get("PINN_NTK_LIBS") or Path(tempfile.gettempdir()) / "pinn_ntk_libs"
    if not NEEDS[name]:
        return Path(sys.executable)
    folder = Path(base, name)
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for needs in ([f"torch=={torch.__version__.split('+')[0]}"], [*NEEDS[name], *OURS]):
            pip = [str(python), "-m", "pip", "install", "--quiet", *needs]
            ended = subprocess.run(pip, capture_output=True, text=True, check=False)
            if ended.returncode:
                pytest.skip(f"pip cannot install {needs}: {ended.stderr.strip()[-500:]}")
        done.touch()
    return python


def alike(got: Any, said: Any) -> bool:
    """Words are the same, and numbers within a tenth, or a certificate within a factor of 10."""
    if isinstance(said, dict):
        keys = said.keys() - VARIES
        return got.keys() - VARIES == keys and all(alike(got[k], said[k]) for k in keys)
    if isinstance(said, float):
        near = 0.1 if said > 1e-4 else 10.0
        return math.isclose(got, said, rel_tol=near) or (said < 1e-4 and got < 1e-5)
    return bool(got == said)


def test_the_page_shows_the_scripts_as_they_are():
    for name, text in scripts().items():
        assert block(name, "python") == text, f"docs/integrations.md differs from with_{name}.py"
    assert scripts().keys() == NEEDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_a_script_prints_what_the_page_says(name: str):
    command = [str(environment(name)), str(FOLDER / "run.py"), name]
    env = {**ENVIRONMENT, "WANDB_MODE": "offline"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = done.stdout[done.stdout.index("{\n") :]
    if os.environ.get("PINN_NTK_WRITE"):
        write(name, printed)
    got, said = json.loads(printed), json.loads(block(name, "json"))
    assert alike(got, said), json.dumps(got, indent=1)
    assert got.get("bit_identical", True)
    assert got["warnings"] == said["warnings"]
