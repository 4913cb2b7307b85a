"""Several residuals -> their Jacobians, within the time and memory that a measurement may take.

First every term is read by the fast path, then it is known which parameters need a backward pass a
row, and what one pass takes. What that will cost is said before it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from pinn_ntk.graph.broadcast import spread_by_accident
from pinn_ntk.graph.jacobian.capture import Capture
from pinn_ntk.graph.jacobian.cost import (
    NAMED,
    Say,
    duration,
    listed,
    rows_one_by_one,
    samples_in_memory,
    size,
)
from pinn_ntk.kernel.bounds import MAX_ROWS, Bounds
from pinn_ntk.kernel.sample import Sample

Allow = Callable[[float], None]
"""Is told how many seconds rows will take one by one, and may raise to prevent it."""

MANY = 32
"""Parts of a term, with passes of their own, up to which nothing is said in training."""

AVOID = (
    "To avoid it: mark with pinn_ntk.tap a residual that torch's own operations make, leave the "
    "parameters out (params=), measure less often, or on fewer points{more}."
)


def captured(
    residuals: Mapping[str, Tensor],
    leaves: Mapping[str, Tensor],
    bounds: Bounds,
    *,
    certify: bool,
    dtype: torch.dtype,
    say: Say,
    allow: Allow = lambda _: None,
) -> dict[str, Capture]:
    """Term -> its finished capture; ``say`` is told what takes long, and what was sampled."""
    _tell_spread(residuals, leaves, say)
    samples = samples_in_memory(residuals, leaves, bounds.held)
    if samples:
        say("memory", _too_large(residuals, samples, bounds))
    share = bounds.held // max(1, len(residuals))
    captures = {
        term: Capture(term, residual, leaves, bounds, share, sample=samples.get(term))
        for term, residual in residuals.items()
    }
    told: set[str] = set()
    for term, capture in captures.items():
        rows = capture.residual.numel()

        def refuse(mixed: Mapping[str, str], term: str = term, rows: int = rows) -> Collection[str]:
            if bounds.max_rows is not None and rows > bounds.max_rows:
                return mixed
            if term not in told:
                told.add(term)
                say(f"mixed {term}", f"term {term!r}: {_mixed(mixed, rows, bounds)}")
            return ()

        capture.read(certify=certify, dtype=dtype, refuse=refuse)
        if capture.components > MANY and bounds.max_rows is not None:
            say(f"many {term}", _many(capture))
    _finish(captures, bounds, say, allow)
    return captures


def _tell_spread(residuals: Mapping[str, Tensor], leaves: Mapping[str, Tensor], say: Say) -> None:
    for term, residual in residuals.items():
        accident = spread_by_accident(term, residual, leaves)
        if accident is not None:
            say(f"spread {term}", accident)


def _many(capture: Capture) -> str:
    return (
        f"term {capture.term!r}: its {capture.residual.numel()} rows fall into "
        f"{capture.components} parts (components of a point, or lines of a grid), each of which "
        f"takes backward passes of its own, {duration(capture.reading)} at each measurement. To "
        "avoid it: measure less often, or tap a residual of fewer components."
    )


def _finish(captures: Mapping[str, Capture], bounds: Bounds, say: Say, allow: Allow) -> None:
    slow = {term: capture for term, capture in captures.items() if capture.reasons}
    wanted = {term: capture.jacobian.rows for term, capture in slow.items()}
    taken = rows_one_by_one(wanted, {term: c.row_bytes for term, c in slow.items()}, bounds)
    seconds = {t: taken[t] * c.seconds for t, c in slow.items() if wanted[t] > 1}
    for term, expected in seconds.items():
        say(f"slow {term} {bounds.max_rows}", _slow(slow[term], taken[term], expected, bounds))
    if seconds:
        allow(sum(seconds.values()))
    for term, capture in captures.items():
        if term in taken:
            capture.keep(taken[term])
        capture.finish()
        if capture.jacobian.rows > 1:
            capture.jacobian.fallbacks |= capture.mixed | capture.reasons


def _slow(capture: Capture, rows: int, seconds: float, bounds: Bounds) -> str:
    """Which parameters take a backward pass a row, what that costs, and how to avoid it."""
    every = capture.residual.numel() if capture.sample is None else capture.sample.total
    said = f"term {capture.term!r}: {listed(capture.reasons)}. "
    cost = (
        f"{rows} vector-Jacobian products, {duration(seconds)} at most, "
        f"{size(rows * capture.row_bytes)}"
    )
    if rows == every:
        return f"{said}Its exact rows are computed one by one instead: {cost}. {_avoid(bounds)}"
    bound = f"max_rows={bounds.max_rows}"
    if bounds.max_rows is None or rows * capture.row_bytes > bounds.held // 2:
        bound = f"memory_budget={bounds.memory}"
    return (
        f"{said}Of its {every} rows {rows} are computed one by one instead, drawn from equal "
        f"strata ({bound}): {cost}. Traces are estimated from them, blocks are of them. "
        f"{_avoid(bounds)}"
    )


def _avoid(bounds: Bounds) -> str:
    return AVOID.format(more=f", or set max_rows={MAX_ROWS}" if bounds.max_rows is None else "")


def _mixed(mixed: Mapping[str, str], rows: int, bounds: Bounds) -> str:
    return (
        f"{listed(mixed)}. Its exact rows are computed one by one instead: {rows} vector-Jacobian "
        f"products through that network. {_avoid(bounds)}"
    )


def _too_large(
    residuals: Mapping[str, Tensor], samples: Mapping[str, Sample], bounds: Bounds
) -> str:
    rows = [
        f"{len(s.rows)} of {residuals[term].numel()} rows of {term}" for term, s in samples.items()
    ]
    more = f" and those of {len(rows) - NAMED} more terms" if len(rows) > NAMED else ""
    return (
        f"the factors of all rows would take more than half of memory_budget={bounds.memory} "
        f"bytes, so {', '.join(rows[:NAMED])}{more} are measured, drawn from equal strata: traces "
        "are estimated from them, blocks are of them. Raise memory_budget for exact traces, or "
        "measure on fewer points."
    )
