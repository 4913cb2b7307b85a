"""The residuals of a step once more, under one changed circumstance, on a copy of the module.

The user's own module is never run twice: its counters and samplers would move on. It is copied
before the step begins, and each run takes place on a copy of that copy, from the random states that
the step began from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from pinn_ntk.looks.digest import RandomStates
from pinn_ntk.looks.networks import NetworkCall, Output, called
from pinn_ntk.looks.untouched import device_of, untouched

Compute = Callable[[nn.Module, Any], Mapping[str, Tensor]]
"""Module and batch -> live residuals by name."""

Map = Callable[[str, Tensor], Tensor]
"""Name of a tensor and itself -> what takes its place."""


@dataclass(frozen=True)
class Change:
    """What is different in a run; nothing where nothing is given.

    Attributes:
        output: In place of what each network gives, from its inputs and its output.
        tensors: In place of each tensor that the batch and the module hold, such as points.
        parameters: In place of each parameter of the module.
        double: Whether all is computed in float64.
        seed: Random numbers from this seed, in place of those of the step.
        thaw: Whether frozen parameters get a gradient.
    """

    output: Output | None = None
    tensors: Map | None = None
    parameters: Map | None = None
    double: bool = False
    seed: int | None = None
    thaw: bool = False


@dataclass(frozen=True)
class Ran:
    """What a run gave.

    Attributes:
        residuals: Term -> live residual, in the shape that the loss sees.
        calls: Calls of networks, in their order.
        tensors: Name -> tensor that batch and module held, parameters left out.
        params: Name -> parameter of the copy that was run.
    """

    residuals: Mapping[str, Tensor]
    calls: list[NetworkCall] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    params: dict[str, Tensor] = field(default_factory=dict)


class Rerun:
    """Runs what computes the residuals of a step again.

    Args:
        module: The module, before the step changes it; it is copied.
        batch: What the residuals are computed from; each run gets a copy.
        compute: Gives the residuals of a copy.
        aside: Object -> what a copy has in its place, for what is not to be copied (a Trainer).
    """

    def __init__(
        self,
        module: nn.Module,
        batch: Any,
        compute: Compute,
        aside: Mapping[int, Any] | None = None,
    ) -> None:
        self._aside = dict(aside or {})
        self.device = device_of(module)
        self.states = RandomStates.now(self.device)
        self.module, self.batch = self.copied(module), self.copied(batch)
        self.compute = compute

    def copied(self, what: Any) -> Any:
        return copy.deepcopy(what, dict(self._aside))

    def __call__(self, change: Change = Change()) -> Ran:  # noqa: B008 - frozen
        """Residuals under a change; raises whatever the user's code raises."""
        module, batch = self.copied(self.module), self.copied(self.batch)
        if change.double:
            module = module.double()
        module.requires_grad_(True) if change.thaw else None
        change = _in_dtype(change)
        if change.parameters is not None:
            _put_parameters(module, change.parameters)
        tensors: dict[str, Tensor] = {}
        batch = _put_tensors(module, batch, change.tensors, tensors)
        default = torch.get_default_dtype()
        with untouched(module), torch.enable_grad(), called(module, change.output) as calls:
            try:
                self._restore(change.seed)
                residuals = dict(self.compute(module, batch))
            finally:
                torch.set_default_dtype(default)
        return Ran(residuals, calls, tensors, dict(module.named_parameters()))

    def with_parameters(self, params: Mapping[str, Tensor]) -> Rerun:
        """The step as it was, with other parameters: what was learned then, is it known now?"""
        later = copy.copy(self)
        later.module = self.copied(self.module)
        _put_parameters(later.module, lambda name, old: params.get(name, old))
        return later

    def _restore(self, seed: int | None) -> None:
        self.states.restore(self.device)
        if seed is not None:
            with nullcontext():
                torch.manual_seed(seed)


def _in_dtype(change: Change) -> Change:
    """The tensors in float64 as well, where all is to be."""
    if not change.double:
        return change
    given = change.tensors or (lambda _, tensor: tensor)

    def doubled(name: str, tensor: Tensor) -> Tensor:
        found = given(name, tensor)
        return found.double() if found.is_floating_point() else found

    return replace(change, tensors=doubled)


def _put_parameters(module: nn.Module, put: Map) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.data = put(name, parameter.detach()).to(parameter).clone()


def _put_tensors(module: nn.Module, batch: Any, put: Map | None, seen: dict[str, Tensor]) -> Any:
    """Replace what module and batch hold; ``seen`` takes what is there then."""

    def replaced(place: str, holder: Any) -> Any:
        number = iter(range(10**6))

        def one(tensor: Tensor) -> Tensor:
            if isinstance(tensor, nn.Parameter):
                return tensor
            name, new = f"{place}.{next(number)}", tensor
            if put is not None:
                new = put(name, tensor.detach())
                new = new.detach().clone().requires_grad_(tensor.requires_grad)
            seen[name] = new
            return new

        return apply_to_collection(holder, Tensor, one)

    for prefix, part in module.named_modules():
        for holder in (vars(part), part._buffers):
            for name, value in list(holder.items()):
                if not (holder is vars(part) and name.startswith("_")):
                    if isinstance(value, Tensor | list | tuple | dict):
                        holder[name] = replaced(f"{prefix}.{name}".lstrip("."), value)
    return replaced("batch", batch)
