"""A look that several callbacks share: what one of them has computed is not computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.measuring import measuring
from pinn_ntk.callbacks.step.step_looks import StepLooks
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.step_terms import StepTerms

if TYPE_CHECKING:
    import pytorch_lightning as pl


class Looking(Protocol):
    """A callback that looks at backward passes."""

    certify: bool
    balances: bool
    active: bool
    looks: StepLooks

    @property
    def what(self) -> object:
        """What it measures; the same for callbacks that look at the same."""

    def will_look(self, trainer: pl.Trainer) -> bool:
        """Whether a look at the running backward pass may follow."""

    def weights_on_heads(self, loss: Tensor | None) -> Mapping[Node, float]:
        """Head of a term -> weight that it puts on its gradient."""


def shared_look(
    callback: Looking,
    every: Sequence[Looking],
    at: Backward,
    keep: Callable[[StepTerms], StepTerms],
    certify: Callable[[StepTerms], bool],
) -> Look | None:
    """A look of one of ``every`` callback of a trainer at the terms to keep, None without any."""
    active = [one for one in every if one.active]
    twins = [one for one in active if one is not callback and one.what == callback.what]
    certifies = any(twin.certify and twin.will_look(at.trainer) for twin in twins)
    looks = [twin.looks for twin in twins]
    look = callback.looks.look(at, keep, certify, looks, twin_certifies=certifies)
    if look is not None:
        look.balanced = partial(_weights_on_heads, every, at)
        look.balancing = any(one.balances for one in active)
        for other in (one for one in active if one is not callback):
            look.weigh_points(other.looks.points)
    return look


def _weights_on_heads(every: Sequence[Looking], at: Backward) -> dict[Node, float]:
    weights: dict[Node, float] = {}
    with measuring(at.module):
        for callback in every:
            weights |= callback.weights_on_heads(at.loss)
    return weights
