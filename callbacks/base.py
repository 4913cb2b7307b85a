"""The life cycle that monitor and balancer share, and every later callback that reads kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.callbacks.log_writer import LogWriter
from pinn_ntk.callbacks.schedule import Schedule
from pinn_ntk.callbacks.step.manual_backward import ManualBackward, measuring
from pinn_ntk.callbacks.step.step_inputs import StepInputs
from pinn_ntk.callbacks.step.term_finder import TermFinder, made_by
from pinn_ntk.callbacks.trainer.checks import unsupported_strategy
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.loggers import publish
from pinn_ntk.callbacks.trainer.migrate import VERSION, migrate
from pinn_ntk.callbacks.trainer.state import StatefulCallback
from pinn_ntk.callbacks.trainer.steps import last_step, logged_step, loss_scale
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.parameters import Patterns, trained_parameters
from pinn_ntk.looks.step_terms import StepTerms

if TYPE_CHECKING:
    import pytorch_lightning as pl

C = TypeVar("C", bound="KernelCallback")


class KernelCallback(StatefulCallback):
    """Looks at backward passes of a training. What a subclass does there is `at_backward`.

    Attributes:
        history: Tag -> array of (step, value). Steps count on over fits. Kept in checkpoints.
    """

    certify = False
    max_points: int | None = None
    without = "Nothing is measured."
    """What follows for the user where a strategy is not supported."""

    def _set_up(
        self, schedule: Schedule, finder: TermFinder, params: Patterns, prefix: str
    ) -> None:
        self.schedule, self.finder, self.params, self.prefix = schedule, finder, params, prefix
        self.guard = Guard(type(self).__name__)
        self.writer = LogWriter(self.guard, prefix)
        self.manual = ManualBackward(finder.recorder, self.at_backward, self.weight_of)
        self._module: ref[pl.LightningModule] | None = None
        self._inputs: StepInputs | None = None
        self._looks: list[Look] = []
        self._resumed = False
        self._restart()

    @property
    def history(self) -> Any:
        """Tag -> array of (step, value), (n, 2)."""
        return self.writer.history

    def at_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor | None
    ) -> None:
        """A backward pass begins; the loss is None where Lightning does not see it."""
        raise NotImplementedError

    def weight_of(self, name: str) -> float:
        """What the gradient of a term is to be multiplied with."""
        return 1.0

    def weights_on_heads(self, loss: Tensor | None) -> Mapping[Node, float]:
        """Head of a term -> weight that this callback puts on its gradient."""
        return {}

    def reset(self) -> None:
        """Another module is trained."""
        self.writer.reset()
        self.finder.forget()

    def _restart(self) -> None:
        """A fit starts."""
        self._active = True
        self.guard.restart()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._module is not None and self._module() is not pl_module:
            self.reset()
        self._module = ref(pl_module)
        self._restart()
        refused = unsupported_strategy(trainer)
        if refused is not None:
            self._active = False
            self.guard.warn_once("strategy", f"{refused} {self.without}")
            return
        self.writer.count.open(logged_step(trainer), resumed=self._resumed)
        self.finder.recorder.attach(pl_module)
        self.manual.attach(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._active and self._resumed:
            publish(trainer, self.history.last())  # for callbacks that look before we measure

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._active:
            self.manual.begin()
            self.finder.begin(batch)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        if self._active:
            self.manual.lightning_saw_it()
            self.close_looks()
            self.at_backward(trainer, pl_module, loss)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.close_looks()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._active:
            self.close_looks()
            self.finder.end()
            self._inputs = None
            self.writer.count(logged_step(trainer))
            self.manual.end(self.guard)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._active:
            self.manual.epoch_end(self.guard)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.detach()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.detach()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """The fit is over, however it ended: leave the module as it was found."""
        self.close_looks()
        self.finder.recorder.detach()
        self._inputs, self._resumed = None, False

    def may_be_due(self, trainer: pl.Trainer) -> bool:
        """Whether the running step may be acted on."""
        return self.schedule.may_be_due(logged_step(trainer), last_step(trainer))

    def will_look(self, trainer: pl.Trainer) -> bool:
        """Whether a look at the running backward pass may follow."""
        return self.may_be_due(trainer)

    def look(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        loss: Tensor | None,
        keep: Callable[[StepTerms], StepTerms],
        certify: Callable[[StepTerms], bool],
    ) -> Look | None:
        """A look at the terms to keep, shared with callbacks that look at the same.

        Returns:
            The look; None where there are no such terms.
        """
        twins = self._twins(trainer)
        finders = [twin.finder for twin in twins]
        found = keep(self.finder.find(trainer, pl_module, loss, finders))
        if not found.residuals:
            return None
        checked = certify(found)
        wanted = checked or any(twin.certify and twin.will_look(trainer) for twin in twins[1:])
        look = self._new_look(trainer, pl_module, loss, found, certify=wanted)
        for other in (other for twin in twins for other in twin._looks):
            fits = other.max_points == look.max_points and (other.certify or not checked)
            if fits and _same(other.found, found):
                look.certify, look.kept = other.certify, other.kept
        self._looks.append(look)
        return look

    def _new_look(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        loss: Tensor | None,
        found: StepTerms,
        *,
        certify: bool,
    ) -> Look:
        step, optimizers = logged_step(trainer), trainer.optimizers
        limits = [twin.max_points for twin in self._twins(trainer) if twin.max_points is not None]
        return Look(
            step=step,
            total_step=self.writer.count.at(step),
            found=found,
            params=trained_parameters(optimizers, pl_module, self.params),
            trained=trained_parameters(optimizers, pl_module),
            module=pl_module,
            loss=loss,
            optimizers=optimizers,
            balanced=lambda: _balanced(trainer, loss),
            scale=1 / loss_scale(trainer),
            certify=certify,
            max_points=limits[0] if limits else 512,
            inputs=self._inputs,
            find_again=self._again(trainer, pl_module, found),
        )

    def _again(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, found: StepTerms
    ) -> Callable[[], StepTerms] | None:
        if not found.from_function:
            return None
        names, states = frozenset(found.residuals), found.states  # not the graph
        return lambda: self.finder.again(trainer, pl_module, names, states)

    def _twins(self, trainer: pl.Trainer) -> list[KernelCallback]:
        """Callbacks that look at the same residuals and parameters, this one first."""
        found = [c for c in callbacks_of(trainer, KernelCallback) if c.what == self.what]
        return [self, *(twin for twin in found if twin is not self and twin._active)]

    def close_looks(self) -> None:
        """The backward pass is over: let go of graphs and kernels."""
        for look in self._looks:
            look.close()
        self._looks.clear()
        self.finder.release()

    def state_dict(self) -> dict[str, Any]:
        names = self.finder.recorder.state_dict()
        return {"version": VERSION, "names": names, **self.writer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module = None  # the state belongs to whatever module is fitted next
        self.reset()
        state = migrate(state_dict)
        if "history" in state:
            self._resumed = True
            self.writer.load_state_dict(state)
            self.finder.recorder.load_state_dict(state["names"])
            self.load_more(state)

    def load_more(self, state: Mapping[str, Any]) -> None:
        """What a subclass has put into the state."""

    def __getstate__(self) -> dict[str, Any]:
        # Live graphs can be neither copied nor pickled, and are of this step alone.
        return {**super().__getstate__(), "_looks": [], "_inputs": None}


def callbacks_of(trainer: pl.Trainer, kind: type[C]) -> list[C]:
    """Every callback of a class among those of a trainer."""
    callbacks: Sequence[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]


def overhead(trainer: pl.Trainer, guard: Guard) -> float:
    """Share of the fit's wall time that was spent in callbacks of this package."""
    spent = sum(callback.guard.seconds for callback in callbacks_of(trainer, KernelCallback))
    return spent / guard.elapsed()


def _balanced(trainer: pl.Trainer, loss: Tensor | None) -> dict[Node, float]:
    weights: dict[Node, float] = {}
    with measuring():
        for callback in callbacks_of(trainer, KernelCallback):
            weights |= callback.weights_on_heads(loss)
    return weights


def _same(one: StepTerms, other: StepTerms) -> bool:
    """Whether two callbacks found the same live residuals."""
    if list(one.residuals) != list(other.residuals) or one.points != other.points:
        return False
    pairs = zip(one.residuals.values(), other.residuals.values(), strict=True)
    return one.complete == other.complete and all(made_by(a) == made_by(b) for a, b in pairs)
