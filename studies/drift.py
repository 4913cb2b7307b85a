"""Drift of parameters and kernel against width: Wang, Yu, Perdikaris 2022, Figs 2 and 3.

    ||theta(n) - theta(0)|| / ||theta(0)||,    ||K(n) - K(0)||_F / ||K(0)||_F

while a PINN is trained on u_xx = f on [0, 1], u = sin(a pi x), a = 1. The wider the network, the
less of both: the linear theory of a constant kernel is about wide networks.

    python studies/drift.py                                        # half an hour on one core
    python studies/drift.py --widths [10,100] --hidden_layers [1]  # minutes

Setting: 100 boundary rows (50 at each end), 100 residual points, gradient descent with lr 1e-5,
10,000 steps, tanh; NTK parametrisation (W / sqrt(n_in), all entries N(0, 1)). Loss: one half of the
sum of squares of both terms (eq 7.2); ``--loss mean`` is the mean of squares of each. Inputs as
they are; ``--standardised true`` gives the network (x - mean) / std, which makes K_rr 144 times as
large: the sums then ask for a smaller ``--lr``. Kernels: of all rows (not divided by their number),
factors in float32, products in float64; K_uu of the boundary rows, K_rr of the residual.

A run that is finished is not run again, its numbers lie in ``logs/drift/``. One that diverges ends
and says so. Written: ``logs/drift/drift.png`` and ``.json``. The table and the figure are those of
"Drift against width" in docs/results.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from problems import fit_quietly, poisson
from pytorch_lightning import Callback, Trainer, seed_everything
from results import COLOURS, STYLES, Record, labelled, markdown, of, remembered, save
from torch import Tensor, nn

from pinn_ntk.callbacks import NTKMonitor
from pinn_ntk.limit.parametrization import ntk_mlp

Loss = Literal["sum", "mean"]
DRIFTS = {"parameters": "parameters", "kernel": "$K$", "loss_b": "$K_{uu}$", "loss_r": "$K_{rr}$"}
"""What drifts -> how it is called in the figure."""


@dataclass(frozen=True)
class Setting:
    """One run.

    Args:
        width: Neurons a hidden layer.
        hidden_layers: Their number.
        seed: Seed of the initialisation.
        a: Frequency of the solution.
        steps: Steps of gradient descent.
        lr: Step size.
        loss: "sum" for one half of the sums of squares (eq 7.2), "mean" for means of squares.
        standardised: Whether the network gets (x - mean) / std.
    """

    width: int
    hidden_layers: int
    seed: int
    a: float = 1.0
    steps: int = 10_000
    lr: float = 1e-5
    loss: Loss = "sum"
    standardised: bool = False

    @property
    def name(self) -> str:
        """File name of its numbers."""
        return f"width{self.width}_layers{self.hidden_layers}_seed{self.seed}.json"


class Network(nn.Module):
    """Tanh layers in the NTK parametrisation on (x - mean) / std."""

    def __init__(self, width: int, hidden_layers: int, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.layers = ntk_mlp([1, *[width] * hidden_layers, 1])

    def forward(self, x: Tensor) -> Tensor:
        """u(x) for x of shape (N, 1)."""
        return self.layers((x - self.mean) / self.std)


class Descent(poisson.Poisson):
    """The PINN of `poisson` with the network and the loss of a setting."""

    def __init__(self, setting: Setting, points: poisson.Points) -> None:
        super().__init__(a=setting.a, width=1, lr=setting.lr)
        mean, std = (points.mean, points.std) if setting.standardised else (0.0, 1.0)
        self.net = Network(setting.width, setting.hidden_layers, mean, std)
        self.loss = setting.loss

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """loss_b + loss_r."""
        losses = {name: self.size(residual) for name, residual in self.residuals(batch).items()}
        self.log_dict(losses)
        return losses["loss_b"] + losses["loss_r"]

    def size(self, residual: Tensor) -> Tensor:
        """One half of the sum of squares, or their mean."""
        squares = residual.square()
        return squares.sum() / 2 if self.loss == "sum" else squares.mean()


class Divergence(Callback):
    """Ends a fit whose loss is not finite, or has grown a thousandfold."""

    def __init__(self) -> None:
        self.first = math.nan

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        """Compare the loss of this step with the first."""
        loss = float(arguments[1]["loss"])
        self.first = loss if math.isnan(self.first) else self.first
        trainer.should_stop = not loss <= 1e3 * self.first


def run(setting: Setting) -> Record:
    """Train once; what the monitor measured, and what came out."""
    seed_everything(setting.seed, verbose=False)
    points = poisson.Points(steps=setting.steps)
    model = Descent(setting, points)
    monitor, watch = NTKMonitor(per_decade=8), Divergence()
    start, tags = time.perf_counter(), ("loss_b", "loss_r")
    trainer = fit_quietly(model, points, monitor, watch)
    end = sum(float(trainer.callback_metrics[tag]) for tag in tags)
    history = {tag: values.tolist() for tag, values in monitor.history.items()}
    found = {
        "diverged": trainer.global_step < setting.steps or not math.isfinite(end),
        "steps": trainer.global_step,
        "rel_l2": float(model.error(points.test)),
        "loss_start": watch.first,
        "loss_end": end,
        "seconds": time.perf_counter() - start,
        "drift": {name: history.get(f"ntk/drift/{name}", []) for name in DRIFTS},
        "max_stable_lr": history.get("ntk/max_stable_lr", []),
        "overhead": history["ntk/overhead_fraction"][-1][1],
    }
    print(
        f"width {setting.width}, {setting.hidden_layers} hidden, seed {setting.seed}: "
        f"{found['seconds']:.0f} s, {found['overhead']:.1%} of it for the kernel"
        + (", diverged" if found["diverged"] else ""),
        flush=True,
    )
    return found


def runs(settings: Sequence[Setting], folder: Path) -> Iterator[Record]:
    """The numbers of each setting."""
    for setting in settings:
        known = {"setting": asdict(setting)}
        yield remembered(folder / setting.name, known, partial(run, setting))


def final(records: Sequence[Record], name: str) -> np.ndarray:
    """Last drift of each run; NaN for those that diverged."""
    return np.array([math.nan if r["diverged"] else r["drift"][name][-1][1] for r in records])


def slope(widths: Sequence[int], drifts: Sequence[float]) -> float:
    """d log drift / d log width by least squares; NaN for a single width.

    Example:
        >>> round(slope([10, 100, 1000], [1.0, 0.1, 0.01]), 6)
        -1.0
    """
    if len(widths) < 2:
        return math.nan
    return float(np.polyfit(np.log(widths), np.log(drifts), 1)[0])


def summary(
    records: Sequence[Record], widths: Sequence[int], hidden_layers: Sequence[int]
) -> list[Record]:
    """Final drifts, a row of seeds a width, and the slope of their mean in the width."""
    rows = []
    for layers, name in product(hidden_layers, DRIFTS):
        ends = {str(w): final(of(records, width=w, hidden_layers=layers), name) for w in widths}
        found = {width: end.tolist() for width, end in ends.items()}
        steepness = slope(widths, [float(end.mean()) for end in ends.values()])
        rows.append({"hidden_layers": layers, "drift": name, "final": found, "slope": steepness})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary in Markdown: mean over seeds, smallest to largest."""
    widths = [f"width {width}" for width in rows[0]["final"]]
    lines = []
    for row in rows:
        ends = map(np.array, row["final"].values())
        cells = [f"{end.mean():.3g} ({end.min():.2g} to {end.max():.2g})" for end in ends]
        lines.append([row["hidden_layers"], row["drift"], *cells, row["slope"]])
    return markdown(["hidden layers", "drift of", *widths, "slope in width"], lines)


def draw(records: Sequence[Record], widths: Sequence[int], hidden_layers: Sequence[int]) -> Figure:
    """Drift against the step: a row a quantity, a column a depth, a colour a width."""
    shape = len(DRIFTS), len(hidden_layers)
    figure = Figure(figsize=(1.0 + 4.0 * shape[1], 2.3 * shape[0]), layout="constrained")
    panels = figure.subplots(*shape, squeeze=False, sharex=True, sharey="row")
    for axes, name in zip(panels[:, 0], DRIFTS.values(), strict=True):
        axes.set_ylabel(f"relative drift of {name}")
    for column, layers in zip(panels.T, hidden_layers, strict=True):
        for axes, name in zip(column, DRIFTS, strict=True):
            draw_widths(axes, of(records, hidden_layers=layers), name, widths)
        column[0].set_title(f"{layers} hidden layer{'s' if layers > 1 else ''}")
        column[-1].set_xlabel("step of gradient descent")
    panels[0, 0].legend()
    setting = records[0]["setting"]
    loss = "half sums of squares" if setting["loss"] == "sum" else "means of squares"
    inputs = "standardised inputs" if setting["standardised"] else "inputs as they are"
    figure.suptitle(
        f"Poisson 1D, a = {setting['a']:g}, lr {setting['lr']:g}, {loss}, {inputs},\n"
        "NTK parametrisation; a line a seed",
        fontsize="medium",
    )
    return figure


def draw_widths(axes: Axes, records: Sequence[Record], name: str, widths: Sequence[int]) -> None:
    """One panel, a line a seed."""
    for width, colour, style in zip(widths, COLOURS, STYLES, strict=False):
        curves = [record["drift"][name] for record in of(records, width=width)]
        for label, curve in labelled(f"width {width}", curves):
            steps, drifts = np.array([p for p in curve if p[0] > 0 < p[1]] or [[1, np.nan]]).T
            axes.loglog(steps, drifts, style, color=colour, linewidth=1.0, label=label)


def main(
    widths: Sequence[int] = (10, 100, 500),
    hidden_layers: Sequence[int] = (1, 3),
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path = Path("logs/drift"),
    **options: Any,
) -> None:
    """Train all settings, print the table, draw the figure.

    Args:
        widths: Neurons a hidden layer.
        hidden_layers: Numbers of hidden layers.
        seeds: Seeds of the initialisation.
        folder: Where everything is written.
        options: The rest of `Setting`.
    """
    places = product(hidden_layers, widths, seeds)
    settings = [Setting(width, layers, seed, **options) for layers, width, seed in places]
    records = list(runs(settings, folder))
    print("\nfinal relative drift, mean over seeds (smallest to largest)\n")
    rows = summary(records, widths, hidden_layers)
    print(table(rows))
    numbers = {"options": options, "summary": rows, "runs": records}
    save(folder, draw(records, widths, hidden_layers), numbers)


if __name__ == "__main__":
    jsonargparse.CLI(main, as_positional=False)
