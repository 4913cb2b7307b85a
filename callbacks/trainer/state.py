"""State of callbacks in checkpoints: under which key it goes, and that it can be loaded again."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from pinn_ntk.callbacks.trainer.flavours import Callback
from pinn_ntk.callbacks.trainer.naming import named
from pinn_ntk.looks.plain import is_plain

if TYPE_CHECKING:
    import pytorch_lightning as pl


C = TypeVar("C", bound="StatefulCallback")

WHAT = ("names", "include", "params", "residuals", "probe")
"""Settings that decide what is measured; state of others does not fit."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""In keys of versions that wrote callable objects as Python shows them."""


class StatefulCallback(Callback):
    """A callback whose state goes under its class and those settings that are not the default.

    A checkpoint written with another schedule is not lost: the state goes to the callback of its
    class that finds none of its own, where there is no choice.
    """

    verbose = True
    """Whether it says on the terminal what a fit is going to be and was."""
    _settings: Mapping[str, Any] = {}

    def _remember(self, given: Mapping[str, Any]) -> None:
        """Keep the settings that differ from the defaults; call it with ``locals()``."""
        known = [p for p in _parameters(type(self)) if p.name in given and p.name != "self"]
        settings = {p.name: _plain(given[p.name]) for p in known}
        self._settings = {p.name: settings[p.name] for p in known if settings[p.name] != p.default}

    def __repr__(self) -> str:
        """As it would be written, without what is the default."""
        given = ", ".join(f"{name}={value!r}" for name, value in self._settings.items())
        return f"{type(self).__name__}({given})"

    @property
    def what(self) -> dict[str, Any]:
        """The settings that decide what is measured."""
        return {name: self._settings.get(name) for name in WHAT}

    def __getstate__(self) -> dict[str, Any]:
        # Weak references cannot be pickled, and mean nothing in another process.
        attributes = vars(self).items()
        return {name: None if isinstance(value, ref) else value for name, value in attributes}

    @property
    def state_key(self) -> str:
        """Class and settings, such as ``NTKMonitor{'every_n_steps': 100}``."""
        return type(self).__name__ + (repr(self._settings) if self._settings else "")

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint.get("callbacks", {})
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        taken = {callback.state_key for callback in callbacks}
        left = [key for key in states if self._fits(key) and key not in taken]
        if self.state_key not in states and len(left) == 1:
            states[self.state_key] = states.pop(left[0])

    def _fits(self, key: str) -> bool:
        """Whether a state was written by a callback of this class that measured the same."""
        kind, brace, settings = key.partition("{")
        if kind != type(self).__name__:
            return False
        try:
            written: dict[str, Any] = ast.literal_eval(brace + settings) if brace else {}
        except (SyntaxError, ValueError):
            functions = {"residuals", "probe"} & self._settings.keys()
            return bool(ADDRESS.search(key)) and any(f"'{name}': " in key for name in functions)
        return all(written.get(name) == self._settings.get(name) for name in WHAT)


def callbacks_of(trainer: pl.Trainer, kind: type[C], asking: C | None = None) -> list[C]:
    """Every callback of a class among those of a trainer, and the one that asks.

    That may be missing there: within a callback of the user, which calls its hooks.
    """
    callbacks: Sequence[Any] = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if isinstance(callback, kind)]
    return found if asking is None or asking in found else [*found, asking]


def _parameters(kind: type) -> list[inspect.Parameter]:
    """Those of all constructors of a class, which may hand them on; its own defaults count."""
    own = [vars(base)["__init__"] for base in reversed(kind.__mro__) if "__init__" in vars(base)]
    every = [inspect.signature(constructor).parameters for constructor in own]
    return list({name: p for parameters in every for name, p in parameters.items()}.values())


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if type(value) in {list, tuple}:
        return type(value)(map(_plain, value))
    return value if is_plain(value) or isinstance(value, range) else named(value)
