"""What NTKMonitor and NTKBalancer cost in training, at their default settings.

    python -m benchmarks.overhead

A real Trainer trains the wave equation with the model and the data of ``configs/wave.yaml``:

| contestant | callbacks |
| --- | --- |
| plain | none |
| monitor | `NTKMonitor()`: a measurement every 1000 steps |
| balancer | `NTKBalancer()`: an update every 500 steps |
| both | both |

All train in turns, in an order drawn anew for each round. The clock runs from the end of step 0 to
the end of step ``--steps``, a multiple of 1000, so each contestant does exactly its usual share of
work in it; what happens once (the first step, which draws the layout and imports; the figure at
the end) is timed apart. The share of a contestant is 1 - plain / contestant, by four measures:

| column | says |
| --- | --- |
| share | of the wall time, within a round; the median over rounds |
| of CPU | the same of the processor time |
| of least CPU | of the least processor times of all rounds: the steadiest on a busy machine |
| by own clock | the growth of the callbacks' own clocks over the wall time of the window |

The first three hold whatever the callbacks cause, hooks and colder caches too; the last is what
``ntk/overhead_fraction`` is made of, and has the least noise. What is logged counts the whole fit,
which is short here, so that its first and its last step weigh more than in earnest.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import yaml
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger

from benchmarks.report import FOLDER, ROOT, begun, load_average, parser, write
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

RESULTS = FOLDER / "overhead.json"
EVERY = 1000
"""Steps after which the work of both callbacks repeats itself."""
TARGET = 0.02
"""Largest share of wall time that both callbacks together are meant to take."""
PLAIN = "plain"
CALLBACKS: dict[str, Callable[[], list[Callback]]] = {
    PLAIN: list,
    "monitor": lambda: [NTKMonitor()],
    "balancer": lambda: [NTKBalancer()],
    "both": lambda: [NTKMonitor(), NTKBalancer()],
}
OFF = ("enable_checkpointing", "enable_progress_bar", "enable_model_summary")
FRACTION = "ntk/overhead_fraction"


@dataclass(frozen=True)
class Run:
    """Seconds of one training run."""

    wall_s: float  # wall time of the window
    cpu_s: float  # processor time of the process in the window
    own_s: float  # time in the window that the callbacks count as theirs
    once_s: float  # wall time of the fit outside the window
    fraction: float | None  # `FRACTION` at the last measurement; None without a monitor


class Clock(Callback):
    """Reads all clocks after step 0 and after step ``steps``."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.readings: list[tuple[float, float, float]] = []  # wall, processor, callbacks

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Read them."""
        if trainer.global_step in (1, self.steps + 1):
            own = sum(callback.guard.seconds for callback in ntk_callbacks(trainer))
            self.readings.append((time.perf_counter(), time.process_time(), own))


def ntk_callbacks(trainer: Trainer) -> list[Any]:
    """The callbacks of this package among those of a trainer."""
    return [c for c in trainer.callbacks if isinstance(c, NTKMonitor | NTKBalancer)]


def train(
    wave: ModuleType, config: Mapping[str, Any], make: Callable[[], list[Callback]], steps: int
) -> Run:
    """One fit from the same start; two more steps than are timed, the last is measured, too."""
    seed_everything(0, verbose=False)
    model = wave.Wave(**config["model"])
    data = wave.Points(**config["data"], steps=steps + 2)
    clock = Clock(steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=steps + 2,
            log_every_n_steps=config["trainer"]["log_every_n_steps"],
            limit_val_batches=0,
            **dict.fromkeys(OFF, False),
            logger=TensorBoardLogger(folder),
            callbacks=[*make(), clock],
        )
        begin = time.perf_counter()
        trainer.fit(model, datamodule=data)
        total = time.perf_counter() - begin
    wall, cpu, own = (b - a for a, b in zip(*clock.readings, strict=True))
    logged = [c.history[FRACTION] for c in ntk_callbacks(trainer) if isinstance(c, NTKMonitor)]
    return Run(wall, cpu, own, total - wall, float(logged[0][-1][1]) if logged else None)


def in_turns(
    contestants: Mapping[str, Callable[[], Run]], rounds: int
) -> Iterator[dict[str, list[Run]]]:
    """Run all contestants in rounds, behind a run of the last one that is thrown away.

    After each round come the runs so far, the i-th of the i-th round.
    """
    list(contestants.values())[-1]()
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in random.Random(number).sample(list(contestants), len(contestants)):
            runs[name].append(contestants[name]())
        yield runs


def figures(runs: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, Any]]:
    """Medians and shares of each contestant against the plain one, ready for JSON."""
    found = {}
    for name, own in runs.items():
        pairs = list(zip(runs[PLAIN], own, strict=True))
        fractions = [run.fraction for run in own if run.fraction is not None]
        found[name] = {
            "median_s": median(run.wall_s for run in own),
            "once_s": median(run.once_s for run in own),
            "share": median(1 - plain.wall_s / run.wall_s for plain, run in pairs),
            "share_cpu": median(1 - plain.cpu_s / run.cpu_s for plain, run in pairs),
            "share_least_cpu": 1 - min(r.cpu_s for r in runs[PLAIN]) / min(r.cpu_s for r in own),
            "share_own": median(run.own_s / run.wall_s for run in own),
            "fraction_logged": median(fractions) if fractions else None,
            "runs": [asdict(run) for run in own],
        }
    return found


def table(contestants: Mapping[str, Mapping[str, Any]], steps: int) -> str:
    """The figures as text."""
    columns = "ms a step   share  of CPU  of least CPU  by own clock  logged   once"
    lines = [f"{'':10}{columns}"]
    for name, own in contestants.items():
        logged = own["fraction_logged"]
        lines.append(
            f"{name:10}{own['median_s'] / steps * 1e3:9.3f}{own['share']:8.2%}"
            f"{own['share_cpu']:8.2%}{own['share_least_cpu']:14.2%}{own['share_own']:14.2%}"
            f"{'-' if logged is None else format(logged, '.2%'):>8}{own['once_s']:6.2f}s"
        )
    return "\n".join(lines)


def load_example(name: str) -> ModuleType:
    """A module of ``examples``; what it shares with its siblings is imported by its bare name."""
    folder = ROOT / "examples"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _steps(text: str) -> int:
    steps = int(text)
    if steps < EVERY or steps % EVERY:
        raise argparse.ArgumentTypeError(f"{steps} is no positive multiple of {EVERY}")
    return steps


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table and keep all figures as JSON, after each round."""
    made = parser(__doc__, RESULTS)
    add = made.add_argument
    add("--config", type=Path, default=ROOT / "configs" / "wave.yaml")
    add("--steps", type=_steps, default=EVERY, help=f"timed steps, a multiple of {EVERY}")
    add("--rounds", type=int, default=7)
    options = made.parse_args(arguments)
    config = yaml.safe_load(options.config.read_text())
    wave = load_example("wave")
    contestants = {
        name: partial(train, wave, config, make, options.steps) for name, make in CALLBACKS.items()
    }
    report = begun(options.threads) | {"steps": options.steps, "target": TARGET}
    report |= {"model": config["model"], "data": config["data"]}
    with load_example("gallery/command_line").quiet():
        for number, runs in enumerate(in_turns(contestants, options.rounds), 1):
            report |= {"rounds": number, "contestants": figures(runs)}
            write(options.json, report)
            print(f"round {number} of {options.rounds}, load {load_average()}")
            print(table(report["contestants"], options.steps), flush=True)


if __name__ == "__main__":
    main()
