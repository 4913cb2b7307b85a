"""Diagnostics never end training: one that fails is reported once and stays off for that fit."""

from __future__ import annotations

import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pinn_ntk.errors import ArgumentError, NTKWarning, UnavailableError, heard_by

T = TypeVar("T")

log = logging.getLogger(__name__)


class Guard:
    """Runs diagnostics, catches what they raise, and keeps the time that they take.

    Warnings are given once a fit by a count of its own, whatever filters Python has. Only a wrong
    argument ends the fit, by an `ArgumentError`.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner  # name of the callback, for messages
        self.restart()

    def restart(self) -> None:
        """Begin a new fit: everything may run again, the clock is at zero."""
        self.seconds = 0.0  # spent inside `run` and `timed`
        self._start = time.perf_counter()
        self._off: set[str] = set()
        self._warned: set[str] = set()
        self.told: set[str] = set()  # in this fit, by whichever callback; shared between them

    def run(self, what: str, diagnostic: Callable[[], T], *, retry: bool = False) -> T | None:
        """Result of a diagnostic; None when it fails, or failed before and is not to ``retry``."""
        if what in self._off and not retry:
            return None
        with self.timed(), heard_by(self.tell_once):
            try:
                return diagnostic()
            except ArgumentError as error:
                raise error.with_traceback(None) from None
            except Exception as error:  # noqa: BLE001 - whatever it is, training must go on
                self._report(what, error, retry=retry)
                return None

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of a block as ours; that of a block within a block only once."""
        begin, before = time.perf_counter(), self.seconds
        try:
            yield
        finally:
            self.seconds = before + time.perf_counter() - begin

    def elapsed(self) -> float:
        """Wall time since `restart`."""
        return time.perf_counter() - self._start

    def warn_once(self, what: str, message: str) -> None:
        """Give an `NTKWarning`, once a fit."""
        if what not in self._warned:
            self._warned.add(what)
            _say(f"{self.owner}: {message}", depth=2)

    def tell_once(self, message: str, what: str = "") -> None:
        """The same once for all callbacks of a fit, whatever numbers the message has."""
        key = what or re.sub(r"[\d.]+", "", message)
        if key not in self.told:
            self.told.add(key)
            _say(message, depth=2)

    def said(self, what: str) -> bool:
        """Whether `tell_once` was called on this in this fit."""
        return what in self.told

    def say_once(self, what: str, message: str) -> None:
        """`tell_once` by what a message is about."""
        self.tell_once(message, what)

    def lost(self, what: str, error: BaseException, without: Sequence[str]) -> None:
        """Report what several parts share and lack now; they are switched off, too."""
        others = [part for part in without if part != what]
        left_out = f"left out for this fit without it: {', '.join(others)}"
        self._tell(what, error, left_out if others else f"{what} is switched off for this fit")
        self._off |= set(without)

    def passed_over(self, what: str, error: BaseException) -> None:
        """Report what several parts share and lack of this step; they are asked again."""
        self._report(what, error, retry=True)

    def _report(self, what: str, error: BaseException, *, retry: bool) -> None:
        after = "is tried again when next due" if retry else "is switched off for this fit"
        if isinstance(error, UnavailableError):
            error = error.__cause__ or error
        self._tell(what, error, f"{what} {after}")

    def _tell(self, what: str, error: BaseException, after: str) -> None:
        if what in self._off:
            return
        self._off.add(what)
        log.debug("%s: %s failed; training goes on.", self.owner, what, exc_info=error)
        said = f"{type(error).__name__}: {error}".rstrip(": .")
        _say(
            f"{self.owner}: {what} failed with {said}. Training goes on; {after}. "
            f"Its traceback is logged at level DEBUG by {__name__.partition('.')[0]}.",
            depth=4,
        )


def _say(message: str, depth: int) -> None:
    """Warn as from ``depth`` frames above; what was said in an earlier fit is said again."""
    frame = sys._getframe(depth)
    place = frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__")
    try:
        warnings.warn_explicit(message, NTKWarning, *place, registry={})
    except NTKWarning:  # the program makes errors of warnings, which must not change its training
        log.warning(message)
