"""Public names of a package whose modules are imported at the first use of a name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def publish(package: dict[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Give a package, by its ``globals()``, the names of modules below pinn_ntk; name -> module.

    Type checkers do not see it: one that sees ``__getattr__`` lets every misspelt name pass.
    """
    modules = {n: f"pinn_ntk.{module}" for module, listed in names.items() for n in listed.split()}

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(
                f"module {package['__name__']!r} has no attribute {name!r}; it has "
                f"{package['__all__']}"
            )
        return getattr(import_module(modules[name]), name)

    package |= {"__getattr__": find, "__dir__": lambda: sorted({*package, *package["__all__"]})}
    return modules
