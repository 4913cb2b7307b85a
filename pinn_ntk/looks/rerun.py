"""The residuals of a step once more, under one changed circumstance, on a copy of the module.

The user's own module is never run twice: its counters and samplers would move on. It is copied
before the step begins, and each run takes place on a copy of that copy, from the random states that
the step began from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from pinn_ntk.graph.subclasses import copied as copied_tensor
from pinn_ntk.graph.subclasses import own_functions
from pinn_ntk.looks.chains import Chain, Ends
from pinn_ntk.looks.copies import copied
from pinn_ntk.looks.derived import Derived
from pinn_ntk.looks.digest import RandomStates
from pinn_ntk.looks.held import held
from pinn_ntk.looks.in_double import LOW, InDouble
from pinn_ntk.looks.made_points import MadePoints
from pinn_ntk.looks.networks import NetworkCall, Output, called
from pinn_ntk.looks.outside import put_back
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
        fields: Whether it is noted what derivatives are taken of.
    """

    output: Output | None = None
    tensors: Map | None = None
    parameters: Map | None = None
    double: bool = False
    seed: int | None = None
    thaw: bool = False
    fields: bool = False


@dataclass(frozen=True)
class Ran:
    """What a run gave.

    Attributes:
        residuals: Term -> live residual, in the shape that the loss sees.
        calls: Calls of networks, in their order.
        tensors: Name -> tensor that batch and module held, parameters left out.
        params: Name -> parameter of the copy that was run.
        derived: What derivatives are taken of, if that was to be noted.
    """

    residuals: Mapping[str, Tensor]
    calls: list[NetworkCall] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    params: dict[str, Tensor] = field(default_factory=dict)
    derived: list[Tensor] = field(default_factory=list)


class Rerun:
    """Runs what computes the residuals of a step again.

    What the user's code writes into the module, draws, logs or prints in a run has no effect, and
    what it changes in globals and classes is put back, see `pinn_ntk.looks.outside`. What it writes
    into files is written again.

    Args:
        module: The module, before the step changes it; it is copied.
        batch: What the residuals are computed from; each run gets a copy.
        compute: Gives the residuals of a copy.
        aside: Identity of an object -> what a copy has in its place (a Trainer is not copied).
        states: Random states that a run begins from; by default those of now.

    Example:
        >>> def residuals(module, x):
        ...     return {"data": module(x) - 1}
        >>> rerun = Rerun(nn.Linear(1, 1), torch.ones(3, 1), residuals)
        >>> at_zero = rerun(Change(output=lambda inputs, u: 0 * u))
        >>> at_zero.residuals["data"].flatten().tolist(), at_zero.calls[0].inputs[0].shape
        ([-1.0, -1.0, -1.0], torch.Size([3, 1]))
    """

    _spare: Ran | None = None
    _ends: Ends | None = None  # of chains of layers, as the first run has them

    def __init__(
        self,
        module: nn.Module,
        batch: Any,
        compute: Compute,
        aside: Mapping[int, Any] | None = None,
        states: RandomStates | None = None,
    ) -> None:
        self.device = device_of(module)
        self.states = RandomStates.now(self.device) if states is None else states
        self.module, self.batch = copied((module, [batch]), aside)
        self.compute = compute

    def plain(self) -> Ran:
        """The step as it was; the next run without a change gives this one, and is spared."""
        self._spare = self(Change())
        return self._spare

    def forget(self) -> None:
        """Let go of the graph of `plain`."""
        self._spare = None

    def __call__(self, change: Change = Change()) -> Ran:
        """Residuals under a change; raises whatever the user's code raises."""
        spare, self._spare = self._spare, None
        if spare is not None and change == Change():
            return spare
        self._spare = spare
        if self._ends is None and change.output is not None:
            self.forget()
            self(Change())
        chain = Chain(self._ends)
        module, batch = copied((self.module, self.batch))
        tensors = _changed(module, batch, change)
        mode = InDouble() if change.double else nullcontext()
        derived = Derived()
        with (
            untouched(module),
            torch.enable_grad(),
            own_functions(),
            redirect_stdout(StringIO()),
            put_back(module),
            MadePoints(change.tensors, tensors, list(tensors.values())),
            called(module, change.output, chain) as calls,
        ):
            self.states.restore(self.device)
            if change.seed is not None:
                torch.manual_seed(change.seed)
            with mode, derived if change.fields else nullcontext():
                residuals = dict(self.compute(module, batch[0]))
        self._ends = chain.found() if self._ends is None else self._ends
        return Ran(residuals, calls, tensors, dict(module.named_parameters()), derived.fields)

    def with_parameters(self, params: Mapping[str, Tensor]) -> Rerun:
        """The step as it was, with other parameters: what was learned then, is it known now?"""
        later: Rerun = object.__new__(type(self))
        later.__dict__ |= vars(self)
        later.forget()
        later.module, later.batch = copied((self.module, self.batch))
        _put_parameters(later.module, params.get)
        return later


def _changed(module: nn.Module, batch: list[Any], change: Change) -> dict[str, Tensor]:
    """Make a change to a copy; name -> tensor that it holds then."""
    if change.double:
        module.double()
    if change.thaw:
        module.requires_grad_(True)
    if change.parameters is not None:
        _put_parameters(module, change.parameters)
    tensors: dict[str, Tensor] = {}
    put: dict[int, Tensor] = {}  # what stands at several places is changed once
    for holder, path in ((module, ""), (batch, "batch")):
        for name, tensor, place in _tensors(holder, path):
            if id(tensor) not in put:
                put[id(tensor)] = _new(name, tensor, change)
            tensors[name] = put[id(tensor)]
            place(put[id(tensor)])
    return tensors


def _tensors(holder: Any, path: str) -> list[tuple[str, Tensor, Callable[[Any], None]]]:
    found = [place for place in held(holder, path) if isinstance(place.value, Tensor)]
    return [
        (name.replace("batch.0", "batch", 1) if path else name, tensor, put)
        for name, tensor, put in found
        if not isinstance(tensor, nn.Parameter)
    ]


def _new(name: str, tensor: Tensor, change: Change) -> Tensor:
    new = tensor
    if change.double and tensor.dtype in LOW:
        new = tensor.detach().double().requires_grad_(tensor.requires_grad)
    if change.tensors is None:
        return new
    given = change.tensors(name, new.detach())
    return copied_tensor(given.detach()).requires_grad_(tensor.requires_grad)


def _put_parameters(module: nn.Module, put: Map) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.data = put(name, parameter.detach()).to(parameter).clone()
