"""Seeded runs whose every number was written down once, so that later code can be held against it.

On purpose independent of the examples and of the other helpers of the tests, which may change.
Of the project only `NTKMonitor`, `NTKBalancer` and `tap` are used.

The record was made by ``python -m tests.records FOLDER``, see records/README.md.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# As in conftest.py; otherwise MKL chooses its code by how memory is aligned.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger
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

SAVED_AT, END = 5, 10
"""Steps of the run that was saved, and of the one that went on without a break."""

CLOCK = "overhead_fraction"
"""What depends on the clock: kept is when it was logged, not what."""

LAYOUT = "custom_scalars__config__"
"""TensorBoard's own tag."""


# --- The problems


def network(inputs: int) -> nn.Sequential:
    """A plain multilayer perceptron, drawn in float64."""
    hidden, middle, last = (
        nn.Linear(n, m, dtype=torch.float64) for n, m in ((inputs, 8), (8, 8), (8, 1))
    )
    return nn.Sequential(hidden, nn.Tanh(), middle, nn.Tanh(), last)


def slope(y: Tensor, x: Tensor) -> Tensor:
    """Gradient of each row of y by its own row of x, on the graph."""
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


class Problem(pl.LightningModule):
    """Mean squares of named residuals, each logged under its name, in one sum."""

    def __init__(self, inputs: int, *, taps: bool) -> None:
        super().__init__()
        self.taps, self.net = taps, network(inputs)

    def residuals(self, batch: BATCH) -> BATCH:
        """Name -> residual before it is squared."""
        raise NotImplementedError

    def training_step(self, batch: BATCH, batch_idx: int) -> Tensor:
        """Sum of the mean squares."""
        residuals = self.residuals(batch)
        if self.taps:
            residuals = {name: tap(r, name) for name, r in residuals.items()}
        losses = {name: r.square().mean() for name, r in residuals.items()}
        for name, loss in losses.items():
            self.log(name, loss)
        return sum(losses.values(), start=torch.zeros((), dtype=torch.float64))


class Poisson(Problem):
    """u'' = -9 sin(3x) on [-1, 1] and u(-1) = u(1) = 0 on fixed points, by SGD with momentum."""

    def __init__(self, *, taps: bool = False) -> None:
        super().__init__(1, taps=taps)

    def residuals(self, batch: BATCH) -> BATCH:
        """pde and bc."""
        x = batch["x"].clone().requires_grad_()
        u_xx = slope(slope(self.net(x), x), x)
        return {"pde": u_xx + 9 * torch.sin(3 * x.detach()), "bc": self.net(batch["ends"])}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=2e-4, momentum=0.5)

    @staticmethod
    def batches(number: int) -> list[BATCH]:
        """The same points again and again."""
        x = torch.linspace(-1, 1, 14, dtype=torch.float64)[:, None]
        ends = torch.tensor([-1.0, -0.95, 0.95, 1.0], dtype=torch.float64)[:, None]
        return [{"x": x, "ends": ends}] * number


class Wave(Problem):
    """u_tt = 4 u_xx on points that are new in every step, by Adam.

    Those of the initial line and of the boundary come with the batch, drawn by a generator; those
    inside are drawn where the residual is computed, from the global random state.
    """

    def __init__(self, *, taps: bool = False) -> None:
        super().__init__(2, taps=taps)

    def residuals(self, batch: BATCH) -> BATCH:
        """u on initial line and boundary, ut on the initial line, pde inside."""
        inside = torch.rand(20, 2, dtype=torch.float64).requires_grad_()
        initial = batch["initial"].clone().requires_grad_()
        u_0 = self.net(initial)
        by = slope(self.net(inside), inside)
        u_tt, u_xx = slope(by[:, 0], inside)[:, :1], slope(by[:, 1], inside)[:, 1:]
        start = torch.sin(torch.pi * initial.detach()[:, 1:])
        u = torch.cat([u_0 - start, self.net(batch["boundary"])])
        return {"u": u, "ut": slope(u_0, initial)[:, :1], "pde": u_tt - 4 * u_xx}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)

    @staticmethod
    def batches(number: int) -> list[BATCH]:
        """Points (t, x) on the initial line and on the boundary."""
        generator = torch.Generator().manual_seed(5)

        def drawn(rows: int) -> Tensor:
            return torch.rand(rows, 2, dtype=torch.float64, generator=generator)

        line, side = (torch.tensor(s, dtype=torch.float64) for s in ([0.0, 1.0], [1.0, 0.0]))
        edge = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(3)[:, None]
        right = torch.cat([torch.zeros_like(edge), edge], 1)
        return [
            {"initial": line * drawn(7), "boundary": side * drawn(6) + right} for _ in range(number)
        ]


PROBLEMS: dict[str, type[Problem]] = {"poisson": Poisson, "wave": Wave}
CASES = [(problem, route) for problem in PROBLEMS for route in ROUTES]


# --- Runs


def monitor_by(route: str, every: int, **options: Any) -> NTKMonitor:
    """The monitor with one of the routes."""
    own = {route: "residuals"} if route in {"residuals", "probe"} else {}
    return NTKMonitor(every_n_steps=every, **own, **options)


def balancer_by(route: str, every: int) -> NTKBalancer:
    """The balancer with one of the routes; it has no probe and takes the loss there."""
    own = {"residuals": "residuals"} if route == "residuals" else {}
    return NTKBalancer(every_n_steps=every, ema=0.25, **own)


def built(problem: str, route: str) -> Problem:
    """The same network whenever it is called; one thread, so that sums have one order."""
    torch.set_num_threads(1)
    torch.manual_seed(11)
    return PROBLEMS[problem](taps=route == "taps")


def trainer(
    callbacks: Iterable[pl.Callback], steps: int, logger: Logger | bool = False, **options: Any
) -> pl.Trainer:
    """A trainer on the CPU that writes nothing of its own."""
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        callbacks=list(callbacks),
        logger=logger,
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def run(problem: str, route: str, steps: int = 60, every: int = 10) -> dict[str, Any]:
    """Train with both callbacks; all that comes out of it, as plain values.

    Of a term of the wave only some of the rows are in the kernel: they are more than max_points.
    """
    module = built(problem, route)
    monitor = monitor_by(route, every, max_points=16)
    balancer = balancer_by(route, 2 * every)
    loader = DataLoader(module.batches(steps), batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
        trained = trainer([monitor, balancer], steps, logger)
        trained.fit(module, loader)
        logger.finalize("success")
        written = written_to(Path(logger.log_dir))
    return plain(
        {
            **outcome(module, monitor, balancer),
            "spectra": {
                term: [[step, s.eigenvalues, s.floor] for step, s in ends(series)]
                for term, series in monitor.spectra.items()
            },
            "metrics": without_clock(dict(sorted(trained.callback_metrics.items()))),
            **written,
        }
    )


def outcome(
    module: pl.LightningModule, monitor: NTKMonitor, balancer: NTKBalancer
) -> dict[str, Any]:
    """What a run leaves behind in module and callbacks."""
    return {
        "monitor": history_of(monitor),
        "balancer": history_of(balancer),
        "weights": dict(balancer.weights),
        "parameters": torch.cat([p.detach().flatten() for p in module.parameters()]),
    }


def history_of(callback: NTKMonitor | NTKBalancer) -> dict[str, Any]:
    """Tag -> [[step, value], ...]; no value where it depends on the clock."""
    return {
        tag: [[int(step), None if tag.endswith(CLOCK) else value] for step, value in points]
        for tag, points in callback.history.items()
    }


def without_clock(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tag -> value; no value where it depends on the clock."""
    return {tag: None if tag.endswith(CLOCK) else value for tag, value in values.items()}


def ends(series: list[Any]) -> list[Any]:
    """The first and the last."""
    return [series[0], series[-1]]


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
            tag: [[e.step, None if tag.endswith(CLOCK) else e.value] for e in events.Scalars(tag)]
            for tag in sorted(tags["scalars"])
        },
        "images": {tag: [e.step for e in events.Images(tag)] for tag in sorted(tags["images"])},
        "texts": {tag: words(tag, series) for tag, series in tensors.items() if is_text(series)},
        "tensors": {tag: ends(series) for tag, series in tensors.items() if not is_text(series)},
    }


def is_text(series: list[Any]) -> bool:
    """Whether what was read are bytes rather than numbers."""
    return bool(series[0][1].dtype == object)


def words(tag: str, series: list[Any]) -> list[Any]:
    """[[step, text], ...]; the layout of the custom scalars tab is a message, given as text."""
    read = _layout if tag == LAYOUT else bytes.decode
    return [[step, read(array.item())] for step, array in series]


def _layout(written: bytes) -> str:
    return str(Layout.FromString(written))


def plain(value: Any) -> Any:
    """Tensors and arrays as lists, and all as it comes back from a file."""
    return json.loads(json.dumps(value, default=lambda array: array.tolist()))


# --- Runs that go on from a checkpoint


TAKES_WEIGHTS_ONLY = "weights_only" in inspect.signature(pl.Trainer.fit).parameters
"""Of a Trainer older than that torch decides."""


def scaled(module: Problem, batch: BATCH, *, scale: float) -> BATCH:
    """A route that is a function of the module, with a setting of its own."""
    return {name: scale * r for name, r in module.residuals(batch).items()}


def short(route: str, steps: int, checkpoint: Path | None = None) -> tuple[Any, dict[str, Any]]:
    """Train Poisson for some steps, from a checkpoint if there is one; trainer and outcome."""
    module, callbacks = built("poisson", route), callbacks_by(route)
    return fit(module, callbacks, steps, checkpoint), plain(outcome(module, *callbacks))


def callbacks_by(route: str) -> tuple[NTKMonitor, NTKBalancer]:
    """Both callbacks every two steps; "partial" is the route of a `functools.partial`."""
    if route == "partial":
        function = functools.partial(scaled, scale=2.0)
        return (
            NTKMonitor(every_n_steps=2, residuals=function),
            NTKBalancer(every_n_steps=2, ema=0.25, residuals=function),
        )
    return monitor_by(route, 2), balancer_by(route, 2)


def fit(
    module: Problem, callbacks: Iterable[pl.Callback], steps: int, checkpoint: Path | None = None
) -> pl.Trainer:
    """Train; one batch an epoch, since Lightning warns of a restart in the middle of one."""
    trained = trainer(callbacks, steps, max_epochs=-1, limit_train_batches=1)
    options = {"weights_only": True} if checkpoint is not None and TAKES_WEIGHTS_ONLY else {}
    loader = DataLoader(module.batches(1), batch_size=None)
    trained.fit(module, loader, ckpt_path=checkpoint, **options)
    return trained


# --- The arithmetic of this machine


@functools.cache
def recorded() -> dict[str, Any]:
    """The record."""
    return json.loads((FOLDER / "before.json").read_text())


@functools.cache
def same_arithmetic() -> bool:
    """Whether this machine computes as the one of the record did."""
    return fingerprint() == recorded()["fingerprint"]


def fingerprint() -> str:
    """Digest of what this machine computes: equal where digits can be expected to be equal."""
    torch.set_num_threads(1)
    digest = hashlib.sha256(f"{torch.__version__} {np.__version__}".encode())
    for array in [*_algebra(), *_training()]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _algebra() -> Iterator[Any]:
    """Products, functions and factorisations of small and larger matrices."""
    for rows, columns in ((5, 3), (14, 97), (40, 120), (129, 65)):
        count = torch.arange(rows * columns, dtype=torch.float64)
        a = torch.sin(count * count).reshape(rows, columns)
        kernel = a @ a.T
        yield from (kernel, torch.tanh(a), torch.exp(a), a.square().sum(), a.norm())
        yield from (torch.linalg.eigvalsh(kernel), *torch.linalg.qr(a), torch.linalg.svdvals(a))
        yield from (np.linalg.eigvalsh(kernel.numpy()), np.linalg.norm(a.numpy()))
        yield torch.einsum("ni,nj->ij", a, torch.cos(a))


def _training() -> Iterator[Any]:
    """A few steps of both problems without any callback."""
    for name in PROBLEMS:
        module = built(name, "fingerprint")
        optimizer = module.configure_optimizers()
        for batch in module.batches(5):
            optimizer.zero_grad()
            losses = [r.square().mean() for r in module.residuals(batch).values()]
            torch.stack(losses).sum().backward()
            optimizer.step()
        yield from (p.detach() for p in module.parameters())


# --- The comparison

DIGITS = 1e-8
"""Relative tolerance where the arithmetic is not that of the record."""

SINGLE = 1e-6
"""The same for scalars that TensorBoard has written in float32."""

NOISE = ("certificate", "log10_condition", "predicted_decrease_ratio", "spectra", "tensors")
"""What is made of rounding errors or of small differences: not compared on another machine."""


def differences(got: Any, expected: Any, *, exact: bool) -> list[str]:
    """Where two records differ: to the last digit, or to `DIGITS` and without texts."""
    agree = _equal if exact else _near
    return [
        f"{path}: {a!r}, expected {b!r}"
        for path, a, b in _pairs(got, expected)
        if not agree(a, b, path)
    ]


def _pairs(got: Any, expected: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, got, expected) of all leaves, and of the tags and lengths above them."""
    if isinstance(expected, dict) and isinstance(got, dict):
        yield f"{path} keys", " ".join(sorted(got)), " ".join(sorted(expected))
        for key in [key for key in expected if key in got]:
            yield from _pairs(got[key], expected[key], f"{path} {key}")
    elif isinstance(expected, list) and isinstance(got, list):
        yield f"{path} length", len(got), len(expected)
        for number, (a, b) in enumerate(zip(got, expected, strict=False)):
            yield from _pairs(a, b, f"{path}[{number}]")
    else:
        yield path, got, expected


def _equal(got: Any, expected: Any, path: str) -> bool:
    if LAYOUT.split("/", maxsplit=1)[0] in path and isinstance(got, str):
        return _charts(got) == _charts(expected)
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


# --- Making the record


def record(folder: Path, commit: str) -> None:
    """Write the record and the checkpoints of the code that is imported.

    Raises:
        FileExistsError: There is one; it is never made anew.
    """
    if any(folder.glob("*.json")):
        raise FileExistsError(f"{folder} holds a record.")
    folder.mkdir(parents=True, exist_ok=True)
    going_on = {}
    for route in (*ROUTES, "partial"):
        saved, _ = short(route, SAVED_AT)
        saved.save_checkpoint(folder / f"checkpoint_{route}.pt")
        _, going_on[route] = short(route, END)
    written = {
        "commit": commit,
        "fingerprint": fingerprint(),
        "runs": {f"{problem} {route}": run(problem, route) for problem, route in CASES},
        "uninterrupted": going_on,
    }
    (folder / "before.json").write_text(json.dumps(written, separators=(",", ":")) + "\n")


def main(arguments: list[str]) -> None:
    """Make the record, without any warning that the tests would not bear."""
    import pinn_ntk

    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", ".*does not have many workers")
    warnings.filterwarnings("ignore", "The number of training batches")
    print(pinn_ntk.__file__)
    record(Path(arguments[0]), arguments[1])


if __name__ == "__main__":
    main(sys.argv[1:])
