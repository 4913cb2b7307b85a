"""One run of the gallery benchmark: train, and keep what came out."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from benchmarks.gallery_problems import PROBLEMS, STEPS, balancer_of, example
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

LOOK_EVERY = 200
"""Steps between errors of the course."""

OF_START = ("trace", "lambda_max", "effective_rank", "log10_condition")
"""What the spectra say at the first step, by term."""

OF_END = ("lr", "max_stable_lr", "verdict")


@dataclass(frozen=True)
class Task:
    """A run that is to be made."""

    problem: str
    design: str
    column: str
    seed: int

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.problem} | {self.design} | {self.column} | {self.seed}"


@dataclass
class Record:
    """What a run gave. Errors are relative L2 on the grid of the example; inf where it diverged."""

    problem: str
    design: str
    column: str
    seed: int
    error: float
    best: float
    best_step: int
    course: list[list[float]]  # step, seconds of one core, error
    weights: dict[str, float]
    rows: dict[str, int]
    start: dict[str, float]
    end: dict[str, float]
    found: dict[str, str] = field(default_factory=dict)  # such as a coefficient
    seconds: float = 0.0  # of one core, without the first and the last step
    steps: int = STEPS

    def as_json(self) -> dict[str, Any]:
        """Plain; JSON has no infinity, which is written as null."""
        return {k: v if v != math.inf else None for k, v in asdict(self).items()}


class Course(Callback):
    """Notes the error every few steps, and the time of training alone."""

    def __init__(self) -> None:
        self.course: list[list[float]] = []
        self.spent = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """The clock runs while a batch is trained on."""
        self._from = time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *others: Any
    ) -> None:
        """Without what the error takes; the last of ``others`` is the number of the batch."""
        batch_idx = others[-1]
        if 0 < batch_idx < STEPS - 1:  # the monitor measures at the first and the last step
            self.spent += time.process_time() - self._from
        if batch_idx == 0 or (batch_idx + 1) % LOOK_EVERY == 0:
            error = float(pl_module.error(trainer.datamodule.test))
            self.course.append([batch_idx + 1, round(self.spent, 3), _finite(error)])


def train(task: Task) -> Record:
    """One run on one thread."""
    torch.set_num_threads(1)
    problem = next(p for p in PROBLEMS if p.title == task.problem)
    seed_everything(task.seed, verbose=False)
    model, data = problem.build(task.design, task.seed)
    rows = _rows(model, data)
    course, balancer = Course(), NTKBalancer(**balancer_of(task.column))
    monitor = NTKMonitor(steps=[0])  # and at the last step
    with example("gallery.command_line").quiet():
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        trainer = Trainer(
            accelerator="cpu",
            max_steps=STEPS,
            limit_val_batches=0,
            callbacks=[course, balancer, monitor],
            **dict.fromkeys(off, False),
        )
        trainer.fit(model, datamodule=data)
    errors = {int(step): error for step, _, error in course.course}
    best = min(errors, key=lambda step: errors[step])
    return Record(
        **asdict(task),
        error=_finite(float(model.error(data.test))),
        best=errors[best],
        best_step=best,
        course=course.course,
        weights=dict(balancer.weights),
        rows=rows,
        start=_first(monitor),
        end=_last(monitor),
        found=dict(model.found()),
        seconds=round(course.spent, 3),
    )


def _rows(model: LightningModule, data: Any) -> dict[str, int]:
    batch = next(iter(data.train_dataloader()))
    return {name: residual.numel() for name, residual in model.residuals(batch).items()}


def _first(monitor: NTKMonitor) -> dict[str, float]:
    """Tag without its prefix -> value at the first step."""
    of_start = tuple(f"ntk/{name}/" for name in OF_START)
    series = {tag: values for tag, values in monitor.history.items() if tag.startswith(of_start)}
    return {tag.removeprefix("ntk/"): float(values[0][1]) for tag, values in series.items()}


def _last(monitor: NTKMonitor) -> dict[str, float]:
    series = {name: monitor.history.get(f"ntk/{name}", []) for name in OF_END}
    return {name: float(values[-1][1]) for name, values in series.items() if len(values)}


def _finite(error: float) -> float:
    return error if math.isfinite(error) else math.inf
