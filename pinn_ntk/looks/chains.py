"""Layers that a step calls one by one: ``self.last(tanh(self.first(x)))`` is a network as well.

Its output is that of the last layer, and its inputs are what the first one was called with. Which
layer comes behind which is told by the graph between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes


class Ends(NamedTuple):
    """Names of the modules that end a chain, and of those before them."""

    last: frozenset[str]
    before: frozenset[str]


class Chain:
    """Follows calls of modules in one run; ``ends`` are those of an earlier run, if there was one.

    >>> import torch
    >>> from torch import nn
    >>> first, last, x, chain = nn.Linear(1, 4), nn.Linear(4, 1), torch.zeros(3, 1), Chain()
    >>> h = first(x)
    >>> chain.passes("first", (x,), h, layer=True)[0] is x
    True
    >>> chain.passes("last", (h.tanh(),), last(h.tanh()), layer=True)[0] is x
    True
    >>> chain.found()
    Ends(last=frozenset({'last'}), before=frozenset({'first'}))
    """

    def __init__(self, ends: Ends | None = None) -> None:
        self.ends = ends
        self._made: dict[Node, tuple[str, tuple[Tensor, ...]]] = {}
        self._layers: set[str] = set()
        self._before: set[str] = set()
        self._used: set[str] = set()
        self._whole = True

    def passes(
        self, name: str, inputs: tuple[Tensor, ...], output: Tensor, *, layer: bool
    ) -> tuple[Tensor, ...]:
        """Note a call; gives what the first layer of its chain was called with."""
        wrapped = any(map(is_functorch_wrapped_tensor, (*inputs, output)))
        if wrapped or output.grad_fn is None:
            self._whole = self._whole and not layer
            return inputs
        source: dict[int, Tensor] = {}
        for x in inputs:
            behind = list(self._behind(x))
            self._used |= {before for before, _ in behind}
            if layer:
                self._before |= {before for before, _ in behind}
            every = [tensor for _, tensors in behind for tensor in tensors] or [x]
            source |= {id(tensor): tensor for tensor in every}
        start = tuple(source.values()) if layer else inputs
        self._made[nodes.origin(output)[0]] = name, start
        self._layers |= {name} if layer else set()
        return start

    def _behind(self, x: Tensor) -> Iterable[tuple[str, tuple[Tensor, ...]]]:
        """Names and sources of the calls next behind a tensor."""
        if x.grad_fn is None:
            return
        seen, stack = set(), [nodes.origin(x)[0]]
        while stack:
            node = stack.pop()
            if node in self._made:
                yield self._made[node]
            elif node not in seen:
                seen.add(node)
                stack += [child for child, _ in node.next_functions if child is not None]

    def found(self) -> Ends:
        """The ends of all chains of layers; none where the graph does not tell."""
        last = frozenset(self._layers - self._used) if self._whole else frozenset()
        return Ends(last, frozenset(self._before - last) if last else frozenset())
