"""Measuring a running step: what is read of its graph leaves no trace in the training.

Reading a graph runs code of the user: checkpoints compute their part of the forward pass again, and
hooks on parameters see each gradient. What that code draws, logs and writes into buffers is undone,
and hooks on parameters, which belong to gradients that an optimizer is to see, wait meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary, WeakSet

from torch import Tensor, nn

from pinn_ntk.graph.subclasses import plain_functions
from pinn_ntk.looks.untouched import untouched

_depth: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Module -> how often it is being measured now; not by thread, for autograd has some of its own."""

_fits: dict[int, WeakSet[object]] = {}
"""Thread -> callbacks of ours beside which a module is trained in it."""


def fit_begins(callback: object) -> None:
    """A module is trained in this thread, beside a callback."""
    _fits.setdefault(threading.get_ident(), WeakSet()).add(callback)


def fit_is_over(callback: object) -> None:
    """It is not any more; one that never was is fine."""
    for thread, callbacks in list(_fits.items()):
        callbacks.discard(callback)
        if not callbacks:
            _fits.pop(thread, None)


def is_measuring(module: nn.Module) -> bool:
    """Whether some callback is measuring the training of a module now."""
    return module in _depth


def trains_alone() -> bool:
    """Whether no other thread trains beside a callback of ours."""
    here = threading.get_ident()
    return not any(callbacks and thread != here for thread, callbacks in list(_fits.items()))


@contextmanager
def measuring(module: nn.Module, trained: Iterable[Tensor] = ()) -> Iterator[None]:
    """Within, the gradients that pass are those of a diagnostic: no hook of ours acts on them.

    Random states are put back if numbers were drawn; not where another thread trains as well,
    which may have drawn them: the global generators are of the process.
    """
    _depth[module] = _depth.get(module, 0) + 1
    try:
        leaves = [*module.parameters(), *trained]
        with untouched(module, draws=trains_alone()), plain_functions(), _hooks_off(leaves):
            yield
    finally:
        _depth[module] -= 1
        if not _depth[module]:
            del _depth[module]


@contextmanager
def _hooks_off(leaves: Iterable[Tensor]) -> Iterator[None]:
    """Hooks on leaves (clipping, noise, statistics) see no gradient of a diagnostic."""
    hooked = [
        (leaf._backward_hooks, dict(leaf._backward_hooks))
        for leaf in leaves
        if leaf._backward_hooks
    ]
    for hooks, _ in hooked:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, kept in hooked:
            hooks.update(kept)


def weighted_all(
    module: nn.Module, weight: float, gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Pre-hook of a node: its incoming gradients times a weight, save those of a diagnostic."""
    if is_measuring(module):
        return tuple(gradients)
    return tuple(None if g is None else weight * g for g in gradients)


def weighted(
    module: nn.Module, weighed: Callable[[Tensor], Tensor], gradient: Tensor
) -> Tensor | None:
    """The same as hook of a tensor, by a function."""
    return None if is_measuring(module) else weighed(gradient)
