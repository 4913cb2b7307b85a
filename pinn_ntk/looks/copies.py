"""Copies of a module with all that it holds, which share nothing that the original may change."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import CellType, FunctionType, ModuleType
from typing import Any

from torch import Tensor
from torch.nn import Buffer, Parameter

from pinn_ntk.graph.subclasses import copied as copied_tensor
from pinn_ntk.looks.held import held


def copied(what: Any, aside: Mapping[int, Any] | None = None) -> Any:
    """A deep copy; ``aside`` has what stands in it for objects that are not to be copied, by id.

    Tensors of a graph, which ``copy.deepcopy`` refuses, are copied as leaves, subclasses of Tensor
    without what they say of copies (which may refuse what requires a gradient), and functions with
    what they enclose, such as a counter. What has no copy (a generator, an open file) raises.
    """
    memo: dict[int, Any] = dict(aside or {})
    for place in held(what):
        _prepare(place.value, memo)
    return copy.deepcopy(what, memo)


def _prepare(value: Any, memo: dict[int, Any]) -> None:
    if id(value) in memo:
        return
    if isinstance(value, Tensor):
        if not value.is_leaf or type(value) not in {Tensor, Parameter, Buffer}:
            memo[id(value)] = copied_tensor(value)
    elif isinstance(value, ModuleType):
        memo[id(value)] = value
    elif isinstance(value, FunctionType) and value.__closure__:
        _prepare_function(value, memo)


def _prepare_function(function: FunctionType, memo: dict[int, Any]) -> None:
    cells = function.__closure__ or ()
    new = tuple(memo.setdefault(id(cell), CellType()) for cell in cells)
    code, known = function.__code__, function.__globals__
    made = FunctionType(code, known, function.__name__, function.__defaults__, new)
    made.__kwdefaults__, made.__dict__ = function.__kwdefaults__, function.__dict__
    memo[id(function)] = made
    for cell, of_copy in zip(cells, new, strict=True):
        try:
            content = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        for place in held(content):
            _prepare(place.value, memo)
        of_copy.cell_contents = copy.deepcopy(content, memo)
