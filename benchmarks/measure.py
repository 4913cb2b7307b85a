"""Time and memory of contestants that run side by side.

Time: the repetitions of all contestants are interleaved in rounds, in an order drawn anew for each
round, so that drift of a shared machine hits all alike; ratios are taken within a round, and the
median over rounds is what counts. The processor time of the process stands beside the wall time:
where it is clearly less, others used the processor.

Memory: the peak of what torch's allocator holds beyond what was live when the contestant started,
its result included. On the CPU it comes from the profiler's record of every allocation and
release, on CUDA from the allocator's own counter. It is exact to the byte for tensors, temporaries
inside an operation included, and repeats itself; resident memory depends on what malloc keeps.
Where malloc is told to give every page back (MALLOC_MMAP_THRESHOLD_=65536), the rise of
`ru_maxrss` in a fresh process agrees: for w = 500, N = 256, float32 it is 30.3 MB where this
says 29.7 MB for a full kernel, and 1034 MB where it says 1027 MB for torch.func. Not counted:
Python objects, and what a BLAS library allocates for itself.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")

SLOW_SECONDS = 2.0
"""A contestant slower than this runs `SLOW_REPEATS` times."""
SLOW_REPEATS = 2


@dataclass(frozen=True)
class Contestant:
    """What to run, and how its result is compared: (result, truth) -> (value, expected)."""

    run: Callable[[], object]
    compare: Callable[[Any, Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True)
class Record:
    """Figures of one contestant; None where there is no peer, or nothing to compare."""

    median_s: float
    minimum_s: float
    per_base: float  # its time in units of that of the base
    speedup: float | None  # time of the peer in units of its time
    peak_bytes: int  # most bytes held at once beyond what was live before
    memory_per_base: float
    memory_saving: float | None  # peak of the peer in units of its peak
    error: float | None  # relative Frobenius error against the truth
    wall_s: list[float]
    cpu_s: list[float]


@dataclass
class Timing:
    """Times of one contestant in seconds, a round each: wall, and of the whole process."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median wall time."""
        return median(self.wall)

    @property
    def minimum(self) -> float:
        """Least wall time."""
        return min(self.wall)

    def enough(self, max_seconds: float) -> bool:
        """Whether a slow contestant has run often enough, or one more run goes over the limit."""
        if not self.wall:
            return False
        slow = len(self.wall) >= SLOW_REPEATS and self.median > SLOW_SECONDS
        return slow or sum(self.wall) + self.median > max_seconds


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Times ``a`` in units of times ``b``: median over the rounds that both took part in."""
    return median(x / y for x, y in zip(a, b, strict=False))


def extra_in_units(more: Sequence[float], less: Sequence[float], unit: Sequence[float]) -> float:
    """(more - less) / unit, median over the rounds that all three took part in."""
    return median((x - y) / z for x, y, z in zip(more, less, unit, strict=False))


def measured(
    contestants: Mapping[str, Contestant],
    truth: Tensor,
    *,
    base: str,
    peer: str,
    repeats: int,
    max_seconds: float,
) -> dict[str, Record]:
    """Run all contestants: once for memory, result and warming up, then in rounds for time.

    ``base`` is the contestant whose figures are the units, ``peer`` the one to be beaten, which may
    be absent. The device to measure is that of ``truth``.
    """
    peaks: dict[str, int] = {}
    errors: dict[str, float | None] = {}
    for name, contestant in contestants.items():
        result, peaks[name] = peak_extra_memory(contestant.run, truth.device)
        errors[name] = _error(contestant, result, truth)
        del result
    runs = {name: contestant.run for name, contestant in contestants.items()}
    timings = interleaved(runs, repeats=repeats, max_seconds=max_seconds, device=truth.device)
    return {
        name: Record(
            median_s=own.median,
            minimum_s=own.minimum,
            per_base=ratio(own.wall, timings[base].wall),
            speedup=ratio(timings[peer].wall, own.wall) if peer in timings else None,
            peak_bytes=peaks[name],
            memory_per_base=peaks[name] / peaks[base],
            memory_saving=peaks[peer] / peaks[name] if peer in peaks else None,
            error=errors[name],
            wall_s=own.wall,
            cpu_s=own.cpu,
        )
        for name, own in timings.items()
    }


def _error(contestant: Contestant, result: object, truth: Tensor) -> float | None:
    if contestant.compare is None:
        return None
    value, expected = contestant.compare(result, truth)
    return float((value - expected).norm() / expected.norm())


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    max_seconds: float,
    device: torch.device,
) -> dict[str, Timing]:
    """Time all ``functions`` in rounds. They are expected to have run once before.

    Slow ones take part in the first few only, none for longer than ``max_seconds`` in all; every
    one runs once.
    """
    timings = {name: Timing() for name in functions}
    for number in range(repeats):
        order = random.Random(number).sample(list(functions), len(functions))
        with _no_collection():
            for name in (name for name in order if not timings[name].enough(max_seconds)):
                wall, cpu = _timed(functions[name], device)
                timings[name].wall.append(wall)
                timings[name].cpu.append(cpu)
    return timings


def peak_extra_memory(function: Callable[[], T], device: torch.device) -> tuple[T, int]:
    """The result of ``function``, and the most bytes of tensors held beyond those live before."""
    return _peak_on_cuda(function, device) if device.type == "cuda" else _peak_on_cpu(function)


def _peak_on_cpu(function: Callable[[], T]) -> tuple[T, int]:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it announces itself on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as observed:
        result = function()
    results = observed.profiler.kineto_results if observed.profiler is not None else None
    if results is None:
        raise RuntimeError("torch.profiler recorded nothing; memory cannot be measured.")
    events = [event for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative for a release; what was live before is not recorded
        peak = max(peak, held)
    return result, peak


def _peak_on_cuda(function: Callable[[], T], device: torch.device) -> tuple[T, int]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = function()
    torch.cuda.synchronize(device)
    return result, torch.cuda.max_memory_allocated(device) - before


def _timed(function: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall and processor time of one call; the result is released after the clock has stopped."""
    _synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    _synchronize(device)
    times = time.perf_counter() - wall, time.process_time() - cpu
    del result
    return times


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now and not while the clock runs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
