"""What is said of a fit in one line when it starts and one when it ends, on rank zero."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pinn_ntk.callbacks.trainer.flavours import PACKAGES, rank_zero_info

if TYPE_CHECKING:
    import pytorch_lightning as pl

SHOWN = 4
"""Terms, weights or steps that are listed; of more there is a count."""


class Schedule(Protocol):
    """When to act, see `pinn_ntk.callbacks.schedule`."""

    every_n_steps: int
    steps: frozenset[int] | None
    per_decade: int | None
    budget: float | None


class Done(NamedTuple):
    """What a callback did in a fit."""

    owner: str
    what: str  # such as "measurement"
    times: int


def say(line: str) -> None:
    """Hand a line to Lightning's logger, unless one of its packages is told to be quiet."""
    loggers = [logging.getLogger(name) for name in PACKAGES if name in sys.modules]
    if all(logger.isEnabledFor(logging.INFO) for logger in loggers):
        rank_zero_info(line)


def start_line(
    rows: Mapping[str, int], plans: Sequence[tuple[str, str]], places: Sequence[str]
) -> str:
    """Terms with their rows, what each callback is going to do, and where it is logged.

    >>> start_line({"pde": 128, "bc": 1}, [("NTKMonitor", "measured every 5 steps")], ["run"])
    'NTKMonitor: pde 128 rows, bc 1 row; measured every 5 steps; logged to run.'
    """
    terms = _listed(f"{n} {count} {'row' if count == 1 else 'rows'}" for n, count in rows.items())
    where = f"logged to {' and '.join(places)}" if places else "no logger, so in .history only"
    owners, plan = ", ".join(o for o, _ in plans), "; ".join(said for _, said in plans)
    return f"{owners}: {terms}; {plan}; {where}."


def end_line(done: Sequence[Done], weights: Mapping[str, float], share: float) -> str:
    """How often each callback acted, the last weights, and what it cost.

    >>> end_line([Done("NTKBalancer", "update", 3)], {"pde": 1.0, "bc": 41.25}, 0.0214)
    'NTKBalancer: 3 updates; last weights pde 1, bc 41.2; 2.1 % of the time.'
    >>> end_line([Done("NTKMonitor", "measurement", 0)], {}, 0.0)
    'NTKMonitor: nothing was measured in this fit.'
    """
    owners = ", ".join(one.owner for one in done)
    if not any(one.times for one in done):
        return f"{owners}: nothing was measured in this fit."
    counts = ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for _, what, n in done)
    last = f"last weights {_listed(f'{n} {number(w)}' for n, w in weights.items())}; "
    cost = "under 0.1 %" if share < 1e-3 else f"{number(100 * share, 2)} %"
    return f"{owners}: {counts}; {last if weights else ''}{cost} of the time."


def verdict_lines(step: int, lines: Sequence[str], owner: str = "") -> str:
    """A verdict as it stands on the terminal.

    >>> print(verdict_lines(59, ["early (likely)", "Help: Wait."]))
    Verdict at step 59: early (likely)
      Help: Wait.
    """
    return "\n  ".join([f"Verdict{owner} at step {step}: {lines[0]}", *lines[1:]])


def timing(schedule: Schedule, last_step: int | None, ends: str = "") -> str:
    """A schedule in words.

    ``ends`` are steps besides: "first", "last", both or none.
    """
    within = "" if schedule.budget is None else f" within {100 * schedule.budget:.3g} % of the time"
    if schedule.steps is not None:
        return f"{_at(sorted(schedule.steps), last_step, ends.split())}{within}"
    if schedule.per_decade is not None:
        return f"{schedule.per_decade} times per factor of ten in steps{within}"
    return f"every {schedule.every_n_steps} steps{within}".replace("every 1 steps", "every step")


def _at(steps: Sequence[int], last_step: int | None, ends: Sequence[str]) -> str:
    """Steps that are listed, as far as a fit goes, and those besides that are not."""
    known = [step for step in steps if last_step is None or step <= last_step]
    listed = {"first": 0 in known, "last": last_step in known}
    besides = " and the ".join(end for end in ends if not listed[end])
    if known:
        noun, also = "step" if len(known) == 1 else "steps", f", and at the {besides} step"
        return f"at {noun} {_listed(map(str, known))}{also if besides else ''}"
    return f"at {f'the {besides}' if besides else 'no'} step ({steps[0]} lies behind {last_step})"


def places(trainer: pl.Trainer) -> list[str]:
    """Where loggers write: folders as seen from here, or the class of a logger without one.

    Those that stand in for loggers, as under ``fast_dev_run``, write nowhere.
    """
    writing = [one for one in trainer.loggers if type(one).__name__ != "DummyLogger"]
    return list(dict.fromkeys(map(_place, writing)))


def _place(logger: Any) -> str:
    folder = getattr(logger, "log_dir", None) or getattr(logger, "save_dir", None)
    if not isinstance(folder, str | os.PathLike):
        return type(logger).__name__
    try:
        return min(str(folder), os.path.relpath(folder), key=len)
    except ValueError:  # on another drive
        return str(folder)


def number(value: float, digits: int = 3) -> str:
    """A number to some digits; below a million without exponent."""
    return f"{float(f'{value:.{digits}g}'):g}"


def _listed(entries: Iterable[str]) -> str:
    every = list(entries)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
