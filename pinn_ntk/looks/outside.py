"""What the user's code may change outside of a module: globals, attributes of classes.

Put back after a run are numbers, lists, dicts, sets, attributes of objects, and generators of
random numbers, in the files in which the classes of the module are written and in those that they
use. An iterator cannot be put back.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from pinn_ntk.looks.held import FOREIGN, LONG

OURS = ("pinn_ntk", "lightning_utilities", "lightning_fabric")
INSTALLED = ("site-packages", "dist-packages")
SCALARS = (int, float, complex, str, bool, type(None), tuple)

Undo = Callable[[], None]


@contextmanager
def put_back(module: nn.Module) -> Iterator[None]:
    """Within, changes to what stands outside of a module pass without effect."""
    undo = [change for space in _spaces(module) for change in _undo_space(space)]
    try:
        yield
    finally:
        for change in undo:
            change()


def iterators(module: nn.Module) -> list[str]:
    """Names of iterators outside of a module that its methods may read, or what they call."""
    found: dict[str, None] = {}
    todo = [f for kind in _kinds(module) for f in _methods(kind)]
    seen: set[FunctionType] = set()
    while todo:
        function = todo.pop()
        if function in seen:
            continue
        seen.add(function)
        for name, value in _read(function):
            if _iterates(value):
                found[name] = None
            todo += [f for f in (*_methods(value), value) if _of_user(f)]
    return list(found)


def _methods(kind: Any) -> list[FunctionType]:
    values = vars(kind).values() if isinstance(kind, type) and _own(kind) else ()
    bare = [getattr(v, "fget", None) or getattr(v, "__func__", v) for v in values]
    return [f for f in bare if isinstance(f, FunctionType)]


def _read(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Globals that a function names, and functions within it."""
    todo = [function.__code__]
    while todo:
        code = todo.pop()
        todo += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in code.co_names:
            if name in function.__globals__:
                yield name, function.__globals__[name]


def _iterates(value: Any) -> bool:
    entries = [value]
    if isinstance(value, list | tuple | dict) and len(value) < LONG:
        entries = list(value.values() if isinstance(value, dict) else value)
    return any(hasattr(type(entry), "__next__") for entry in entries)


def _of_user(value: Any) -> bool:
    file = sys.modules.get(value.__module__ or "") if isinstance(value, FunctionType) else None
    return file is not None and _is_users(file)


def _spaces(module: nn.Module) -> list[type | ModuleType]:
    """Classes of the user's own in a module, their files, and files that these take from."""
    kinds = _kinds(module)
    files = {sys.modules[kind.__module__] for kind in kinds if kind.__module__ in sys.modules}
    used = {sys.modules.get(_module_of(v) or "") for file in files for v in vars(file).values()}
    further = {file for file in used if file is not None and _is_users(file)}
    return [*kinds, *files | further]


def _kinds(module: nn.Module) -> set[type]:
    return {kind for part in module.modules() for kind in type(part).__mro__ if _own(kind)}


def _module_of(value: Any) -> str | None:
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return name if isinstance(name, str) else None


def _own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in {*FOREIGN, *OURS}


def _is_users(file: ModuleType) -> bool:
    root = file.__name__.partition(".")[0]
    if root in {*FOREIGN, *OURS} or root in sys.stdlib_module_names:
        return root == "__main__"
    place = getattr(file, "__file__", None) or ""
    return bool(place) and not any(folder in place for folder in INSTALLED)


def _undo_space(space: type | ModuleType) -> Iterator[Undo]:
    for name, value in list(vars(space).items()):
        if name.startswith("__"):
            continue
        if isinstance(value, SCALARS):
            yield partial(_rebind, space, name, value)
        else:
            yield from _undo_value(value, deep=True)


def _rebind(space: Any, name: str, value: Any) -> None:
    if vars(space).get(name) is not value:
        setattr(space, name, value)


def _undo_value(value: Any, *, deep: bool) -> Iterator[Undo]:
    if isinstance(value, list | dict | set | deque):
        if len(value) < LONG:
            yield partial(_refill, value, value.copy())
    elif isinstance(value, torch.Generator):
        yield partial(torch.Generator.set_state, value, value.get_state())  # type: ignore[misc]
    elif isinstance(value, np.random.Generator):
        yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    elif isinstance(value, random.Random):
        yield partial(value.setstate, value.getstate())
    elif deep and _is_object(value):
        yield partial(_refill, vars(value), dict(vars(value)))
        for entry in list(vars(value).values()):
            yield from _undo_value(entry, deep=False)


def _is_object(value: Any) -> bool:
    """Whether it is an object of a class of the user's, and no module, which may be trained."""
    if isinstance(value, type | ModuleType | FunctionType | nn.Module) or not _own(type(value)):
        return False
    return _users_class(type(value)) and isinstance(getattr(value, "__dict__", None), dict)


def _users_class(kind: type) -> bool:
    file = sys.modules.get(kind.__module__)
    return file is not None and _is_users(file)


def _refill(holder: Any, before: Any) -> None:
    """Put the entries back, if they are others."""
    pairs = zip(_flat(holder), _flat(before), strict=False)
    if len(holder) != len(before) or any(a is not b for a, b in pairs):
        holder.clear()
        add = holder.update if isinstance(holder, dict | set) else holder.extend
        add(before)


def _flat(holder: Any) -> Iterator[Any]:
    if not isinstance(holder, Mapping):
        return iter(list(holder))
    return iter([part for item in holder.items() for part in item])
