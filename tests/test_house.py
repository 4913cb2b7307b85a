"""Rules that hold over the whole repository and that no other tool checks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.scripts import ROOT, imported, name_of, sources

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CI = ROOT / ".ci" / "run"
ENGINE, PLUGIN = sources("pinn_ntk"), sources("callbacks")


def code_lines(markdown: str) -> list[str]:
    """Lines of fenced code blocks, without a leading prompt."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)
    return [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]


def test_sources_are_found_and_none_is_called_utils():
    assert ROOT / "pinn_ntk" / "graph" / "nodes.py" in ENGINE
    assert ROOT / "callbacks" / "__init__.py" in PLUGIN
    assert not set(ENGINE) & set(PLUGIN)
    folders = ("pinn_ntk", "callbacks", "examples", "studies", "benchmarks", "tests")
    assert [file for file in sources(*folders) if file.name == "utils.py"] == []


def test_readme_holds_the_commands_and_ci_runs_that_of_the_tests():
    readme = code_lines((ROOT / "README.md").read_text())
    install = "pip install -c constraints.txt -e"
    run = "python examples/poisson.py fit --config configs/poisson.yaml"
    assert f'{install} ".[examples]" && {run}' in readme
    in_ci = [line.strip() for line in CI.read_text().splitlines() if "&& pytest" in line]
    in_readme = [line for line in readme if "&& pytest" in line]
    assert in_ci == in_readme == [f'{install} ".[test]" && pytest -n 2']


def run_ci(folder: Path, failing: str | None) -> tuple[int, list[str]]:
    """Exit status of .ci/run and the commands it ran, with stand-ins for all tools."""
    log, bin_ = folder / "log", folder / "bin"
    bin_.mkdir()
    for tool in ("pip", "pytest", "ruff", "mypy"):
        script = f'#!/bin/sh\necho "{tool} $*" >> {log}\nexit {int(tool == failing)}\n'
        (bin_ / tool).write_text(script)
    (bin_ / "python").write_text(
        f'#!/bin/sh\nmkdir -p "$3/bin"\ncp {bin_}/* "$3/bin"\n'
        'echo "PATH=$3/bin:$PATH" > "$3/bin/activate"\n'
    )
    for tool in bin_.iterdir():
        tool.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(bin_ / "python"), "CI": "true"}
    done = subprocess.run([CI], env=environment, cwd=folder, capture_output=True, check=False)
    return done.returncode, log.read_text().splitlines()


def test_ci_runs_everything(tmp_path: Path):
    status, commands = run_ci(tmp_path, failing=None)
    assert status == 0
    assert commands == [
        "pip install -c constraints.txt -e .[test]",
        "pytest -n 2",
        "pip install -c constraints.txt ruff mypy",
        "ruff check .",
        "ruff format --check .",
        "mypy ",
    ]


@pytest.mark.parametrize("tool", ["pip", "pytest", "ruff", "mypy"])
def test_ci_fails_when_a_step_fails(tmp_path: Path, tool: str):
    status, commands = run_ci(tmp_path, failing=tool)
    assert status != 0
    assert commands[-1].startswith(tool)


def test_what_two_tests_need_lies_below_them():
    found = {name for file in sources("tests") for name in imported(file)}
    assert [name for name in found if name.startswith("tests.test_")] == []


@pytest.mark.parametrize("file", ENGINE + PLUGIN, ids=name_of)
def test_private_node_attributes_stay_in_one_module(file: Path):
    holds = "_saved_" in file.read_text()
    assert holds == (file == ROOT / "pinn_ntk" / "graph" / "nodes.py")


@pytest.mark.parametrize("file", ENGINE + PLUGIN, ids=name_of)
def test_warnings_go_through_one_door(file: Path):
    """`pinn_ntk.errors.warn`, so that callbacks know how often a thing was said."""
    doors = {ROOT / "pinn_ntk" / "errors.py", ROOT / "callbacks" / "trainer" / "guard.py"}
    assert file in doors or not re.search(r"\bwarnings\.warn", file.read_text())


@pytest.mark.parametrize("file", ENGINE, ids=name_of)
def test_engine_imports_neither_lightning_nor_the_callbacks(file: Path):
    forbidden = re.compile(r"((pytorch_)?lightning|lightning_fabric|(pinn_ntk\.)?callbacks)\b")
    assert [module for module in imported(file) if forbidden.match(module)] == []


@pytest.mark.parametrize("file", ENGINE + PLUGIN, ids=name_of)
def test_plotting_is_imported_only_where_something_is_drawn(file: Path):
    at_import = imported(file, inside=False)
    assert [module for module in at_import if module.startswith("matplotlib")] == []


def test_every_config_has_its_example():
    configs = {file.stem for file in (ROOT / "configs").glob("*.yaml")}
    examples = {file.stem for file in sources("examples", "studies")}
    assert "poisson" in configs
    starts = tuple(f"{example}_" for example in examples)
    assert all(f"{name}_".startswith(starts) for name in configs)  # poisson_plain, too


def requirements() -> list[Requirement]:
    """What pyproject.toml asks for, extras included, this package itself left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return [r for r in map(Requirement, lines) if r.name != project["name"]]


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_pin_lies_within_the_bounds(requirement: Requirement):
    (pin,) = pins()[canonicalize_name(requirement.name)].specifier
    assert pin.operator == "=="
    assert requirement.specifier.contains(pin.version)
