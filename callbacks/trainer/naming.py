"""Words for values that are the same in every process, for keys of checkpoints and messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pinn_ntk.looks.digest import digest


def named(function: Any) -> str:
    """A function in words that are the same in every process: no memory address.

    Of a partial, these are its arguments besides; of an object that is called, its class and those
    attributes that are plain.
    """
    if isinstance(function, partial):
        given = [*map(_plain, function.args), *_keywords(function.keywords)]
        return f"partial({', '.join([named(function.func), *given])})"
    if isinstance(function, str):
        return repr(function)
    name = getattr(function, "__qualname__", None)
    if name is not None:
        return str(name)
    attributes = vars(function) if callable(function) or is_dataclass(function) else {}
    return f"{type(function).__qualname__}({', '.join(_keywords(attributes))})"


def _keywords(given: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_plain(value)}" for name, value in given.items()]


def _plain(value: Any) -> str:
    if isinstance(value, str | int | float | complex | bytes | None):
        return repr(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor):
        return f"tensor {digest({'': value})}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_plain(item)}' for key, item in value.items())}}}"
    if isinstance(value, partial):
        return named(value)
    # No attributes of attributes, which may come round.
    return str(getattr(value, "__qualname__", type(value).__qualname__))
