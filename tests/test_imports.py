"""What importing costs, what it needs, and that every public name is there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pinn_ntk
import pinn_ntk.callbacks
import pinn_ntk.diagnostics
import pinn_ntk.limit
from tests.scripts import ROOT, run, sources

PACKAGES = [pinn_ntk, pinn_ntk.callbacks, pinn_ntk.diagnostics, pinn_ntk.limit]
PUBLIC = [
    pytest.param(package, name, id=f"{package.__name__}.{name}")
    for package in PACKAGES
    for name in package.__all__
]
of_each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda made: made.__name__)

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        blocked = {"pytorch_lightning", "lightning", "lightning_fabric", "matplotlib"}
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked by this test")

sys.meta_path.insert(0, Blocked())
"""

TINY_KERNEL = """
import pinn_ntk
import torch

for name in pinn_ntk.__all__:
    getattr(pinn_ntk, name)

net = torch.nn.Linear(2, 1).double()
x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
kernel = pinn_ntk.empirical_ntk({"data": net(x)}, net.parameters())
expected = x @ x.T + 1  # a linear model and its bias
torch.testing.assert_close(kernel["data"], expected, rtol=1e-14, atol=0)
"""


def run_fresh(code: str) -> str:
    """Output of ``code`` in an interpreter that has imported nothing yet."""
    return run(sys.executable, "-c", code).stdout


@pytest.mark.parametrize("package", ["pinn_ntk", "pinn_ntk.callbacks", "pinn_ntk.limit"])
def test_import_alone_is_light(package):
    heavy = {"torch", "lightning", "pytorch_lightning", "matplotlib", "numpy", "scipy"}
    loaded = run_fresh(f"import sys, {package}; print(*sys.modules)").split()
    assert package in loaded
    assert heavy & set(loaded) == set()


def test_kernel_needs_neither_lightning_nor_plotting():
    run_fresh(BLOCK + TINY_KERNEL)


@pytest.mark.parametrize("module", ["pytorch_lightning", "matplotlib"])
def test_block_does_block(module: str):
    code = f"try: import {module}\nexcept ImportError as error: print(error)"
    assert run_fresh(BLOCK + code).strip() == f"{module} is blocked by this test"


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_public_name_resolves_and_is_documented(package: ModuleType, name: str):
    value = getattr(package, name)
    assert value.__name__ == name
    assert value.__module__ == package._MODULES[name]
    doc = inspect.cleandoc(value.__doc__ or "")
    assert len(doc.split()) > 3
    assert not doc.startswith(f"{name}("), "the signature that dataclass puts in for a docstring"


FUNCTIONS = [p for p in PUBLIC if inspect.isfunction(getattr(p.values[0], p.values[1]))]


@pytest.mark.parametrize(("package", "name"), FUNCTIONS)
def test_public_function_documents_arguments_and_result(package: ModuleType, name: str):
    function = getattr(package, name)
    doc = inspect.cleandoc(function.__doc__)
    documented = re.findall(r"^    (\w+): ", doc, re.MULTILINE)
    assert set(inspect.signature(function).parameters) <= set(documented)
    assert "\nReturns:\n" in doc


@of_each_package
def test_table_all_and_checked_imports_agree(package: ModuleType):
    assert sorted(package._MODULES) == sorted(package.__all__)
    assert imports_for_type_checkers(package) == package._MODULES
    assert set(package.__all__) <= set(dir(package))


def imports_for_type_checkers(package: ModuleType) -> dict[str, str]:
    """Name -> module, as the imports under TYPE_CHECKING say."""
    tree = ast.parse(Path(package.__file__).read_text())
    guarded = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    imports = [node for node in guarded if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in imports for alias in node.names}


@of_each_package
def test_no_module_is_called_like_a_public_name(package: ModuleType):
    """Its import would put the module where the name is looked up."""
    modules = {file.stem for folder in package.__path__ for file in Path(folder).iterdir()}
    assert "__init__" in modules
    assert modules & set(package.__all__) == set()


@of_each_package
def test_misspelt_name_is_an_attribute_error(package: ModuleType):
    with pytest.raises(AttributeError, match=r"has no attribute 'emprical_ntk'; it has \["):
        _ = package.emprical_ntk


def test_every_module_imports():
    files = sources("pinn_ntk", "callbacks")
    assert files
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(("pinn_ntk", *parts) if parts[0] == "callbacks" else parts)
        assert importlib.import_module(name.removesuffix(".__init__"))
