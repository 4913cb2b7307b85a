"""Looks of a callback at the running backward pass; callbacks that look at the same share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from weakref import ref

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.step_inputs import StepInputs
from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.callbacks.trainer.checks import at_least
from pinn_ntk.callbacks.trainer.steps import logged_step, loss_scale
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.kernel.bounds import MAX_POINTS, Bounds
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.parameters import Patterns, trained_parameters
from pinn_ntk.looks.step_terms import StepTerms


class StepLooks:
    """Makes the looks of one callback, and lets go of them when the backward pass is over."""

    def __init__(
        self, finder: TermFinder, params: Patterns, max_points: int | None, bounds: Bounds
    ) -> None:
        self.finder, self.params, self.max_points = finder, params, max_points
        self.bounds = bounds
        self.say: Callable[[str, str], None] | None = None  # warnings where there is none
        self.inputs: StepInputs | None = None  # what the step begins from, if that is kept
        self.first: Look | None = None  # of the batch, that was read
        self.done: set[str] = set()  # names of the terms of the step that were read
        self.loss: ref[Tensor] | None = None  # of the step, that was read last
        self.points: Mapping[Node, Tensor] = {}  # head of a term -> weights put on its points
        self._open: list[Look] = []

    def fresh(self, found: StepTerms) -> StepTerms:
        """The terms that were not read in this step."""
        return found.of(lambda name: name not in self.done)

    def is_new(self, loss: Tensor | None) -> bool:
        """Whether a further loss of the step was not read; without one, whether all taps were."""
        if loss is None:
            return not self.done.issuperset(self.finder.recorder.taps)
        return self.loss is None or self.loss() is not loss

    def look(
        self,
        at: Backward,
        keep: Callable[[StepTerms], StepTerms],
        certify: Callable[[StepTerms], bool],
        twins: Sequence[StepLooks],
        *,
        twin_certifies: bool,
    ) -> Look | None:
        """A look at the terms to keep, None where there are none.

        ``twins`` look at the same residuals and parameters: what they have computed is not
        computed again, and what they are going to ask for is computed in their sense.
        """
        found = keep(self.finder.find(at, [twin.finder for twin in twins]))
        if not found.residuals:
            return None
        checked = certify(found)
        limits = [one.max_points for one in (self, *twins) if one.max_points is not None]
        look = self._new(at, found, limits[0] if limits else MAX_POINTS)
        look.certify = checked or twin_certifies
        for other in (other for one in (self, *twins) for other in one._open):
            fits = other.max_points == look.max_points and other.bounds == look.bounds
            if (
                fits
                and (other.certify or not checked)
                and _identity(other.found) == _identity(found)
            ):
                look.certify, look.kept = other.certify, other.kept
        self._open.append(look)
        return look

    def _new(self, at: Backward, found: StepTerms, max_points: int) -> Look:
        optimizers = at.trainer.optimizers
        return Look(
            step=logged_step(at.trainer),
            found=found,
            params=trained_parameters(optimizers, at.module, self.params),
            trained=trained_parameters(optimizers, at.module),
            module=at.module,
            loss=None if at.loss is None else plain(at.loss),
            optimizers=optimizers,
            scale=1 / loss_scale(at.trainer),
            max_points=max_points,
            bounds=self.bounds,
            say=self.say,
            inputs=self.inputs,
            find_again=self._again(at, found),
        )

    def _again(self, at: Backward, found: StepTerms) -> Callable[[], StepTerms] | None:
        if not found.from_function:
            return None
        names, states = frozenset(found.residuals), found.states  # not the graph
        after = at._replace(loss=None)
        return lambda: self.finder.again(after, names, states)

    def batch_ends(self) -> None:
        """Let go of what belongs to the batch."""
        self.inputs = self.first = None
        self.points = {}

    def close(self) -> None:
        """The backward pass is over: let go of graphs and kernels."""
        for look in self._open:
            look.close()
        self._open.clear()
        self.finder.release()

    def __getstate__(self) -> dict[str, object]:
        # Live graphs can be neither copied nor pickled, and are of this step alone.
        return {
            **vars(self),
            "_open": [],
            "inputs": None,
            "first": None,
            "loss": None,
            "points": {},
        }


def _identity(found: StepTerms) -> object:
    """Equal for callbacks that found the same live residuals: names, and operations behind them."""
    made_by = [(name, r.grad_fn, r.output_nr) for name, r in found.residuals.items()]
    return found.points, found.complete, made_by


def bounded(owner: str, max_rows: int | None, memory_budget: int) -> Bounds:
    """What a measurement may take, if these are bounds."""
    if max_rows is not None:
        at_least(owner, "max_rows", max_rows, 1)
    return Bounds(at_least(owner, "memory_budget", memory_budget, 1), max_rows)
