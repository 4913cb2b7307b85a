"""What a run and its cured twin come to; not in `__main__`, which other processes cannot import."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from time import process_time

import torch

from tests.broken.cases import RUNS
from tests.broken.run import FAILS, WORKS, Run

BY_NAME = {run.name: run for run in RUNS}


@dataclass(frozen=True)
class Measured:
    """Errors of a run and of its cured twin, and the processor time of the run."""

    run: Run
    error: float
    cured: float | None
    seconds: float

    @property
    def as_planned(self) -> bool:
        """Whether the broken one fails, and the cured or healthy one works."""
        itself = self.error < WORKS if self.run.cause == "CLEAN" else self.error > FAILS
        return itself and (self.cured is None or self.cured < WORKS)

    def __str__(self) -> str:
        twin = "" if self.cured is None else f"{self.cured:.2g}"
        run = f"{self.run.cause:20} {self.run.half:5} {self.run.name:42}"
        mark = "" if self.as_planned else "  <- not as planned"
        return f"{run} {self.error:9.2g} {twin:>9} {self.seconds:5.1f} s{mark}"


def quiet() -> None:
    """Begin a process of a pool: one thread, and nothing said by Lightning."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def measure(name: str, seed: int, with_cured: bool) -> tuple[float, float | None, float]:
    """Error, error of the cured twin, and seconds of a run given by name."""
    run, start = BY_NAME[name], process_time()
    error = run.build(seed).fit()
    seconds = process_time() - start
    cured = run.cured(seed) if with_cured else None
    return error, cured and cured.fit(), seconds
