"""Calls of networks while a module runs: what goes into each, what comes out, what takes its place.

A network is a module that is called, in a step, by nothing but the step itself: ``self.net(x)``, or
``self(x)`` where the LightningModule is the network; or it is a chain of layers that are called
one by one, see `pinn_ntk.looks.chains`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor

from pinn_ntk.looks.chains import Chain, Ends

NO_ENDS = Ends(frozenset(), frozenset())
"""Where each layer is looked at by itself."""

Output = Callable[[tuple[Tensor, ...], Tensor], Tensor]
"""Inputs and output of a network -> what takes the place of the output, of the same shape."""


@dataclass(frozen=True)
class NetworkCall:
    """One call of a network.

    Attributes:
        name: Name of the module; empty for the outermost one.
        inputs: Tensors that it was called with.
        output: What it gave, alive.
        leaf: Whether it has no module inside, as a layer that is called by itself.
        chained: Whether it is the last of such layers, and ``inputs`` are those of the first.
    """

    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    leaf: bool
    chained: bool = False


@contextmanager
def called(
    module: nn.Module, output: Output | None = None, chain: Chain | None = None
) -> Iterator[list[NetworkCall]]:
    """Listen to calls of networks within a module; ``output`` takes the place of what they give.

    Chains of layers are networks where a ``chain`` knows their ends from a run before this one,
    or finds them in this one, which changes nothing then.
    """
    listener = Listener(output, chain or Chain(NO_ENDS))
    handles = []
    for name, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(listener.before))
        hook = partial(listener.after, name)
        handles.append(part.register_forward_hook(hook, with_kwargs=True, always_call=True))
    try:
        yield listener.calls
    finally:
        for handle in handles:
            handle.remove()
        listener.end()


class Listener:
    """What `called` attaches to the modules."""

    def __init__(self, output: Output | None, chain: Chain) -> None:
        self.output, self.chain = output, chain
        self.calls: list[NetworkCall] = []
        self._depth = 0

    def before(self, *_: Any) -> None:
        """A module is called."""
        self._depth += 1

    def after(self, name: str, part: nn.Module, args: Any, kwargs: Any, given: Any) -> Any:
        """It has given an output; gives what takes the place of that, or None."""
        self._depth -= 1
        bare = not any(True for _ in part.parameters())  # a loss, an activation
        if self._depth or bare or not isinstance(given, Tensor):
            return None
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        inputs = tuple(t for t in tensors if t.is_floating_point())
        leaf, ends = not any(True for _ in part.children()), self.chain.ends
        start = self.chain.passes(name, inputs, given, layer=leaf)
        if ends is not None and name in ends.before:
            return None
        chained = leaf and (ends is None or name in ends.last)
        inputs = start if chained else inputs
        put = given if self.output is None else self.output(inputs, given)
        seen = tuple(map(_outermost, inputs))
        self.calls.append(NetworkCall(name, seen, _outermost(put), leaf, chained))
        return put

    def end(self) -> None:
        """The run is over: layers before the last of a chain are no networks."""
        ends = self.chain.found() if self.chain.ends is None else self.chain.ends
        self.calls[:] = [_of_chain(c, ends) for c in self.calls if c.name not in ends.before]


def _of_chain(call: NetworkCall, ends: Ends) -> NetworkCall:
    last = call.chained and call.name in ends.last
    return replace(call, leaf=call.leaf and not last, chained=last)


def _outermost(tensor: Tensor) -> Tensor:
    """The tensor of all points behind one that ``vmap`` and its kin hand to a function of one."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor


def zero(_: tuple[Tensor, ...], given: Tensor) -> Tensor:
    """u = 0, still a function of the parameters and of the points."""
    return given * 0


def constant(value: float, component: int | None = None) -> Output:
    """u = value; of several outputs one alone, where a component is given, and the others 0."""

    def output(_: tuple[Tensor, ...], given: Tensor) -> Tensor:
        field = given * 0 + value
        if component is None or not given.ndim or given.shape[-1] <= component:
            return field
        chosen = torch.arange(given.shape[-1], device=given.device) == component
        return torch.where(chosen, field, given * 0)

    return output


def power(order: int, axis: int | None = None) -> Output:
    """A field whose only derivatives are of one order, at every point: sum w_j (x_j - x_0j)^order.

    Value and derivatives are taken at x = x_0, so that a residual that it changes holds one of that
    order; by one coordinate where an ``axis`` is given. The w_j are 1, 1.3, 1.6, ..., so that
    derivatives by several coordinates do not cancel, as those of a wave equation would.
    """

    def output(inputs: tuple[Tensor, ...], given: Tensor) -> Tensor:
        field = given * 0
        for place, column in enumerate(_columns(inputs, given)):
            weight = 1 + 0.3 * place if axis is None else float(place == axis)
            if weight:
                field = field + weight * (column - column.detach()) ** order
        return field

    return output


def beside(field: Output) -> Output:
    """A field added to what a network gives."""
    return lambda inputs, given: given + field(inputs, given)


def _columns(inputs: tuple[Tensor, ...], given: Tensor) -> list[Tensor]:
    """Coordinates of the points, each of a shape that can be added to the output ``given``."""
    shape = (len(given), *[1] * (given.ndim - 1)) if given.ndim else ()
    columns = []
    for x in inputs:
        if given.ndim and x.ndim and len(x) == len(given) and x.numel() == len(x):
            columns.append(x.reshape(shape))
        elif x.ndim and x.shape[:-1] == given.shape[: x.ndim - 1] and x.ndim == 2:
            columns += [column.reshape(shape) for column in x.split(1, -1)]
        elif x.ndim and x.shape[:-1] == given.shape[:-1]:
            columns += x.split(1, -1)
    return columns
