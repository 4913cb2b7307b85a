"""What a running step tells of its loss terms: keys logged, residuals tapped, losses weighed.

Behind every route stands one `Recorder`. It listens while a batch is trained on and forgets when
the batch is over, so that no graph outlives its step.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from numbers import Number
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from pinn_ntk.callbacks.step.measuring import is_measuring
from pinn_ntk.callbacks.step.term_names import TermNames
from pinn_ntk.errors import ArgumentError
from pinn_ntk.graph.nodes import in_backward
from pinn_ntk.graph.terms.find import find_terms
from pinn_ntk.graph.terms.names import Logged, name_terms, totals
from pinn_ntk.graph.terms.term import Term
from pinn_ntk.taps import listen, unlisten

if TYPE_CHECKING:
    import pytorch_lightning as pl


Given: TypeAlias = dict[str, list[Tensor | float]]
"""Key -> numbers, one after the other."""

OF_THE_STEP = ("logged", "lifeless", "taps", "_given", "_weighted", "_weighings")
"""What a recorder forgets when a batch is over."""


class Recorder:
    """Listens to ``self.log`` and ``log_dict`` of a module, to `pinn_ntk.tap` and `LossWeights`."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = None if names is None else list(names)
        self.logged: dict[str, Tensor | float] = {}  # as given, alive where the user logged it so
        self.taps: dict[str, Tensor] = {}  # of this step
        self.lifeless: list[str] = []  # names tapped in this step of what has no gradient
        self.on_tap: Callable[[str, Tensor], None] | None = None  # gets name and residual of each
        self._weighted: dict[str, Tensor | float] = {}
        self.known = TermNames()
        self._given: Given = {}  # all that was logged, of one backward pass
        self._weighings: Given = {}  # the same of what was weighed
        self._log: RecordingLog | None = None
        self._awake = self._spent = self._stale = False
        self._agreed = False  # names given with keys logged

    def __getstate__(self) -> dict[str, Any]:
        # Live graphs can be neither copied nor pickled, and are of this step alone.
        emptied = {name: type(vars(self)[name])() for name in OF_THE_STEP}
        return vars(self) | emptied

    def attach(self, module: pl.LightningModule) -> None:
        """Listen to ``module``. Several recorders may listen to one."""
        self.detach()
        log = vars(module).get("log")
        if not isinstance(log, RecordingLog):
            log = RecordingLog(module)
            log.install()
        log.recorders.append(self)
        self._log = log
        listen(self)

    def detach(self) -> None:
        """Stop listening; the last recorder to go leaves the module as it was found."""
        self.end()
        self.on_tap = None
        unlisten(self)
        if self._log is not None:
            self._log.recorders.remove(self)
            self._log.restore()
            self._log = None

    def begin(self) -> None:
        """A batch starts: forget the last one, and listen."""
        self.end()
        self._awake, self._spent, self._stale = True, False, False

    def end(self) -> None:
        """The batch is over: forget it, and what comes between batches passes unheard."""
        self._awake = False
        self.logged.clear()
        self._given.clear()
        self.taps.clear()
        self.lifeless.clear()
        self._weighted.clear()
        self._weighings.clear()

    def heard(self, key: str, value: Any) -> None:
        """The module logged a number."""
        if self._hears():
            self.logged[key] = value
            self._add(self._given, key, value)

    def tapped(self, name: str, residual: Tensor) -> None:
        """The module tapped a residual; a name's second one before a backward pass is <name>_2."""
        if not self._hears():
            return
        if not residual.requires_grad:
            self.lifeless.append(name)
        elif not is_functorch_wrapped_tensor(residual):
            if self._spent:
                self._spent = False
                self.taps.clear()
            name = unused(name, self.taps)
            self.taps[name] = residual
            if self.on_tap is not None:
                self.on_tap(name, residual)

    def backward_began(self) -> None:
        """What is tapped and logged from now on belongs to another backward pass."""
        self._spent = self._stale = True

    def weighted(self, name: str, loss: Tensor) -> None:
        """The module weighed a loss term."""
        if self._hears():
            self._weighted[name] = loss
            self._add(self._weighings, name, loss)

    def _add(self, listed: Given, key: str, value: Tensor | float) -> None:
        if self._stale:
            self._stale = False
            self._given.clear()
            self._weighings.clear()
        given = listed.setdefault(key, [])
        if not any(value is before for before in given):
            given.append(value)

    def _hears(self) -> bool:
        """Whether what is told is of the step, and no checkpoint that runs a part of it again."""
        measured = self._log is not None and is_measuring(self._log.module)
        return self._awake and not measured and not in_backward()

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of `numbers`."""
        return (*self._weighted, *self.logged)

    @property
    def numbers(self) -> dict[str, Tensor | float]:
        """What was logged or weighed in this step, by name."""
        return self._weighted | self.logged

    def terms(self, loss: Tensor, *, check: bool) -> dict[str, Term]:
        """The terms of a loss by name.

        Names are those given, else the keys of `LossWeights`, else of ``self.log``. A term that
        this step does not log keeps the name that it had before, see `TermNames`.
        """
        if self.names is not None:
            named = find_terms(loss, names=self.names, check=check)
            self._compare(list(named.values()))
            return named
        logged: dict[str, Logged] = self.known.in_order({**self.logged, **_several(self._given)})
        logged = {**self._weighted, **logged, **_several(self._weighings)}
        terms = list(find_terms(loss, names=logged, check=check).values())
        names = self.known.of(terms, totals(terms, logged))
        return {n: replace(term, name=n) for n, term in zip(names, terms, strict=True)}

    def _compare(self, terms: Sequence[Term]) -> None:
        """ArgumentError where the keys logged say that names stand in another order."""
        if self._agreed or not self.numbers:
            return
        logged, names = name_terms(terms, self.numbers), [term.name for term in terms]
        wrong = [i for i, key in enumerate(logged) if key in names and key != names[i]]
        if wrong:
            said = ", ".join(f"{names[i]!r} for the one logged as {logged[i]!r}" for i in wrong)
            raise ArgumentError(
                f"names={names} contradicts the keys logged: {said}. Expected the order in which "
                f"the loss is written, here {logged}; or leave names out, the keys are enough."
            )
        self._agreed = True


def _several(given: Given) -> Given:
    """What was given more than once under one key."""
    return {key: values for key, values in given.items() if values[1:]}


def unused(name: str, taken: Container[str]) -> str:
    """The name, or the first of <name>_2, <name>_3, ... that is not taken."""
    numbered, number = name, 2
    while numbered in taken:
        numbered, number = f"{name}_{number}", number + 1
    return numbered


class RecordingLog:
    """``module.log`` that also tells recorders what it was given, and changes nothing else."""

    def __init__(self, module: pl.LightningModule) -> None:
        self.module = module
        self.own = vars(module).get("log")  # set on the instance by somebody else
        self.log = module.log
        self.recorders: list[Recorder] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(("name", "value"), args, strict=False)) | kwargs
        value = given.get("value")
        if not isinstance(value, Tensor | Number):
            value = getattr(value, "_forward_cache", None)  # a metric: what it was of this step
        if isinstance(value, Tensor | Number) and "name" in given:
            for recorder in self.recorders:
                recorder.heard(given["name"], value)
        return self.log(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Something of the user's own may be called and have methods as well.
        if name.startswith("__") or name == "log":  # which a copy that is made has not yet
            raise AttributeError(name)
        return getattr(self.log, name)

    def __getstate__(self) -> dict[str, Any]:
        # A copied or pickled module logs as before; live graphs do not come along.
        return vars(self) | {"recorders": []}

    def install(self) -> None:
        """Stand in for it, unless it is something else, as a list or a logger of Python's."""
        if callable(self.log):
            vars(self.module)["log"] = self

    def restore(self) -> None:
        """Take this off the module if nobody listens and nobody has wrapped it in turn."""
        attributes = vars(self.module)
        if self.recorders or attributes.get("log") is not self:
            return
        del attributes["log"]
        if self.own is not None:
            attributes["log"] = self.own
