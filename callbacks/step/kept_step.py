"""A step that can be run again, as plain values for a checkpoint.

Parameters are left out: what is asked of old steps is how the parameters of today do there. Where a
module holds anything else than tensors, numbers and strings (a generator, an array, a function that
counts), nothing is kept: what it was then could not be put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from pinn_ntk.looks.copies import copied
from pinn_ntk.looks.digest import RandomStates
from pinn_ntk.looks.held import bytes_held, held
from pinn_ntk.looks.plain import ATOMS, is_plain
from pinn_ntk.looks.rerun import Rerun

MOST = 2**24
"""Bytes above which a step is not kept in checkpoints (16 MiB)."""

STATIC = (FunctionType, BuiltinFunctionType, ModuleType, type, torch.dtype, torch.device)
"""What a training does not change, but for functions that enclose something."""


def state_of(rerun: Rerun) -> dict[str, Any]:
    """Plain values; empty where they would not do."""
    (batch,) = rerun.batch
    holds = _holds(rerun.module)
    if holds is None or not is_plain(batch) or bytes_held(holds, batch) > MOST:
        return {}
    state = {
        "batch": batch,
        "holds": holds,
        "states": rerun.states.state_dict(),
        "compute": rerun.compute.state_dict(),  # type: ignore[attr-defined]
    }
    return apply_to_collection(state, Tensor, _on_cpu) if is_plain(state) else {}


def restored(state: Mapping[str, Any], like: Rerun) -> Rerun | None:
    """The step of a state, on the module of another one; None where that holds other things."""
    module = copied(like.module)
    places = {place.path: place for place in held(module) if _is_plain(place.value)}
    if places.keys() != state["holds"].keys():
        return None
    for path, value in state["holds"].items():
        places[path].put(_at(value, places[path].value))
    rerun: Rerun = object.__new__(Rerun)
    rerun.device, rerun.module = like.device, module
    rerun.batch = [apply_to_collection(state["batch"], Tensor, lambda t: t.to(like.device))]
    rerun.states = RandomStates.of_state(state["states"])
    rerun.compute = like.compute.of_state(state["compute"])  # type: ignore[attr-defined]
    return rerun


def _holds(module: nn.Module) -> dict[str, Any] | None:
    """Place -> tensor, number or string that a module holds; None where it holds anything else."""
    found: dict[str, Any] = {}
    for place in held(module):
        if _is_plain(place.value):
            if place.path in found:
                return None
            found[place.path] = place.value
        elif not isinstance(place.value, (nn.Parameter, *STATIC)) or _encloses(place.value):
            return None
    return found


def _is_plain(value: Any) -> bool:
    return type(value) in ATOMS and not isinstance(value, nn.Parameter)


def _encloses(value: Any) -> bool:
    return isinstance(value, FunctionType) and bool(value.__closure__)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone().requires_grad_(tensor.requires_grad)


def _at(value: Any, there: Any) -> Any:
    """A tensor on the device of the one whose place it takes."""
    if not isinstance(value, Tensor) or not isinstance(there, Tensor):
        return value
    return value.detach().clone().to(there.device).requires_grad_(value.requires_grad)
