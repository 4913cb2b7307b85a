"""What computes the residuals of a step on a copy of the module: its training_step, or a function.

Both are plain values beside what the fit has anyway, so that another run may go on with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pinn_ntk.callbacks.step.residual_function import Route, residuals_of
from pinn_ntk.callbacks.step.stand_in import ReachedError, StandIn
from pinn_ntk.callbacks.step.tapped import taps_of_block
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.graph.terms.find import find_terms

if TYPE_CHECKING:
    import pytorch_lightning as pl


TOGGLES = ("toggle_optimizer", "untoggle_optimizer")
"""What a step that moves the parameters itself calls before and after."""


@dataclass(frozen=True)
class OfFunction:
    """Residuals that a function of the user gives."""

    shapes: Mapping[str, tuple[int, ...]]  # of the residuals to keep
    trainer: StandIn
    route: Route
    precision: Any
    said: str  # the function as the argument that it was

    def __call__(self, module: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Residuals of a copy."""
        trainer = cast("pl.Trainer", SimpleNamespace(precision_plugin=self.precision))
        owner = _before(self.trainer, module)
        return _kept(residuals_of(self.route, trainer, owner, batch, self.said), self.shapes)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"shapes": _listed(self.shapes), "trainer": self.trainer.state_dict()}

    def of_state(self, state: Mapping[str, Any]) -> OfFunction:
        """The same function, in the circumstances of a state."""
        trainer = self.trainer.of_state(state["trainer"])
        return replace(self, shapes=_shapes(state["shapes"]), trainer=trainer)


@dataclass(frozen=True)
class OfStep:
    """Residuals in the loss that ``training_step`` gives, or that it taps."""

    shapes: Mapping[str, tuple[int, ...]]
    trainer: StandIn
    names: tuple[str, ...] | None  # of all terms of the loss, in their order; None for taps
    idx: int  # of the batch
    context: Callable[[], AbstractContextManager[Any]]  # precision

    def __call__(self, module: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Residuals of a copy."""
        with taps_of_block() as taps, self.context():
            loss = _loss(_before(self.trainer, module), batch, self.idx)
        return _kept(taps if self.names is None else _by_place(loss, self.names), self.shapes)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        names = None if self.names is None else list(self.names)
        of_step = {"names": names, "idx": self.idx}
        return of_step | {"shapes": _listed(self.shapes), "trainer": self.trainer.state_dict()}

    def of_state(self, state: Mapping[str, Any]) -> OfStep:
        """The step of a state."""
        names = None if state["names"] is None else tuple(state["names"])
        shapes, trainer = _shapes(state["shapes"]), self.trainer.of_state(state["trainer"])
        return replace(self, names=names, idx=int(state["idx"]), shapes=shapes, trainer=trainer)


def _kept(given: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    kept = {name: plain(given[name]) for name in shapes if name in given}
    if {name: tuple(r.shape) for name, r in kept.items()} != shapes:
        raise ValueError("there are other terms when the step is run again")
    return kept


def _before(trainer: StandIn, module: nn.Module) -> pl.LightningModule:
    """A copy, which has lost its trainer, with the stand-in in that place; it logs nothing."""
    for part in module.modules():
        if "_trainer" in vars(part):
            vars(part).update(_trainer=trainer, log=lambda *_, **__: None)
    return cast("pl.LightningModule", module)


class UntilBackward(TorchFunctionMode):
    """Within, a backward pass ends the step."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is Tensor.backward:
            raise ReachedError(args[0])
        return function(*args, **(kwargs or {}))


def _reached(loss: Tensor, *_: Any, **__: Any) -> None:
    raise ReachedError(loss)


def _loss(module: pl.LightningModule, batch: Any, idx: int) -> Any:
    """What a step gives Lightning for the loss; the first one where it takes that itself."""
    until = nullcontext() if module.automatic_optimization else UntilBackward()
    if not module.automatic_optimization:
        vars(module).update(dict.fromkeys(TOGGLES, lambda *_, **__: None), manual_backward=_reached)
    module.on_train_batch_start(batch, idx)
    several = len(inspect.signature(module.training_step).parameters) > 1
    try:
        with until:
            given = module.training_step(*((batch, idx) if several else (batch,)))
    except ReachedError as reached:
        given = reached.loss
    return given.get("loss") if isinstance(given, Mapping) else given


def _by_place(loss: Any, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Residuals of a loss by names of its terms, which come in the same order in each run."""
    if not isinstance(loss, Tensor):
        raise TypeError(f"training_step gave a {type(loss).__name__} for the loss")
    terms = list(find_terms(plain(loss), check=False).values())
    if len(terms) != len(names):
        raise ValueError(f"the loss has {len(terms)} terms when it is run again, not {len(names)}")
    return {name: term.residual for name, term in zip(names, terms, strict=True)}


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}


def _shapes(listed: Mapping[str, list[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in listed.items()}
