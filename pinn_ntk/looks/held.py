"""What an object holds: tensors, numbers and all else in its attributes, lists and dicts.

Parameters of modules are left out, and what belongs to torch, numpy and Lightning themselves is not
looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

FOREIGN = ("torch", "numpy", "pytorch_lightning", "lightning", "builtins")
"""Packages whose objects are not looked into."""

LONG = 10_000
"""Entries above which a list or dict is taken for data, not for a holder of tensors."""

OF_MODULES = set(vars(nn.Module())) - {"_buffers", "_modules"}
"""Attributes of every module."""


class Place(NamedTuple):
    """Where something is held, and how something else is put there."""

    path: str  # such as "points.x" or "sampler.grid.0"
    value: Any
    put: Callable[[Any], None]


def held(value: Any, path: str = "") -> Iterator[Place]:
    """All places within an object of what is not looked into itself."""
    yield from _within(value, path, lambda _: None, {})


def _within(
    value: Any, path: str, put: Callable[[Any], None], seen: dict[int, Any]
) -> Iterator[Place]:
    if not _holds(value):
        yield Place(path, value, put)
        return
    if id(value) in seen:
        return
    seen[id(value)] = value
    for key, entry, put_entry in _entries(value, put):
        yield from _within(entry, f"{path}.{key}".lstrip("."), put_entry, seen)


Entries = Iterator[tuple[Any, Any, Callable[[Any], None]]]
"""Name, value, and how another value is put in its place."""


def _holds(value: Any) -> bool:
    """Whether something is looked into: of objects, those of the user's own classes."""
    if isinstance(value, list | tuple | dict):
        return len(value) < LONG
    if isinstance(value, nn.Module | MethodType | partial):
        return True
    if isinstance(value, Tensor | FunctionType | ModuleType | type):
        return False
    own = type(value).__module__.partition(".")[0] not in FOREIGN
    return own and hasattr(value, "__dict__")


def _entries(value: Any, put: Callable[[Any], None]) -> Entries:
    if isinstance(value, MethodType | partial):
        yield from _of_mapping(_bound(value))
    elif isinstance(value, tuple):
        yield from _of_tuple(value, put)
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            yield i, entry, partial(value.__setitem__, i)
    elif isinstance(value, nn.Module):
        own = {key: entry for key, entry in vars(value).items() if key not in OF_MODULES}
        yield from _of_mapping(vars(value), own)
    else:
        yield from _of_mapping(value if isinstance(value, dict) else vars(value))


def _bound(value: MethodType | partial[Any]) -> dict[str, Any]:
    if isinstance(value, MethodType):
        return {"self": value.__self__}
    return {"function": value.func, "args": value.args, "kwargs": value.keywords}


def _of_mapping(mapping: MutableMapping[Any, Any], shown: Any = None) -> Entries:
    entries = mapping if shown is None else shown
    for key, entry in list(entries.items()):
        name = "" if key in ("_buffers", "_modules") else key
        yield name, entry, partial(mapping.__setitem__, key)


def _of_tuple(value: tuple[Any, ...], put: Callable[[Any], None]) -> Entries:
    entries = list(value)

    def put_entry(i: int, new: Any) -> None:
        entries[i] = new
        named = hasattr(value, "_fields")
        put(type(value)(*entries) if named else type(value)(entries))

    for i, entry in enumerate(value):
        yield i, entry, partial(put_entry, i)


def bytes_held(*objects: Any) -> int:
    """Memory of all tensors and arrays that objects hold, parameters included."""
    found = [place.value for one in objects for place in held(one)]
    found += [p for one in objects if isinstance(one, nn.Module) for p in one.parameters()]
    arrays = [a for a in found if isinstance(a, np.ndarray)]
    tensors = [t for t in found if isinstance(t, Tensor) and t.layout == torch.strided]
    sizes = {id(array): array.nbytes for array in arrays}
    return sum((sizes | {id(t): t.numel() * t.element_size() for t in tensors}).values())
