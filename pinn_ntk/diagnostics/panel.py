"""The diagnostics of a training together: each is asked alone, so that one may fail for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from torch import nn

from pinn_ntk.diagnostics.base import Diagnostic, Reading
from pinn_ntk.diagnostics.summary import summary
from pinn_ntk.errors import OF_THE_STEP, UnavailableError
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.plain import is_plain

T = TypeVar("T")


class Attempt(Protocol):
    """Runs what the rest does without, and reports what fails."""

    def run(self, what: str, part: Callable[[], T], /) -> T | None:
        """What the part returns; None where it fails or failed before."""

    def lost(self, what: str, error: BaseException, without: list[str], /) -> None:
        """Report a shared quantity that failed, and who goes without it."""

    def passed_over(self, what: str, error: BaseException, /) -> None:
        """Report one that failed for what is wrong with this step."""


class Outright:
    """An `Attempt` that lets failures through."""

    def run(self, _what: str, part: Callable[[], T], /) -> T | None:
        """What the part returns."""
        return part()

    def lost(self, _what: str, error: BaseException, _without: list[str], /) -> None:
        """The failure itself."""
        raise error

    def passed_over(self, _what: str, error: BaseException, /) -> None:
        """The failure itself."""
        raise error


class Panel:
    """Several diagnostics, and what they read last.

    Attributes:
        diagnostics: Name -> diagnostic, in the order in which they read.
        readings: Name -> last reading, what came late included; "step" -> facts of the last step.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic], attempt: Attempt | None = None) -> None:
        self.diagnostics = {diagnostic.name: diagnostic for diagnostic in diagnostics}
        self.attempt: Attempt = attempt or Outright()
        self._off: set[str] = set()
        self._hooked: dict[str, list[Diagnostic]] = {}
        self._forget_readings()

    def _forget_readings(self) -> None:
        self._now: dict[str, Reading] = {}
        self._late: dict[str, Reading] = {}

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.diagnostics.values())

    @property
    def readings(self) -> dict[str, Reading]:
        """Name -> last reading."""
        return self._late | self._now

    @property
    def waits(self) -> bool:
        """Whether one waits for the next backward pass."""
        return bool(self._waiting())

    @property
    def waiting(self) -> str:
        """Those that wait, in words."""
        return " and ".join(diagnostic.title for diagnostic in self._waiting())

    def reset(self) -> None:
        """Another module is trained."""
        self._forget_readings()
        for diagnostic in self:
            self.attempt.run(f"resetting {diagnostic.title}", diagnostic.reset)

    def fit_starts(self, module: nn.Module, *, resumed: bool) -> None:
        """A fit starts: all may read again."""
        self._off.clear()
        self._now = {}
        self._ask(lambda diagnostic: diagnostic.fit_starts(module, resumed=resumed))

    def batch_starts(self, *, due: bool) -> None:
        """A batch starts."""
        self._ask(lambda diagnostic: diagnostic.batch_starts(due=due), "batch_starts")

    def read(self, look: Look) -> list[Reading]:
        """Let all read a look."""
        found = self._ask(lambda diagnostic: _checked(diagnostic, diagnostic.read(look)))
        self._now = {"step": facts_of(look), **found}
        return list(found.values())

    def follow(self, look: Look) -> list[Reading]:
        """Let those read a look that waited for it."""
        return self._came_late(lambda d: _checked(d, d.follow(look)) if d.waits else None, "follow")

    def stepped(self, look: Look) -> list[Reading]:
        """The optimizer has moved."""
        return self._came_late(lambda d: _checked(d, d.stepped(look)), "stepped")

    def points_renewed(self) -> None:
        """The points of the probe are others."""
        self._ask(lambda diagnostic: diagnostic.points_renewed())

    def batch_ends(self) -> None:
        """A batch is over; those that failed let go of it as well."""
        for diagnostic in self._with("batch_ends"):
            self.attempt.run(f"letting go of {diagnostic.title}", diagnostic.batch_ends)

    def fit_ends(self) -> None:
        """A fit is over."""
        for diagnostic in self:
            self.attempt.run(f"letting go of {diagnostic.title}", diagnostic.fit_ends)

    def summary(self) -> str:
        """The last readings in words, as Markdown."""
        return summary(self.readings, self, self.attempt.run)

    def state_dict(self) -> dict[str, Any]:
        """State of each diagnostic by name, and what came late."""
        states, late = {}, {}
        for name, diagnostic in self.diagnostics.items():
            what = f"the state of {diagnostic.title}"
            states[name] = self.attempt.run(what, partial(_state, diagnostic))
            if name in self._late:
                late[name] = self.attempt.run(what, partial(_kept, name, self._late[name]))
        return {
            "states": {name: state for name, state in states.items() if state},
            "late": {name: state for name, state in late.items() if state},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where others were; names that are not among these are passed over."""
        for name, diagnostic in self.diagnostics.items():
            load = partial(diagnostic.load_state_dict, state["states"].get(name, {}))
            self.attempt.run(f"loading {diagnostic.title}", load)
        self._late = {
            name: Reading(kept["step"], kept["values"], facts=kept["facts"])
            for name, kept in state["late"].items()
            if name in self.diagnostics
        }

    def _came_late(self, part: Callable[[Diagnostic], Reading | None], hook: str) -> list[Reading]:
        found = self._ask(part, hook)
        self._late |= found
        return list(found.values())

    def _waiting(self) -> list[Diagnostic]:
        return [d for d in self._with("follow") if d.waits and d.name not in self._off]

    def _with(self, hook: str) -> list[Diagnostic]:
        """Those that have a hook of their own: most have none, and some are called every step."""
        if hook not in self._hooked:
            self._hooked[hook] = [d for d in self if _has_own(d, hook)]
        return self._hooked[hook]

    def _ask(self, part: Callable[[Diagnostic], T | None], hook: str = "") -> dict[str, T]:
        """What each gives by name; who lacks a shared quantity is off, and that is said once."""
        lost: dict[str, tuple[BaseException, list[str]]] = {}
        found: dict[str, T] = {}
        for diagnostic in self._with(hook) if hook else self:
            if diagnostic.name in self._off:
                continue
            failed: list[UnavailableError] = []
            given = self.attempt.run(diagnostic.title, _asked(part, diagnostic, failed))
            for error in failed:
                cause, without = lost.setdefault(error.title, (error.__cause__ or error, []))
                if not isinstance(cause, OF_THE_STEP):
                    without.append(diagnostic.title)
                    self._off.add(diagnostic.name)
            if given is not None:
                found[diagnostic.name] = given
        for title, (cause, without) in lost.items():
            if without:
                self.attempt.lost(title, cause, without)
            else:
                self.attempt.passed_over(title, cause)
        return found


def _asked(
    part: Callable[[Diagnostic], T | None], diagnostic: Diagnostic, failed: list[UnavailableError]
) -> Callable[[], T | None]:
    def asked() -> T | None:
        try:
            return part(diagnostic)
        except UnavailableError as error:
            failed.append(error)
            return None

    return asked


def _has_own(diagnostic: Diagnostic, hook: str) -> bool:
    return getattr(getattr(diagnostic, hook), "__func__", None) is not getattr(Diagnostic, hook)


def _checked(diagnostic: Diagnostic, given: object) -> Reading | None:
    if given is None or isinstance(given, Reading):
        return given
    raise TypeError(
        f"{type(diagnostic).__name__} read a {type(given).__name__}; expected a "
        "Reading(look.step, {tag: number}), or None for nothing."
    )


def _state(diagnostic: Diagnostic) -> dict[str, Any]:
    return _plain(diagnostic.name, dict(diagnostic.state_dict()))


def _kept(name: str, reading: Reading) -> dict[str, Any]:
    facts = dict(reading.facts)
    return _plain(name, {"step": reading.step, "values": dict(reading.values), "facts": facts})


def _plain(name: str, state: dict[str, Any]) -> dict[str, Any]:
    if not is_plain(state):
        raise TypeError(
            f"the state of diagnostic {name!r} is left out of the checkpoint: it holds something "
            "that torch.load(weights_only=True) refuses. Let state_dict return tensors, numbers, "
            "strings, and lists and dicts of these, and readings that come late the same"
        )
    return state


def facts_of(look: Look) -> Reading:
    """What the table and many sentences need of a step."""
    facts = {
        "points": look.points,
        "rows": {term: residual.numel() for term, residual in look.residuals.items()},
        "undefined": list(look.undefined),
        "dtype": look.finite.dtype,
        "max_points": look.max_points,
        "sampled": {term: list(counts) for term, counts in look.left_out.items()},
    }
    return Reading(look.step, facts=facts)
