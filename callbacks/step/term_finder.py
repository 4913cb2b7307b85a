"""Where a callback's residuals come from: the loss, taps, a function of the user, a fixed probe.

All routes end in the same thing, live residual tensors by name. See `Source.find`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.callbacks.step.parameters import Patterns, matches
from pinn_ntk.callbacks.step.probe import FixedProbe, copied
from pinn_ntk.callbacks.step.recorder import Recorder
from pinn_ntk.callbacks.step.residual_function import Route, residuals_of, resolved
from pinn_ntk.callbacks.step.step_inputs import RandomStates
from pinn_ntk.diagnostics.measurement import BATCH, PROBE
from pinn_ntk.errors import IncompleteTermsError, OpaqueLossError
from pinn_ntk.graph.jacobian.inputs import fingerprint
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.terms.curvature import curvature, curvature_of_rows, uniform_weight
from pinn_ntk.graph.terms.term import Term
from pinn_ntk.graph.terms.term_loss import TermLoss

if TYPE_CHECKING:
    import pytorch_lightning as pl

ADVICE = (
    "In the callback's case: mark each residual in training_step with r = pinn_ntk.tap(r, 'name'), "
    "before it is squared; or give the callback residuals='method', the name of a method of the "
    "module that returns {'name': r, ...} for a batch."
)
"""What a user can do whose terms cannot be found."""


@dataclass(frozen=True)
class Found:
    """The loss terms of one backward pass.

    Attributes:
        residuals: Name -> live residual tensor, before it is squared.
        terms: Name -> term of the loss, for those of the residuals that were found in it.
        points: On which points the residuals are.
        rows: Term -> rows to keep, of a probe.
        elsewhere: Whether the residuals are other tensors than those of the terms.
        whole: Whether the terms are all that the loss has.
        states: Random states that a function on the batch began from; None on other routes.
    """

    residuals: Mapping[str, Tensor]
    terms: Mapping[str, Term]
    points: str = BATCH
    rows: Mapping[str, Tensor] | None = None
    elsewhere: bool = False
    whole: bool = False
    states: RandomStates | None = None

    def of(self, keep: Callable[[str], bool]) -> Found:
        """What is left of it with the names to keep; residuals without rows go as well."""
        residuals = {n: r for n, r in self.residuals.items() if keep(n) and r.numel()}
        terms = {name: term for name, term in self.terms.items() if name in residuals}
        whole = self.whole and len(residuals) == len(self.residuals)
        return replace(self, residuals=residuals, terms=terms, whole=whole)

    @property
    def finite(self) -> Found:
        """What is left of it without terms that hold NaN or inf."""
        return self.of(lambda name: bool(self.residuals[name].isfinite().all()))

    @property
    def dtype(self) -> str:
        """Dtype of the residuals, in words."""
        dtypes = [str(residual.dtype) for residual in self.residuals.values()]
        return dtypes[0].removeprefix("torch.") if dtypes else "float32"

    def fingerprints(self, params: Mapping[str, Tensor]) -> dict[str, str | None]:
        """Term -> fingerprint of its points; empty on a probe, whose points stay."""
        if self.points == PROBE:
            return {}
        return {name: fingerprint(r, params) for name, r in self.residuals.items()}

    def curvature(self, factors: Mapping[str, float]) -> dict[str, Tensor] | None:
        """D of each row, see `curvature`; None unless these are all terms of the loss."""
        if not self.whole or not self.residuals or self.residuals.keys() != self.terms.keys():
            return None
        of_batch = curvature(self.terms, factors)
        if of_batch is None or not self.elsewhere:
            return of_batch
        sums = {n: _times(uniform_weight(term), factors[n]) for n, term in self.terms.items()}
        return curvature_of_rows(sums, {n: r.numel() for n, r in self.residuals.items()})

    def losses(self, factors: Mapping[str, float]) -> dict[str, TermLoss]:
        """Name -> its part of the loss, of those residuals whose place in the loss is known."""
        losses: dict[str, TermLoss | None] = {}
        for name, term in self.terms.items():
            rows = self.residuals[name].numel()
            if self.elsewhere:
                losses[name] = TermLoss.elsewhere(term, factors[name], rows)
            elif rows == term.residual.numel():
                losses[name] = TermLoss.of(term, factors[name])
        return {name: loss for name, loss in losses.items() if loss is not None}

    @property
    def likeness(self) -> str:
        """Names and shapes of the residuals: the same while the graph is built the same way."""
        return " ".join(f"{name}{tuple(r.shape)}" for name, r in self.residuals.items())

    @property
    def ascends(self) -> bool:
        """Whether this is the ascent of a min-max scheme: every term has a negative weight."""
        found = [self.terms.get(name) for name in self.residuals]
        return bool(found) and all(term is not None and term.ascends for term in found)


class Source:
    """Finds the residuals of a step by the route that the user chose.

    Args:
        names: Names of the terms in the order in which the loss was written.
        include: Patterns of names to keep.
        residuals: Function that computes the residuals on a batch.
        probe: The same on points that stay; it takes the place of all other routes.
        max_points: Rows of a probe's term at most.

    Raises:
        ValueError: ``names`` is one string.

    Attributes:
        recorder: What the running step told.
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        include: Patterns = None,
        residuals: Route = None,
        probe: Route = None,
        max_points: int = 512,
    ) -> None:
        """Nothing is evaluated yet."""
        if isinstance(names, str):
            raise ValueError(f"names is the string {names!r}; expected a list, as in [{names!r}].")
        self.recorder = Recorder(names)
        self.include, self.route = include, residuals
        self.probe = None if probe is None else FixedProbe(probe, max_points)
        self._batch: Any = None
        self._complete: set[str] = set()

    def forget(self) -> None:
        """Another module is trained: its names and its batch are others."""
        self.recorder.load_state_dict({})
        self._complete.clear()
        if self.probe is not None:
            self.probe = FixedProbe(self.probe.route, self.probe.max_points)

    def weighable(self, found: Found, warn: Callable[[str], None]) -> Found:
        """What is left of residuals from elsewhere of which there is a term in the loss.

        Args:
            found: What was found.
            warn: Called with what to say of those that are left out.

        Returns:
            The rest.
        """
        strangers = [name for name in found.residuals if name not in found.terms]
        if not found.elsewhere or not strangers:
            return found
        warn(
            f"residuals={self.route!r} gives {strangers}, but no terms of these names are found in "
            f"the loss, only {list(found.terms)}; they stay unweighted. Return the names under "
            "which the terms are logged, or mark the residuals with pinn_ntk.tap."
        )
        return found.of(lambda name: name in found.terms)

    def check(self, loss: Tensor | None, found: Found) -> None:
        """Once for terms of one likeness, see that they make up the whole gradient of the loss.

        Args:
            loss: The live loss.
            found: What was found in it; what other routes gave is not checked.

        Raises:
            IncompleteTermsError: Something else is in the loss.
        """
        if loss is None or found.elsewhere or found.likeness in self._complete:
            return
        if not bool(loss.isfinite()):
            return  # nothing can be compared
        self.terms(loss, check=True)
        self._complete.add(found.likeness)

    def begin(self, batch: Any) -> None:
        """A batch starts."""
        self.recorder.begin()
        self._batch = batch if self.route is not None else None

    def freeze(self, batch: Any) -> None:
        """Let the probe keep a copy of the first batch."""
        if self.probe is not None:
            self.probe.freeze(batch)

    def end(self) -> None:
        """The batch is over."""
        self.recorder.end()
        self._batch = None

    def find(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        loss: Tensor | None,
        states: RandomStates | None = None,
    ) -> Found:
        """The residuals to take the kernel of, and the terms of the loss they belong to.

        Args:
            trainer: The trainer.
            module: Its module.
            loss: The live loss; None inside a backward pass that Lightning does not see.
            states: Random states for a function on the batch to begin from, once more; by default
                those of this moment.

        Returns:
            What was found, by the first route that there is: probe, function, taps, the loss.

        Raises:
            OpaqueLossError: The only route is the loss, and its terms cannot be found.
        """
        if self.probe is not None:
            residuals = self._kept(self.probe.residuals(trainer, module))
            return self._elsewhere(residuals, loss, PROBE, dict(self.probe.rows))
        if self.route is not None:
            states = states or RandomStates.now(module.device)
            route, batch = partial(self._run, states), copied(self._batch)
            residuals = residuals_of(route, trainer, module, batch, repr(self.route))
            found = self._elsewhere(self._kept(residuals), loss, BATCH, None)
            return replace(found, states=states)
        every = self._aside(loss) if self.taps else self._all(loss, check=False)
        terms = self._named(every)
        residuals = self.taps or {name: term.residual for name, term in terms.items()}
        return Found(residuals, terms, whole=len(terms) == len(every))

    def _run(self, states: RandomStates, module: pl.LightningModule, batch: Any) -> Any:
        states.restore(module.device)  # `residuals_of` puts back what it found
        return resolved(self.route, module)(batch)

    def _elsewhere(
        self,
        residuals: Mapping[str, Tensor],
        loss: Tensor | None,
        points: str,
        rows: Mapping[str, Tensor] | None,
    ) -> Found:
        every = self._aside(loss)
        terms = self._kept(every)
        return Found(residuals, terms, points, rows, elsewhere=True, whole=terms == every)

    @property
    def taps(self) -> dict[str, Tensor]:
        """Name -> residual tapped in this step."""
        return self._kept(self.recorder.taps)

    def terms(self, loss: Tensor | None, *, check: bool) -> dict[str, Term]:
        """Terms of the loss by name; where residuals are tapped, those only, as far as found.

        Args:
            loss: The live loss.
            check: Whether they are to make up its whole gradient.

        Returns:
            Name -> term.

        Raises:
            OpaqueLossError: Nothing is tapped, and the terms cannot be found.
            IncompleteTermsError: The same, and what was found is not all of it.
        """
        return self._named(self._aside(loss) if self.taps else self._all(loss, check=check))

    def terms_of_taps(self, loss: Tensor | None) -> dict[str, list[Term]]:
        """Tap -> the terms of the loss that its residual enters as it is, as far as found."""
        return _matched(self.taps, self._aside(loss))

    def _named(self, every: Mapping[str, Term]) -> dict[str, Term]:
        if not self.taps:
            return self._kept(every)
        matched = _matched(self.taps, every)
        return {name: terms[0] for name, terms in matched.items() if len(terms) == 1}

    def _all(self, loss: Tensor | None, *, check: bool) -> dict[str, Term]:
        if loss is None:
            return {}
        try:
            return self.recorder.terms(loss, check=check)
        except (OpaqueLossError, IncompleteTermsError) as error:
            cause, _, _ = str(error).partition("Pass the residuals yourself")
            raise type(error)(f"{cause.strip()} {ADVICE}") from error

    def _aside(self, loss: Tensor | None) -> dict[str, Term]:
        """All terms of the loss where they can be found; another route has the residuals."""
        try:
            return self._all(loss, check=False)
        except ValueError:  # an opaque loss is what the other routes are for
            return {}

    def _kept(self, named: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: item for name, item in named.items() if matches(name, self.include)}
        if named and not kept:
            raise ValueError(
                f"include={self.include!r} matches none of the terms {list(named)}; expected a "
                "shell pattern such as 'train/pde*', or a list of them."
            )
        return kept


def _matched(taps: Mapping[str, Tensor], terms: Mapping[str, Term]) -> dict[str, list[Term]]:
    """Tap -> the terms whose residual it is."""
    made_by = [(_origin(term.residual), term) for term in terms.values()]
    origins = {name: _origin(tap) for name, tap in taps.items()}
    return {
        name: [term for made, term in made_by if made is not None and made == origin]
        for name, origin in origins.items()
    }


def _origin(residual: Tensor) -> tuple[Node, int] | None:
    """The operation behind a tensor and which of its outputs it is, reshapes looked through."""
    node, output = residual.grad_fn, residual.output_nr
    while node is not None and operation(node).keeps_numbers:
        node, output = node.next_functions[0]
    return None if node is None else (node, output)


def _times(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor
