"""Where a callback's residuals come from: the loss, taps, a function of the user, a fixed probe.

All routes end in the same thing, live residual tensors by name. See `TermFinder.find`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from pinn_ntk.callbacks.step.arguments import Arguments
from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.matched_taps import matched
from pinn_ntk.callbacks.step.probe import FixedProbe, copied
from pinn_ntk.callbacks.step.recorder import Recorder
from pinn_ntk.callbacks.step.residual_function import Route, check_route, residuals_of, resolved
from pinn_ntk.callbacks.step.strangers import Strangers, check_rows
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.naming import named
from pinn_ntk.errors import (
    ArgumentError,
    GradientError,
    IncompleteTermsError,
    OpaqueLossError,
)
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.graph.terms.term import Term
from pinn_ntk.looks.digest import RandomStates
from pinn_ntk.looks.parameters import Patterns, matches
from pinn_ntk.looks.step_terms import BATCH, PROBE, StepTerms

if TYPE_CHECKING:
    import pytorch_lightning as pl

ADVICE = (
    "In the callback's case: mark each residual in training_step with r = pinn_ntk.tap(r, 'name'), "
    "before it is squared; or give the callback residuals='method', the name of a method of the "
    "module that returns {'name': r, ...} for a batch."
)
"""What a user can do whose terms cannot be found."""


class Ran(NamedTuple):
    """What a user's function gave in one backward pass, and the random states it began from."""

    loss: Tensor | None
    states: RandomStates
    residuals: dict[str, Tensor]


class TermFinder:
    """Finds the residuals of a step by the route that the user chose."""

    def __init__(
        self,
        names: Sequence[str] | None = None,
        include: Patterns = None,
        residuals: Route = None,
        probe: Route = None,
        max_points: int = 512,
    ) -> None:
        if isinstance(names, str):
            raise ValueError(f"names is the string {names!r}; expected a list, as in [{names!r}].")
        self.recorder = Recorder(names)  # what the running step told
        self.include, self.route = include, residuals
        self.probe = None if probe is None else FixedProbe(probe, max_points)
        self.batch: Any = None
        self._ran: Ran | None = None
        self._complete: set[str] = set()
        self._arguments, self.strangers = Arguments(), Strangers()

    @property
    def by_function(self) -> bool:
        """Whether the residuals are those of a function, on the batch or on a probe."""
        return self.route is not None or self.probe is not None

    def forget(self) -> None:
        """Another module is trained: its names and its batch are others."""
        self.recorder.known.load_state_dict({})
        self._complete.clear()
        self._arguments.forget()
        if self.probe is not None:
            self.probe = FixedProbe(self.probe.route, self.probe.max_points)

    @property
    def said(self) -> str:
        """The function that gives the residuals, as the argument that it was."""
        if self.probe is not None:
            return self.probe.said
        return f"residuals={named(self.route)}"

    @property
    def told(self) -> set[str]:
        """Keys that the running step logged, weighed and tapped; none where a function tells."""
        tells = self.route is None and self.probe is None
        return {*self.recorder.keys, *self.recorder.taps} if tells else set()

    def check(self, loss: Tensor | None, found: StepTerms) -> None:
        """Once for terms of one signature, see that they make up the whole gradient of the loss."""
        known = loss is None or found.from_function or found.signature in self._complete
        if loss is None or known or not bool(loss.isfinite()):
            return  # or nothing can be compared
        self.terms(loss, check=True)
        self._complete.add(found.signature)

    def check_routes(self, module: pl.LightningModule) -> None:
        """ArgumentError where a function of the user cannot be called as it is going to be."""
        for route in (self.route, None if self.probe is None else self.probe.route):
            if route is not None:
                check_route(route, module)

    def begin(self, batch: Any) -> None:
        """A batch starts."""
        self.recorder.begin()
        self.strangers.begin()
        self.batch = batch if self.route is not None else None

    def end(self, guard: Guard, *, several: bool) -> None:
        """The batch is over; whether it may have had several losses."""
        self.recorder.known.tell(guard)
        if said := self.strangers.said(self.said, self.recorder.keys if several else ()):
            guard.warn_once("strangers", said)
        self.recorder.end()
        self.release()
        self.batch = None

    def release(self) -> None:
        """The backward pass is over: let go of the graph of what the function gave."""
        self._ran = None

    def find(self, at: Backward, twins: Iterable[TermFinder] = ()) -> StepTerms:
        """The residuals to take the kernel of, and the terms of the loss they belong to.

        They come by the first route that there is: probe, function, taps, the loss. Of ``twins``,
        which run the same function, one that has done so in this backward pass spares it. An
        OpaqueLossError is raised where the loss is the only route and its terms cannot be found.
        """
        if self.probe is not None:
            with self._arguments.fitting("probe"):
                residuals = self.probe.residuals(at.trainer, at.module)
            return self._from_function(residuals, at.loss, PROBE, dict(self.probe.rows))
        if self.route is not None:
            alike = [twin for twin in twins if twin.route == self.route]  # not only by name
            known = (twin._ran for twin in alike if twin._ran is not None)
            ran = next((ran for ran in known if ran.loss is at.loss), None)
            if ran is None or at.loss is None:
                ran = self._run(at, RandomStates.now(at.module.device))
            self._ran = ran
            return replace(self._from_function(ran.residuals, at.loss), states=ran.states)
        every = self.every(at.loss) if self.taps else self._all(at.loss, check=False)
        terms = self._named(every)
        tapped = {name: plain(residual) for name, residual in self.taps.items()}
        residuals = tapped or {name: term.residual for name, term in terms.items()}
        return StepTerms(residuals, terms, complete=len(terms) == len(every))

    def again(self, at: Backward, names: Container[str], states: RandomStates | None) -> StepTerms:
        """What the user's function gives of these names, with the parameters as they are now."""
        if self.probe is not None or states is None:
            return self.find(at).of(names.__contains__)
        after = self._from_function(self._run(at, states).residuals, at.loss)
        return after.of(names.__contains__)

    def _run(self, at: Backward, states: RandomStates) -> Ran:
        """Evaluate the function on the batch, with random numbers as from ``states`` on."""

        def route(module: pl.LightningModule, batch: Any) -> Any:
            states.restore(module.device)  # `residuals_of` puts back what it found
            return resolved(self.route, module)(batch)

        batch = copied(self.batch)
        with self._arguments.fitting("residuals"):
            residuals = residuals_of(route, at.trainer, at.module, batch, self.said)
        return Ran(at.loss, states, residuals)

    def _from_function(
        self,
        residuals: Mapping[str, Tensor],
        loss: Tensor | None,
        points: str = BATCH,
        rows: Mapping[str, Tensor] | None = None,
    ) -> StepTerms:
        kept, every = self._kept(residuals), self.every(loss)
        with self._arguments.fitting("rows"):
            check_rows(kept, every, self.said)
        terms = {name: term for name, term in every.items() if matches(name, self.include)}
        self.strangers.meet(kept, terms)
        return StepTerms(kept, terms, points, rows, from_function=True, complete=terms == every)

    @property
    def taps(self) -> dict[str, Tensor]:
        """Name -> residual tapped in this step."""
        return self._kept(self.recorder.taps)

    def terms(self, loss: Tensor | None, *, check: bool) -> dict[str, Term]:
        """Terms of the loss by name; where residuals are tapped, those only, as far as found."""
        return self._named(self.every(loss) if self.taps else self._all(loss, check=check))

    def terms_of_taps(self, loss: Tensor | None) -> dict[str, list[Term]]:
        """Tap -> the terms of the loss that its residual enters as it is, as far as found."""
        return matched(self.taps, self.every(loss))

    def _named(self, every: Mapping[str, Term]) -> dict[str, Term]:
        if not self.taps:
            return self._kept(every)
        found = matched(self.taps, every)
        return {name: terms[0] for name, terms in found.items() if len(terms) == 1}

    def _all(self, loss: Tensor | None, *, check: bool) -> dict[str, Term]:
        if loss is None:
            return {}
        try:
            with self._arguments.fitting("names"):
                return self.recorder.terms(loss, check=check)
        except GradientError:  # however the terms are found
            raise
        except (OpaqueLossError, IncompleteTermsError) as error:
            cause, _, _ = str(error).partition("Pass the residuals yourself")
            raise type(error)(f"{cause.strip()} {ADVICE}") from error

    def every(self, loss: Tensor | None) -> dict[str, Term]:
        """All terms of the loss where they can be found; another route may have the residuals."""
        try:
            return self._all(loss, check=False)
        except ArgumentError:
            raise
        except ValueError:  # an opaque loss is what the other routes are for
            return {}

    def _kept(self, named: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: item for name, item in named.items() if matches(name, self.include)}
        if not named:
            return {}
        with self._arguments.fitting("include"):
            if not kept:
                raise ArgumentError(
                    f"include={self.include!r} matches none of the terms {list(named)}; expected a "
                    "shell pattern such as 'train/pde*', or a list of them."
                )
        return kept
