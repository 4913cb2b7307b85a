"""Values that a checkpoint can hold."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor
from torch.nn import Parameter

ATOMS = (Tensor, Parameter, str, int, float, bool, complex, bytes, type(None))
"""What loads with ``weights_only=True``, besides containers of the same."""


def is_plain(value: Any) -> bool:
    """Whether a value of a checkpoint can be loaded again with ``weights_only=True``."""
    if type(value) in {list, tuple}:
        return all(map(is_plain, value))
    if type(value) in {dict, OrderedDict}:
        return all(is_plain(key) and is_plain(entry) for key, entry in value.items())
    return type(value) in ATOMS
