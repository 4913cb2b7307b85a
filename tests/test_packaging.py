"""The package is whole however it is installed: wheel by way of the sdist, source tree, editable.

Installations go into empty environments that see this one's packages, pinn_ntk excepted, as
symbolic links. So nothing is downloaded and nothing found that the installation did not bring.
"""

from __future__ import annotations

import email
import json
import shutil
import sys
import venv
import zipfile
from functools import partial
from pathlib import Path

import pytest

import pinn_ntk
from tests import scripts
from tests.scripts import ROOT

run = partial(scripts.run, env=None)  # that of the tests, which need not name this checkout
FOLDERS = ("pinn_ntk", "callbacks")
FILES = ("pyproject.toml", "README.md", "LICENSE")

INSPECT = """
import importlib.metadata, importlib.resources, importlib.util, json
import pinn_ntk, pinn_ntk.callbacks, pinn_ntk.graph, pinn_ntk.tensorboard

for package in (pinn_ntk, pinn_ntk.callbacks):
    for name in package.__all__:
        getattr(package, name)

print(json.dumps({
    "pinn_ntk": pinn_ntk.__file__,
    "callbacks": pinn_ntk.callbacks.__file__,
    "typed": importlib.resources.files("pinn_ntk").joinpath("py.typed").is_file(),
    "version": importlib.metadata.version("pinn_ntk"),
    "stray": importlib.util.find_spec("callbacks") is not None,
}))
"""


def package_files(source: Path) -> set[str]:
    """Every file a wheel has to hold, by the path it has there."""
    real = [file for folder in FOLDERS for file in (source / folder).rglob("*") if file.is_file()]
    names = {file.relative_to(source).as_posix() for file in real if file == file.resolve()}
    return {f"pinn_ntk/{name}" if name.startswith("callbacks/") else name for name in names}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, so that builds leave nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source").resolve()
    leave = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=leave)
    for file in FILES:
        shutil.copy(ROOT / file, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's packages as links, without pinn_ntk and without .pth files."""
    folder = tmp_path_factory.mktemp("borrowed")
    sites = [Path(p) for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    for entry in (entry for site in sites for entry in site.iterdir()):
        ours = entry.name.startswith(("pinn_ntk", "__editable__", "__pycache__"))
        if not ours and entry.suffix != ".pth" and not (folder / entry.name).exists():
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def clean_python(tmp_path: Path, borrowed: Path) -> Path:
    """Interpreter of an environment into which nothing is installed yet."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-I", "-c", purelib, cwd=tmp_path).stdout.strip())
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    return python


def install(python: Path, *what: str | Path) -> dict[str, object]:
    """Install offline, then look at the package from a folder that holds no source."""
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    run(python, "-I", "-m", "pip", "install", *offline, *what, cwd=python.parent)
    return json.loads(run(python, "-I", "-c", INSPECT, cwd=python.parent).stdout)


def test_clean_environment_has_no_package(clean_python: Path, tmp_path: Path):
    find = "import importlib.util as u, torch; print(u.find_spec('pinn_ntk'))"
    assert run(clean_python, "-I", "-c", find, cwd=tmp_path).stdout.strip() == "None"


def test_wheel_holds_every_file_once(wheel: Path, source: Path):
    names = zipfile.ZipFile(wheel).namelist()
    packaged = [name for name in names if ".dist-info/" not in name]
    assert sorted(packaged) == sorted(package_files(source))


def test_wheel_metadata(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(archive.read(name))
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Version"] == pinn_ntk.__version__
    assert set(metadata.get_all("Provides-Extra")) == {"examples", "deepxde", "test", "dev"}


@pytest.mark.parametrize("how", ["wheel", "source", "editable"])
def test_installed(how: str, wheel: Path, source: Path, clean_python: Path, tmp_path: Path):
    what = {"wheel": [wheel], "source": [source], "editable": ["-e", source]}[how]
    made, folder = install(clean_python, *what), source if how == "editable" else tmp_path / "venv"
    assert Path(made["pinn_ntk"]).resolve().is_relative_to(folder)
    assert Path(made["callbacks"]).resolve().is_relative_to(folder)
    assert made["typed"]
    assert made["version"] == pinn_ntk.__version__
    assert not made["stray"], "a top-level package called callbacks was installed"
