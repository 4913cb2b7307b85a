"""Linearised training against actual training, by width: residuals of a PINN over 500 steps.

    u_xx = f on [0, 1],    u(0) = u(1) = 0,    u = sin(pi x),    f = -pi^2 sin(pi x)

A network with one tanh layer is trained by gradient descent on the mean squares of the residual
u_xx - f and of the boundary values, without 1/2. The kernel of the first step alone foretells both
residuals after n steps, r(n) = (1 - lr K D)^n r(0) with D = 2/N (Jacot, Gabriel, Hongler 2018,
section 5; Lee et al. 2019; Wang, Yu, Perdikaris 2022 for PINNs). The wider the
network, the less its kernel moves, and the better that holds.

    python studies/wide_networks.py                                  # a minute on one core
    python studies/wide_networks.py --starts [plain] --share 0.002    # steps ten times smaller

NTK parametrisation, W / sqrt(n_in), all entries N(0, 1), on (x - mean) / std; kernels of all rows,
not divided by their number. Two initialisations:

- "plain": as drawn. The network starts as a random function, whose u_xx is larger than f.
- "mirrored": the second half of the neurons repeats the first with outputs of the opposite sign,
  so that u = 0 at the start and the residual is f alone; and outputs times ``output_std``. Both
  are the ways into the lazy regime of Chizat, Oyallon, Bach 2019.

The learning rate is a fraction of the largest stable one, 2 / lambda_max(D^(1/2) K D^(1/2)). The
error is that of both residuals together, weighted as the loss weighs them: |D^(1/2) (r - r_lin)|,
relative to |D^(1/2) r(n)| at the same step and, less strictly, to |D^(1/2) r(0)|. Laziness is
|r - r_J| / |r - r(0)| with r_J = r(0) + J (theta - theta(0)) from the parameters as they are: the
distance of the network from its linearisation.

Written: ``logs/wide_networks/wide_networks.png`` and ``.json``. The table and the figure are those
of "Linearised against actual training" in docs/results.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from problems import poisson
from results import COLOURS, STYLES, Record, labelled, markdown, of, save
from torch import Tensor, nn

from pinn_ntk import NTK, empirical_ntk
from pinn_ntk.analysis.dynamics import LinearizedTraining
from pinn_ntk.analysis.linearized import LinearizedModel, laziness, linearized_residuals
from pinn_ntk.limit.parametrization import ntk_mlp

Residuals = dict[str, Tensor]
Start = Literal["mirrored", "plain"]


@dataclass(frozen=True)
class Setting:
    """What the runs have in common.

    Args:
        points: Points of the residual, evenly spaced.
        share: Learning rate over the largest stable one.
        steps: Steps of gradient descent.
        every: Steps between two comparisons.
        output_std: Factor of the outputs, of the mirrored initialisation.
    """

    points: int = 30
    share: float = 0.02
    steps: int = 500
    every: int = 10
    output_std: float = 4.0


class Network(nn.Module):
    """One tanh layer in the NTK parametrisation on (x - 1/2) sqrt(12), its width an even number."""

    def __init__(self, width: int, output_std: float, mirrored: bool) -> None:
        super().__init__()
        self.layers = ntk_mlp([1, width, 1], weight_std=[1.0, output_std])
        if mirrored:
            hidden, output = self.layers[0], self.layers[2]
            with torch.no_grad():
                for part in (hidden.weight, hidden.bias):
                    part[width // 2 :] = part[: width // 2]
                output.weight[:, width // 2 :] = -output.weight[:, : width // 2]
                output.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """u(x) for x of shape (N, 1)."""
        return self.layers((x - 0.5) * math.sqrt(12))


class Poisson(poisson.Poisson):
    """The PINN of `poisson` in float64, with the network of a setting."""

    def __init__(self, width: int, start: Start, seed: int, setting: Setting) -> None:
        torch.set_default_dtype(torch.float64)
        super().__init__(a=1.0, width=1)
        self.points = poisson.Points(n_boundary=2, n_residual=setting.points).train
        torch.manual_seed(seed)
        std = setting.output_std if start == "mirrored" else 1.0
        self.net = Network(width, std, start == "mirrored")

    def terms(self) -> Residuals:
        """u_xx - f inside, and u on the boundary."""
        return {"pde": self.residual(self.points["x_r"]), "bc": self.net(self.points["x_b"])}


def flat(residuals: Mapping[str, Tensor], curvature: Mapping[str, float] | None = None) -> Tensor:
    """All residuals in one vector; with D, weighted as the loss weighs them: D^(1/2) r."""
    d = curvature or dict.fromkeys(residuals, 1.0)
    return torch.cat([math.sqrt(d[t]) * r.detach().flatten() for t, r in residuals.items()])


def study(width: int, initialisation: Start, seed: int, setting: Setting) -> Record:
    """Foretell the residuals of one network, then train it, and compare."""
    started = time.perf_counter()
    problem = Poisson(width, initialisation, seed, setting)
    start = problem.terms()
    curvature = {term: 2 / r.numel() for term, r in start.items()}
    kernel = empirical_ntk(start, problem.net)
    training = LinearizedTraining(kernel, start, curvature)
    lr = setting.share * training.max_stable_lr()
    steps = list(range(0, setting.steps + 1, setting.every))
    foretold = training.descent(torch.tensor(steps), lr)
    actual, lazy = train(problem, kernel, start, lr, steps)
    now = [flat(residuals, curvature) for residuals in actual]
    then = [flat({t: r[i] for t, r in foretold.items()}, curvature) for i in range(len(steps))]
    errors = [float((a - b).norm()) for a, b in zip(now, then, strict=True)]
    sizes = [float(vector.norm()) for vector in now]
    before, after = kernel.matrix(), empirical_ntk(problem.terms(), problem.net).matrix()
    return {
        "width": width,
        "start": initialisation,
        "seed": seed,
        "lr": lr,
        "steps": steps,
        "error_of_start": [error / sizes[0] for error in errors],
        "error_of_now": [error / size for error, size in zip(errors, sizes, strict=True)],
        "laziness": lazy,
        "loss": [size**2 / 2 for size in sizes],
        "loss_foretold": [float(vector.square().sum()) / 2 for vector in then],
        "kernel_drift": float((after - before).norm() / before.norm()),
        "seconds": time.perf_counter() - started,
    }


def train(
    problem: Poisson, kernel: NTK, start: Residuals, lr: float, steps: Sequence[int]
) -> tuple[list[Residuals], list[float]]:
    """Gradient descent; the residuals after these steps, and their laziness."""
    linearized = LinearizedModel(problem.net)
    optimizer = torch.optim.SGD(problem.net.parameters(), lr=lr)
    seen, lazy = [], []
    for step in range(steps[-1] + 1):
        residuals = problem.terms()
        if step in steps:
            now = {term: r.detach() for term, r in residuals.items()}
            tangent = linearized_residuals(kernel, start, linearized.displacement())
            seen.append(now)
            lazy.append(laziness(*(flat(r) for r in (now, tangent, start))))
        optimizer.zero_grad()
        sum(r.square().mean() for r in residuals.values()).backward()
        optimizer.step()
    return seen, lazy


def table(records: Sequence[Record], widths: Sequence[int], starts: Sequence[Start]) -> str:
    """A row a width and initialisation, the largest value over seeds, in Markdown."""
    head = ["initialisation", "width", "largest error", "of the start", "laziness at the end"]
    head += ["drift of K", "loss, last over first", "the same, foretold"]
    rows = []
    for start, width in product(starts, widths):
        runs = of(records, width=width, start=start)
        errors = [max(max(r[f"error_of_{what}"]) for r in runs) for what in ("now", "start")]
        lazy, drift = (max(r["laziness"][-1] for r in runs), max(r["kernel_drift"] for r in runs))
        falls = [max(r[name][-1] / r[name][0] for r in runs) for name in ("loss", "loss_foretold")]
        rows.append([start, width, *errors, lazy, drift, *falls])
    return markdown(head, rows)


def draw(
    records: Sequence[Record], widths: Sequence[int], starts: Sequence[Start], setting: Setting
) -> Figure:
    """Loss, error and laziness against the step: a row an initialisation, a line a seed."""
    figure = Figure(figsize=(12.0, 0.8 + 3.2 * len(starts)), layout="constrained")
    panels = figure.subplots(len(starts), 3, squeeze=False, sharex=True, sharey="col")
    for row, start in zip(panels, starts, strict=True):
        for width, colour, style in zip(widths, COLOURS, STYLES, strict=False):
            runs = of(records, width=width, start=start)
            for label, record in labelled(f"width {width}", runs):
                lines(row, record, label, colour, style)
        row[0].set_ylabel(f"{start} initialisation\nloss")
        row[1].set_ylabel("|r - foretold| / |r|")
        row[1].axhline(0.01, color="0.6", linewidth=0.8)
        row[2].set_ylabel("|r - linearised| / |r - r(0)|")
    for axes, title in zip(panels[0], ("loss; grey: foretold", "error", "laziness"), strict=True):
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xlabel("step of gradient descent")
    panels[0, 1].legend()
    figure.suptitle(
        f"Poisson 1D, {setting.points} points, one tanh layer, NTK parametrisation, lr = "
        f"{setting.share:g} of the largest stable one; a line a seed",
        fontsize="medium",
    )
    return figure


def lines(row: Sequence[Axes], record: Record, label: str | None, colour: str, style: str) -> None:
    """One run in the panels of its initialisation."""
    steps = record["steps"]
    row[0].semilogy(steps, record["loss"], style, color=colour, linewidth=1.2)
    row[0].semilogy(steps, record["loss_foretold"], ":", color="0.4", linewidth=1.2)
    for axes, name in ((row[1], "error_of_now"), (row[2], "laziness")):
        axes.semilogy(steps[1:], record[name][1:], style, color=colour, label=label, linewidth=1.2)


def main(
    widths: Sequence[int] = (64, 256, 2048),
    starts: Sequence[Start] = ("mirrored", "plain"),
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path = Path("logs/wide_networks"),
    **options: Any,
) -> None:
    """Compare for each width and seed, print the table, draw the figure.

    Args:
        widths: Neurons of the hidden layer, even numbers.
        starts: Initialisations, "mirrored" or "plain".
        seeds: Seeds of the initialisation.
        folder: Where everything is written.
        options: Those of `Setting`.
    """
    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it does
    setting = Setting(**options)
    runs = product(starts, widths, seeds)
    records = [study(width, start, seed, setting) for start, width, seed in runs]
    print(table(records, widths, starts))
    numbers = {"options": vars(setting), "runs": records}
    save(folder, draw(records, widths, starts, setting), numbers)


if __name__ == "__main__":
    jsonargparse.CLI(main, as_positional=False)
