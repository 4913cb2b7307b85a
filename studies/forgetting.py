"""What a network forgets of old time windows, as the kernel foretells it and as it is measured.

Windows are numbered from 0, and their terms called "0 pde", "0 initial", "1 pde" and so on. Used by
``time_windows.py``, which says what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from problems import command_line
from pytorch_lightning import LightningModule, Trainer
from results import COLOURS, markdown, write_json
from torch import Tensor
from windows import Advection, Batch, Windows

from pinn_ntk import NTK, empirical_ntk
from pinn_ntk.analysis.dynamics import LinearizedTraining
from pinn_ntk.analysis.interference import interference

PUBLISHED = "none: a study of forgetting, no reproduction"
MOMENTS = (1, 10, 100)
"""Steps into a new window after which forecast and measurement are compared."""


@dataclass
class Switch:
    """The start of a window: what the kernel foretells of the windows before it, and what comes.

    What depends on the steps into the window lies under their number; both losses are of all
    old windows, the cosine is that of the gradients of the old and of the new loss.
    """

    window: int  # from 0
    lr: float  # of the steps of gradient descent
    points: Tensor  # old points, (N, 2)
    values: Tensor  # network on them before the first step, (N,)
    loss: float  # on the old windows before the first step
    foretold: dict[int, Tensor]  # change of the values, (N,)
    foretold_loss: dict[int, float]
    cosine: dict[int, float]
    measured: dict[int, Tensor] = field(default_factory=dict)
    measured_loss: dict[int, float] = field(default_factory=dict)

    def distance(self, steps: int) -> float:
        """Distance of the change foretold from the measured one, relative to that."""
        measured = self.measured[steps]
        return float((self.foretold[steps] - measured).norm() / measured.norm())

    def rows(self) -> list[list[object]]:
        """Lines of the table."""
        lines = [[self.window + 1, 0, 0.0, 0.0, "-", self.loss, self.loss, self.cosine[0]]]
        for steps, change in self.measured.items():
            changes = [float(c.square().mean().sqrt()) for c in (self.foretold[steps], change)]
            losses = [self.foretold_loss[steps], self.measured_loss[steps]]
            relative = self.distance(steps)
            lines.append([self.window + 1, steps, *changes, relative, *losses, self.cosine[steps]])
        return lines


HEAD = ["window", "steps", "change foretold (rms)", "measured (rms)", "relative distance"]
HEAD += ["old loss foretold", "old loss measured", "cosine old, new"]


def terms_of(model: Advection, data: Windows, windows: int) -> dict[str, Tensor]:
    """Residuals of the first windows, called "0 pde", "0 initial", "1 pde" and so on."""
    batches = [data.batch(window) for window in range(windows)]
    found = [(b["window"], model.residuals(b)) for b in batches]
    return {f"{window} {name}": r for window, terms in found for name, r in terms.items()}


def curvature(model: Advection, residuals: Mapping[str, Tensor]) -> dict[str, float]:
    """D of each term: twice its weight over its rows."""
    return {n: 2 * model.weights[n.split()[1]] / r.numel() for n, r in residuals.items()}


def of(window: int, weights: Mapping[str, float]) -> dict[str, float]:
    """Those of the terms of one window."""
    return {name: d for name, d in weights.items() if name.startswith(f"{window} ")}


def quadratic(residuals: Mapping[str, Tensor], weights: Mapping[str, float]) -> float:
    """Loss of the terms that have a weight, D r^2 / 2 in sum."""
    return sum(d / 2 * float(residuals[n].detach().square().sum()) for n, d in weights.items())


def cosine(kernel: NTK, residuals: Mapping[str, Tensor], weights: Mapping[str, float]) -> float:
    """Of the gradients of the loss on the last window and on all before it."""
    slopes = {name: weights[name] * r.detach() for name, r in residuals.items()}
    unseen = {t: torch.zeros(kernel.rows(t)) for t in kernel.terms if t not in slopes}
    measured = interference(kernel, slopes | unseen)
    last = f"{max(int(name.split()[0]) for name in residuals)} "
    new = torch.tensor([term.startswith(last) for term in measured.terms])
    lengths = (float(measured.matrix[part][:, part].sum()) for part in (new, ~new))
    return float(measured.matrix[new][:, ~new].sum()) / math.sqrt(math.prod(lengths))


def foresee(model: Advection, data: Windows, window: int) -> Switch:
    """The forecast at the start of a window, from one kernel of all residuals and old values."""
    points = torch.cat([data.batch(earlier)["pde"] for earlier in range(window)])
    values = model.net(points)
    residuals = terms_of(model, data, window + 1)
    weights = curvature(model, residuals)
    new = of(window, weights)
    old = {name: d for name, d in weights.items() if name not in new}
    kernel = empirical_ntk(residuals | {"values": values}, model.net)
    training = LinearizedTraining(kernel, residuals, new)
    lr = model.fraction * training.max_stable_lr()
    after = {steps: training.descent(steps, lr) for steps in MOMENTS if steps <= model.descent}
    return Switch(
        window=window,
        lr=lr,
        points=points,
        values=values.detach().flatten(),
        loss=quadratic(residuals, old),
        foretold={steps: terms["values"] for steps, terms in after.items()},
        foretold_loss={steps: quadratic(terms, old) for steps, terms in after.items()},
        cosine={0: cosine(kernel, residuals, weights)},
    )


def measure(model: Advection, data: Windows, switch: Switch, steps: int) -> None:
    """Note what became of the old windows."""
    residuals = terms_of(model, data, switch.window + 1)
    weights = curvature(model, residuals)
    old = {n: d for n, d in weights.items() if n not in of(switch.window, weights)}
    values = model.net(switch.points).detach().flatten()
    switch.measured[steps] = values - switch.values
    switch.measured_loss[steps] = quadratic(residuals, old)
    switch.cosine[steps] = cosine(empirical_ntk(residuals, model.net), residuals, weights)


class Forgetting(command_line.Report):
    """Compares forecast and measurement at each new window; at the end figure, table, numbers."""

    def __init__(self, title: str) -> None:
        super().__init__(title, PUBLISHED, lambda model, _: draw(model, self))
        self.switches: list[Switch] = []
        self.course: list[tuple[int, list[float]]] = []  # (step, loss on each window)

    def on_train_batch_start(
        self, trainer: Trainer, model: Advection, batch: Batch, *_: object
    ) -> None:
        """Forecast where a window begins, and set the learning rate of gradient descent."""
        if model.enter(batch) and batch["window"]:
            switch = foresee(model, trainer.datamodule, batch["window"])
            self.switches.append(switch)
            trainer.optimizers[1].param_groups[0]["lr"] = switch.lr

    def on_train_batch_end(self, trainer: Trainer, model: Advection, *_: object) -> None:
        """Measure at the same steps; note the losses now and then."""
        data, begun = trainer.datamodule, len(model.targets)
        if begun > 1 and model.taken in self.switches[-1].foretold:
            measure(model, data, self.switches[-1], model.taken)
        if model.taken in MOMENTS or trainer.global_step % trainer.log_every_n_steps == 0:
            residuals = terms_of(model, data, begun)
            weights = curvature(model, residuals)
            losses = [quadratic(residuals, of(window, weights)) for window in range(begun)]
            self.course.append((trainer.global_step, losses))
            for logger in trainer.loggers:
                named = {f"loss_of_window/{w + 1}": loss for w, loss in enumerate(losses)}
                logger.log_metrics(named, step=trainer.global_step - 1)

    def on_train_end(self, trainer: Trainer, model: LightningModule) -> None:
        """Write numbers and figure, print report and table."""
        super().on_train_end(trainer, model)
        rows = [row for switch in self.switches for row in switch.rows()]
        print(f"\n{markdown(HEAD, rows)}")
        numbers = {
            "settings": {k: v for k, v in model.hparams.items() if isinstance(v, int | float)},
            "learning rates": [switch.lr for switch in self.switches],
            "rows": [dict(zip(HEAD, row, strict=True)) for row in rows],
            "losses": self.course,
        }
        write_json(Path(trainer.log_dir or ".") / "forgetting.json", numbers)


def draw(model: Advection, found: Forgetting) -> Figure:
    """Losses of all windows over the steps, and the last forecast beside what came."""
    figure = Figure(figsize=(10.0, 6.4), layout="constrained")
    (losses, distances), maps = figure.subplots(2, 2)
    draw_losses(losses, found.course)
    for switch, colour in zip(found.switches, COLOURS[1:], strict=False):
        steps = list(switch.measured)
        curve = [switch.distance(k) for k in steps]
        distances.loglog(steps, curve, "o-", color=colour, label=f"window {switch.window + 1}")
    distances.set(xlabel="steps into the window", ylabel="distance from the measured / size")
    distances.set(title="change of u foretold on old windows")
    distances.legend(loc="upper left", fontsize="small")
    switch = found.switches[-1]
    last = max(switch.measured)
    size = float(switch.measured[last].abs().max())
    scale = {"cmap": "RdBu", "vmin": -size, "vmax": size, "shading": "gouraud"}
    both = {"foretold": switch.foretold[last], "measured": switch.measured[last]}
    for axes, (what, change) in zip(maps, both.items(), strict=True):
        image = axes.tripcolor(*switch.points.T, change, **scale)
        axes.set(xlabel="t", ylabel="x", title=f"change of u after {last} steps, {what}")
    figure.colorbar(image, ax=list(maps), label=f"by training window {switch.window + 1}")
    figure.suptitle(f"{found.title}: width {model.hparams['width']}, gradient descent, then Adam")
    return figure


def draw_losses(axes: Axes, course: Sequence[tuple[int, list[float]]]) -> None:
    """Loss on each window since its beginning."""
    for window, colour in zip(range(len(course[-1][1])), COLOURS, strict=False):
        line = [(step, losses[window]) for step, losses in course if window < len(losses)]
        axes.semilogy(*zip(*line, strict=True), color=colour, label=f"window {window + 1}")
    axes.set(xlabel="training step", ylabel="loss on the window", title="loss on all windows begun")
    axes.set_ylim(bottom=min(min(losses) for _, losses in course) / 10)
    axes.legend(loc="lower left", ncols=3, fontsize="small")
