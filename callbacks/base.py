"""The life cycle that monitor and balancer share, and every later callback that reads kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.callbacks.log_writer import LogWriter
from pinn_ntk.callbacks.report import announce_end, announce_start
from pinn_ntk.callbacks.schedule import Schedule
from pinn_ntk.callbacks.step.manual_backward import Backward, ManualBackward
from pinn_ntk.callbacks.step.measuring import fit_begins, fit_is_over
from pinn_ntk.callbacks.step.shared_look import shared_look
from pinn_ntk.callbacks.step.step_looks import StepLooks
from pinn_ntk.callbacks.step.term_checks import TermChecks
from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.callbacks.trainer.checks import in_other_processes, unsupported_strategy
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.loggers import publish
from pinn_ntk.callbacks.trainer.migrate import VERSION, migrate
from pinn_ntk.callbacks.trainer.state import StatefulCallback, callbacks_of
from pinn_ntk.callbacks.trainer.steps import last_step, logged_step
from pinn_ntk.diagnostics.history import History
from pinn_ntk.kernel.bounds import MAX_ROWS, Bounds
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.parameters import Patterns, check_patterns
from pinn_ntk.looks.step_terms import StepTerms

if TYPE_CHECKING:
    import pytorch_lightning as pl


class KernelCallback(StatefulCallback):
    """Looks at backward passes of a training. What a subclass does there is `at_backward`."""

    certify = balances = stays = False
    """Whether it certifies each kernel; sets the weights of the loss; logs what stays in force."""
    max_points: int | None = None
    bounds = Bounds(max_rows=MAX_ROWS)
    """What one measurement may take."""
    without = "Nothing is measured."
    """What follows for the user where a strategy is not supported."""
    act, plan, ends = "measurement", "measured", ""
    """What is done when it is due, in a word; "first", "last": at those steps of a fit as well."""

    def _set_up(
        self, schedule: Schedule, finder: TermFinder, params: Patterns, prefix: str
    ) -> None:
        self.schedule, self.finder, self.prefix = schedule, finder, prefix
        self.looks = StepLooks(finder, params, self.max_points, self.bounds)
        self.guard = guard = Guard(type(self).__name__)
        self.checks, self.writer = TermChecks(finder, guard), LogWriter(guard, prefix)
        self.looks.say = guard.say_once
        self.manual = ManualBackward(finder, self.at_backward, self.weighed)
        self._module: ref[pl.LightningModule] | None = None
        self._resumed = self._fitting = False
        self._restart()

    @property
    def history(self) -> History:
        """Tag -> array of (step, value), (n, 2); steps count on over fits, kept in checkpoints."""
        return self.writer.history

    @property
    def unweighed(self) -> str:
        """What follows for weights where no backward pass is seen, as the end of a sentence."""
        return ""

    def at_backward(self, at: Backward) -> None:
        """A backward pass begins."""
        raise NotImplementedError

    def weighed(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient of a tapped residual as it is to go on."""
        return gradient

    def weights_on_heads(self, loss: Tensor | None) -> Mapping[Node, float]:
        """Head of a term -> weight that this callback puts on its gradient."""
        return {}

    def reset(self) -> None:
        """Another module is trained."""
        self.writer.reset()
        self.finder.forget()

    def _restart(self) -> None:
        """A fit starts."""
        self.active, self._counting, self.acts = True, False, 0
        self.looks.done = set()
        self.guard.restart()
        self.checks.restart()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._module is not None and self._module() is not pl_module:
            self.reset()
        self._module = ref(pl_module)
        self._fitting = True
        self._restart()
        self.guard.told = callbacks_of(trainer, KernelCallback, self)[0].guard.told
        if (refused := unsupported_strategy(trainer)) is not None:
            self.active = False
            self.guard.warn_once("strategy", f"{refused} {self.without}")
            return
        self.finder.check_routes(pl_module)
        check_patterns(trainer.optimizers, pl_module, self.looks.params)
        if trainer.is_global_zero and (apart := in_other_processes(trainer)) is not None:
            self.guard.warn_once("processes", apart)
        fit_begins(self)
        self.finder.recorder.attach(pl_module)
        self.manual.attach(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.active and (self._resumed or self.stays):
            publish(trainer, self.history.last())  # for callbacks that look before we measure

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.active:
            if not self._counting:  # not earlier: Lightning sets its counter when an epoch begins
                trained, self._counting = trainer.fit_loop.total_batch_idx > 0, True
                step = logged_step(trainer)
                self.writer.count.open(step, resumed=self._resumed, trained=trained)
            self.manual.begin()
            self.finder.begin(batch)
            self.batch_starts(trainer, pl_module, batch, batch_idx)
            self.manual.begun(Backward(trainer, pl_module, None))

    def batch_starts(self, trainer: pl.Trainer, module: Any, batch: Any, idx: int) -> None:
        """Before the forward pass; the last batch is forgotten."""

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        if self.active:
            self.manual.lightning_saw_it()
            self.close_looks()
            self.at_backward(Backward(trainer, pl_module, loss))

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
        if self.active:
            self.close_looks()
            self.batch_ends(trainer)
            self.finder.end(self.guard, several=not pl_module.automatic_optimization)
            self.looks.batch_ends()
            self.writer.count(logged_step(trainer))
            self.manual.end(self.guard, self.unweighed)

    def batch_ends(self, trainer: pl.Trainer) -> None:
        """The optimizer has moved the parameters; what was seen of the batch is still there."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.active:
            self.manual.epoch_end(self.guard, self.unweighed)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._conclude(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.detach()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._fitting:
            self.detach()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._conclude(trainer)
        self.detach()

    def _conclude(self, trainer: pl.Trainer) -> None:
        self.guard.run("what is left to log", partial(self.conclude, trainer))
        self.guard.run("the last line", partial(announce_end, trainer, self))

    def conclude(self, trainer: pl.Trainer) -> None:
        """Training is over, be it by an exception."""

    def detach(self) -> None:
        """The fit is over, however it ended: leave the module as it was found."""
        self._fitting = self._resumed = False
        fit_is_over(self)
        self.close_looks()
        self.finder.recorder.detach()
        self.manual.detach()
        self.looks.batch_ends()

    def will_look(self, trainer: pl.Trainer) -> bool:
        """Whether a look at the running backward pass may follow."""
        return self.schedule.may_be_due(logged_step(trainer), last_step(trainer))

    def look(
        self,
        at: Backward,
        keep: Callable[[StepTerms], StepTerms],
        certify: Callable[[StepTerms], bool] = lambda _: False,
    ) -> Look | None:
        """A look at the terms to keep, None without any; others that look at the same share it."""
        others = callbacks_of(at.trainer, KernelCallback, self)
        look = shared_look(self, others, at, keep, certify)
        if look is not None:
            look.total_step = self.writer.count.at(look.step)
            self.guard.run("the first line", partial(announce_start, at.trainer, self, look))
        return look

    def close_looks(self) -> None:
        """The backward pass is over: let go of graphs and kernels."""
        self.looks.close()

    def state_dict(self) -> dict[str, Any]:
        names = self.finder.recorder.known.state_dict()
        return {"version": VERSION, "names": names, **self.writer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module = None  # the state belongs to whatever module is fitted next
        self.reset()
        if "history" in (state := migrate(state_dict)):
            self.writer.load_state_dict(state)
            self.finder.recorder.known.load_state_dict(state["names"])
            self.load_more(state)
            self._resumed = self.writer.count.reached >= 0  # else it is of before the first step

    def load_more(self, state: Mapping[str, Any]) -> None:
        """What a subclass has put into the state."""
