"""Seeded runs whose every number was written down once, so that later code can be held against it.

On purpose independent of the examples and of the other helpers of the tests, which may change.
Of the project only `NTKMonitor`, `NTKBalancer` and `tap` are used.
The record itself is never made anew, see records/README.md.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# As in conftest.py; otherwise MKL chooses its code by how memory is aligned.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.util import tensor_util
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pinn_ntk import tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

ROUTES = ("loss", "taps", "residuals", "probe")
FOLDER = Path(__file__).resolve().parent / "records"
BATCH = dict[str, Tensor]

END = 10
"""Steps of the run that went on without a break; the one that was saved had half of them."""

CLOCK = "overhead_fraction"
"""What depends on the clock: kept is when it was logged, not what."""

NEW = {"ntk/verdict", "ntk/verdict/text_summary"}
"""Tags that there were not yet."""

LAYOUT = "custom_scalars__config__"
"""TensorBoard's own tag."""


# --- The problems


def slope(y: Tensor, x: Tensor) -> Tensor:
    """Gradient of each row of y by its own row of x, on the graph."""
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


class Problem(pl.LightningModule):
    """Mean squares of named residuals, each logged under its name, in one sum."""

    inputs: int

    def __init__(self, *, taps: bool = False) -> None:
        super().__init__()
        sizes = ((self.inputs, 8), (8, 8), (8, 1))
        first, middle, last = (nn.Linear(n, m, dtype=torch.float64) for n, m in sizes)
        self.taps, self.net = taps, nn.Sequential(first, nn.Tanh(), middle, nn.Tanh(), last)

    def training_step(self, batch: BATCH, batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        if self.taps:
            residuals = {name: tap(r, name) for name, r in residuals.items()}
        losses = {name: r.square().mean() for name, r in residuals.items()}
        for name, loss in losses.items():
            self.log(name, loss)
        return sum(losses.values(), start=torch.zeros((), dtype=torch.float64))


class Poisson(Problem):
    """u'' = -9 sin(3x) on [-1, 1] and u(-1) = u(1) = 0 on fixed points, by SGD with momentum."""

    inputs = 1

    def residuals(self, batch: BATCH) -> BATCH:
        x = batch["x"].clone().requires_grad_()
        u_xx = slope(slope(self.net(x), x), x)
        return {"pde": u_xx + 9 * torch.sin(3 * x.detach()), "bc": self.net(batch["ends"])}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=2e-4, momentum=0.5)

    @staticmethod
    def batches(number: int) -> list[BATCH]:
        x = torch.linspace(-1, 1, 14, dtype=torch.float64)[:, None]
        ends = torch.tensor([-1.0, -0.95, 0.95, 1.0], dtype=torch.float64)[:, None]
        return [{"x": x, "ends": ends}] * number


class Wave(Problem):
    """u_tt = 4 u_xx on points that are new in every step, by Adam.

    Those of the initial line and of the boundary come with the batch, drawn by a generator; those
    inside are drawn where the residual is computed, from the global random state.
    """

    inputs = 2

    def residuals(self, batch: BATCH) -> BATCH:
        inside = torch.rand(20, 2, dtype=torch.float64).requires_grad_()
        initial = batch["initial"].clone().requires_grad_()
        u_0 = self.net(initial)
        by = slope(self.net(inside), inside)
        u_tt, u_xx = slope(by[:, 0], inside)[:, :1], slope(by[:, 1], inside)[:, 1:]
        start = torch.sin(torch.pi * initial.detach()[:, 1:])
        u = torch.cat([u_0 - start, self.net(batch["boundary"])])
        return {"u": u, "ut": slope(u_0, initial)[:, :1], "pde": u_tt - 4 * u_xx}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)

    @staticmethod
    def batches(number: int) -> list[BATCH]:
        options = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(5)}
        drawn = functools.partial(torch.rand, **options)
        line, side = (torch.tensor(s, dtype=torch.float64) for s in ([0.0, 1.0], [1.0, 0.0]))
        edge = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(3)[:, None]
        right = torch.cat([torch.zeros_like(edge), edge], 1)
        return [
            {"initial": line * drawn(7, 2), "boundary": side * drawn(6, 2) + right}
            for _ in range(number)
        ]


PROBLEMS: dict[str, type[Problem]] = {"poisson": Poisson, "wave": Wave}
CASES = [(problem, route) for problem in PROBLEMS for route in ROUTES]


# --- Runs


def callbacks_by(
    route: str, every: int = 2, balance: int = 2, **options: Any
) -> tuple[NTKMonitor, NTKBalancer]:
    """Both callbacks with one of the routes; the balancer has no probe and takes the loss there.

    Its convention was the default then.

    "partial" is the route of a `functools.partial`.
    """
    own: dict[str, Any] = {route: "residuals"} if route in {"residuals", "probe"} else {}
    if route == "partial":
        own = {"residuals": functools.partial(scaled, scale=2.0)}
    monitor = NTKMonitor(every_n_steps=every, **own, **options)
    own.pop("probe", None)
    return monitor, NTKBalancer(every_n_steps=balance, convention="sum", ema=0.25, **own)


def built(problem: str, route: str) -> Problem:
    """The same network whenever it is called; one thread, so that sums have one order."""
    torch.set_num_threads(1)
    torch.manual_seed(11)
    return PROBLEMS[problem](taps=route == "taps")


def trainer(callbacks: Iterable[pl.Callback], steps: int, **options: Any) -> pl.Trainer:
    """A trainer on the CPU that writes nothing of its own."""
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {"accelerator": "cpu", "devices": 1, **dict.fromkeys(silent, False), **options}
    return pl.Trainer(max_steps=steps, callbacks=list(callbacks), log_every_n_steps=10, **options)


def run(problem: str, route: str) -> dict[str, Any]:
    """Train with both callbacks; all that comes out of it, as plain values.

    Of a term of the wave only some of the rows are in the kernel: they are more than max_points.
    """
    module = built(problem, route)
    monitor, balancer = callbacks_by(route, 10, 20, max_points=16)
    loader = DataLoader(module.batches(60), batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
        trained = trainer([monitor, balancer], 60, logger=logger)
        trained.fit(module, loader)
        logger.finalize("success")
        written = written_to(Path(logger.log_dir))
    spectra = {
        term: [[step, s.eigenvalues, s.floor] for step, s in (series[0], series[-1])]
        for term, series in monitor.spectra.items()
    }
    metrics = dict(sorted(trained.callback_metrics.items()))
    metrics |= {tag: None for tag in metrics if tag.endswith(CLOCK)}
    made = {**outcome(module, monitor, balancer), "spectra": spectra, "metrics": metrics}
    return plain(made | written)


def outcome(module: Problem, monitor: NTKMonitor, balancer: NTKBalancer) -> dict[str, Any]:
    """What a run leaves behind in module and callbacks."""
    return {
        "monitor": {tag: timeless(tag, points) for tag, points in monitor.history.items()},
        "balancer": {tag: timeless(tag, points) for tag, points in balancer.history.items()},
        "weights": dict(balancer.weights),
        "parameters": torch.cat([p.detach().flatten() for p in module.parameters()]),
    }


def timeless(tag: str, points: Iterable[Any]) -> list[Any]:
    """[[step, value], ...]; no value where it depends on the clock."""
    return [[int(step), None if tag.endswith(CLOCK) else value] for step, value in points]


def written_to(folder: Path) -> dict[str, Any]:
    """What TensorBoard reads in a folder: all tags, scalars, texts, spectra and the layout."""
    kept = {"scalars": 0, "tensors": 0, "images": 0}
    events = EventAccumulator(str(folder), size_guidance=kept).Reload()
    tags = events.Tags()
    tensors = {
        tag: [[e.step, tensor_util.make_ndarray(e.tensor_proto)] for e in events.Tensors(tag)]
        for tag in sorted(tags["tensors"])
    }
    return {
        "tags": {kind: sorted(found) for kind, found in tags.items() if isinstance(found, list)},
        "scalars": {
            tag: timeless(tag, [(e.step, e.value) for e in events.Scalars(tag)])
            for tag in sorted(tags["scalars"])
        },
        "images": {tag: [e.step for e in events.Images(tag)] for tag in sorted(tags["images"])},
        "texts": {tag: words(tag, series) for tag, series in tensors.items() if is_text(series)},
        "tensors": {tag: [s[0], s[-1]] for tag, s in tensors.items() if not is_text(s)},
    }


def is_text(series: list[Any]) -> bool:
    """Whether what was read are bytes rather than numbers."""
    return bool(series[0][1].dtype == object)


def words(tag: str, series: list[Any]) -> list[Any]:
    """[[step, text], ...]; the layout of the custom scalars tab is a message, given as text."""
    read = bytes.decode if tag != LAYOUT else lambda written: str(Layout.FromString(written))
    return [[step, read(array.item())] for step, array in series]


def plain(value: Any) -> Any:
    """Tensors and arrays as lists, and all as it comes back from a file."""
    return json.loads(json.dumps(value, default=lambda array: array.tolist()))


# --- Runs that go on from a checkpoint


def scaled(module: Problem, batch: BATCH, *, scale: float) -> BATCH:
    """A route that is a function of the module, with a setting of its own."""
    return {name: scale * r for name, r in module.residuals(batch).items()}


def short(route: str, checkpoint: Path | None = None) -> dict[str, Any]:
    """Train Poisson to the `END`, from a checkpoint if there is one; outcome."""
    module, callbacks = built("poisson", route), callbacks_by(route)
    fit(module, callbacks, END, checkpoint)
    return plain(outcome(module, *callbacks))


def fit(
    module: Problem, callbacks: Iterable[pl.Callback], steps: int, checkpoint: Path | None = None
) -> pl.Trainer:
    """Train; one batch an epoch, since Lightning warns of a restart in the middle of one."""
    trained = trainer(callbacks, steps, max_epochs=-1, limit_train_batches=1)
    takes = "weights_only" in inspect.signature(pl.Trainer.fit).parameters  # else torch decides
    options = {"weights_only": True} if checkpoint is not None and takes else {}
    loader = DataLoader(module.batches(1), batch_size=None)
    trained.fit(module, loader, ckpt_path=checkpoint, **options)
    return trained


# --- The arithmetic of this machine


@functools.cache
def recorded() -> dict[str, Any]:
    return json.loads((FOLDER / "before.json").read_text())


# --- The comparison

DIGITS = 1e-8
"""Relative tolerance: even one kind of processor does not always give the same last digit."""

SINGLE = 1e-6
"""The same for scalars that TensorBoard has written in float32."""

NOISE = ("certificate", "log10_condition", "predicted_decrease_ratio", "spectra", "tensors")
"""What is made of rounding errors or of small differences: compared only if asked for."""


def differences(got: Any, expected: Any, *, exact: bool = False) -> list[str]:
    """Where two records differ: to `DIGITS` and without texts, or to the last digit."""
    agree = _equal if exact else _near
    return [
        f"{path}: {a!r}, expected {b!r}"
        for path, a, b in _pairs(got, expected)
        if not agree(a, b, path)
    ]


def _pairs(got: Any, expected: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, got, expected) of all leaves, and of the tags and lengths above them."""
    if isinstance(expected, dict) and isinstance(got, dict):
        yield f"{path} keys", " ".join(sorted(set(got) - NEW)), " ".join(sorted(expected))
        for key in [key for key in expected if key in got]:
            yield from _pairs(got[key], expected[key], f"{path} {key}")
    elif isinstance(expected, list) and isinstance(got, list):
        got = [tag for tag in got if tag not in NEW] if path.startswith(" tags") else got
        yield f"{path} length", len(got), len(expected)
        for number, (a, b) in enumerate(zip(got, expected, strict=False)):
            yield from _pairs(a, b, f"{path}[{number}]")
    else:
        yield path, got, expected


REWORDED = re.compile(
    r"^- (Traces|Width|Drift|Time scales|Interference|Step size|Prediction|Rank|Rows left out"
    r"|[^:\n]+: (positive definite|spectrum,|[\d.]+ directions? carr)).*\n?",
    re.MULTILINE,
)
"""Sentences that are not said today, or in other words."""


VERDICT = re.compile(r"\A\*\*Verdict.*?(?=\*\*Kernel at step)", re.DOTALL)
"""What a summary begins with today."""


def _words(summary: str) -> str:
    """A summary without those, and numbers as they are written today: 1e-14, not 1.0e-14."""
    return REWORDED.sub("", VERDICT.sub("", summary)).replace(".0e", "e")


def _equal(got: Any, expected: Any, path: str) -> bool:
    if LAYOUT in path and isinstance(got, str):
        return _charts(got) == _charts(expected)
    if path.startswith(" texts") and isinstance(got, str) and isinstance(expected, str):
        return _words(got) == _words(expected)
    both_nan = got != got and expected != expected
    return bool(both_nan or (type(got) is type(expected) and got == expected))


def _charts(layout: str) -> list[list[str]]:
    """Title and patterns of each chart, in whatever order."""
    return sorted(sorted(re.findall(r"\".*\"", chart)) for chart in layout.split("chart {"))


def _near(got: Any, expected: Any, path: str) -> bool:
    if path.endswith((" keys", " length")):
        return bool(got == expected)
    if isinstance(expected, str) or any(word in path for word in NOISE):
        return type(got) is type(expected)
    if isinstance(expected, float) and isinstance(got, (int, float)):
        digits = SINGLE if path.startswith(" scalars") else DIGITS
        return bool(np.isclose(got, expected, rtol=digits, atol=1e-12, equal_nan=True))
    return _equal(got, expected, path)
