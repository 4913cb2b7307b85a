"""When to stop training on noisy data, foretold by the kernel of the first step.

    y_i = f*(x_i) + e_i on [-1, 1],    f*(x) = sum_k sin(pi k x + phi_k) / sqrt(K / 2),  k = 1..K

A network with one tanh layer on the features sin(pi k x) and cos(pi k x) is trained on noisy
targets by gradient descent on their mean square. It learns what it can resolve first, signal and
noise alike, and then the noise of ever finer modes: the error against the truth falls, then rises.
The step of the turn is foretold before training from the kernel, the targets and the noise, which
is estimated (Mallows's C_p in the modes of the kernel, `pinn_ntk.early_stopping`), and then
measured in training: the best validation step is the one of least mean square against f* at points
that were not trained on, which is the validation loss less the variance of the noise.

    python studies/noisy_regression.py                       # a minute on one core
    python studies/noisy_regression.py --seeds [7] --noise 1

NTK parametrisation, W / sqrt(n_in), all entries N(0, 1), biases times 0.1. Kernels are those of all
rows, not divided by their number; the learning rate is a fraction of 2 / lambda_max(2 K / N). A
seed draws the points, phases, noise and initialisation. The signal fills its band evenly, so that
the turn is sharp: where few modes hold it, a factor of ten in the steps can change the error by
less than the draw of the noise does, and no prediction of the best step would mean anything.

Written: ``logs/noisy_regression/noisy_regression.png`` and ``.json``. The table and the figure are
those of "When to stop on noisy data" in docs/results.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import COLOURS, Record, markdown, save
from torch import Tensor, nn

from pinn_ntk import empirical_ntk
from pinn_ntk.analysis.dynamics import LinearizedTraining
from pinn_ntk.analysis.early_stopping import EarlyStopping, early_stopping
from pinn_ntk.limit.parametrization import ntk_mlp

RATIO = 1.04
"""Ratio of neighbouring steps at which the error is measured."""


@dataclass(frozen=True)
class Setting:
    """One problem.

    Args:
        points: Noisy points that are trained on, N.
        frequencies: Frequencies of the truth and of the features, K.
        noise: Standard deviation of the noise; the truth has mean square 1.
        width: Neurons of the hidden layer.
        share: Learning rate over the largest stable one.
        steps: Steps of gradient descent.
    """

    points: int = 600
    frequencies: int = 40
    noise: float = 1.5
    width: int = 512
    share: float = 0.02
    steps: int = 1000


class Network(nn.Module):
    """One tanh layer on sines and cosines."""

    def __init__(self, frequencies: int, width: int) -> None:
        super().__init__()
        self.register_buffer("waves", math.pi * torch.arange(1, frequencies + 1))
        self.layers = ntk_mlp([2 * frequencies, width, 1], bias_std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """f(x) for x of shape (N, 1)."""
        angle = x * self.waves
        return self.layers(math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], 1))


def draw_truth(frequencies: int) -> Callable[[Tensor], Tensor]:
    """f*: sines of equal size and random phases, of mean square 1 on the average."""
    waves = math.pi * torch.arange(1, frequencies + 1)
    phases = 2 * math.pi * torch.rand(frequencies)
    return lambda x: torch.sin(x * waves + phases).sum(1, keepdim=True) / math.sqrt(frequencies / 2)


class Problem:
    """Data, network and validation points of one seed, in float64."""

    def __init__(self, setting: Setting, seed: int) -> None:
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(seed)
        self.setting = setting
        truth = draw_truth(setting.frequencies)
        self.x = 2 * torch.rand(setting.points, 1) - 1
        self.y = truth(self.x) + setting.noise * torch.randn(setting.points, 1)
        self.x_val = torch.linspace(-1, 1, 2000)[:, None]
        self.truth = truth(self.x_val)
        self.net = Network(setting.frequencies, setting.width)

    def linearized(self) -> LinearizedTraining:
        """Training with the kernel as it is now, seen at the noisy points and in validation."""
        data, validation = self.net(self.x) - self.y, self.net(self.x_val) - self.truth
        residuals = {"data": data, "validation": validation}
        kernel = empirical_ntk(residuals, self.net)
        return LinearizedTraining(kernel, residuals, {"data": 2 / self.setting.points})

    def errors(self, steps: Sequence[int], lr: float) -> list[float]:
        """Train, and take the mean square of f - f* after these steps."""
        optimizer, errors = torch.optim.SGD(self.net.parameters(), lr=lr), []
        for step in range(steps[-1] + 1):
            if step in steps:
                with torch.no_grad():
                    errors.append(float((self.net(self.x_val) - self.truth).square().mean()))
            optimizer.zero_grad()
            (self.net(self.x) - self.y).square().mean().backward()
            optimizer.step()
        return errors


def grid(steps: int) -> list[int]:
    """0, 1, 2, ... and then numbers that grow by `RATIO`, up to ``steps``."""
    powers = RATIO ** np.arange(math.ceil(math.log(steps) / math.log(RATIO)) + 1)
    return sorted({0, *(min(steps, round(power)) for power in powers)})


def study(setting: Setting, seed: int) -> Record:
    """Foretell the best step of one seed, then train and measure it."""
    problem, steps = Problem(setting, seed), grid(setting.steps)
    training = problem.linearized()
    lr = setting.share * training.max_stable_lr()
    found = early_stopping(training, lr, "data")
    foretold = training.descent(torch.tensor(steps), lr)["validation"].square().mean(-1)
    measured = problem.errors(steps, lr)
    best = steps[int(np.argmin(measured))]
    return {
        "seed": seed,
        "lr": lr,
        "predicted": found.step,
        "best": best,
        "ratio": math.inf if found.step is None else found.step / max(best, 1),
        "valley": list(valley(steps, measured)),
        "noise": found.noise,
        "degrees_of_freedom": float(at(found, found.degrees_of_freedom, best)),
        "error_best": min(measured),
        "error_stopped": float(np.interp(found.step or steps[-1], steps, measured)),
        "error_last": measured[-1],
        "steps": steps,
        "measured": measured,
        "linearized": foretold.tolist(),
        "risk": [float(at(found, found.risk, step)) for step in steps],
    }


def at(found: EarlyStopping, curve: Tensor, step: int) -> np.ndarray:
    """A curve of the prediction at one step, interpolated."""
    return np.interp(step, found.steps.numpy(), curve.numpy())


def valley(steps: Sequence[int], errors: Sequence[float], excess: float = 0.05) -> tuple[int, int]:
    """First and last step whose error is at most 5 % above the least."""
    near = [s for s, e in zip(steps, errors, strict=True) if e <= (1 + excess) * min(errors)]
    return near[0], near[-1]


def table(records: Sequence[Record]) -> str:
    """A row a seed, in Markdown."""
    head = ["seed", "predicted step", "best validation step", "ratio", "within a factor of 2"]
    head += ["error within 5 %", "noise, estimated", "error at the best step"]
    head += ["error at the predicted one", "error at the end"]
    rows = []
    for r in records:
        near, (first, last) = "yes" if 0.5 <= r["ratio"] <= 2 else "no", r["valley"]
        steps = [r[name] for name in ("seed", "predicted", "best", "ratio")]
        errors = [r[name] for name in ("noise", "error_best", "error_stopped", "error_last")]
        rows.append([*steps, near, f"{first} to {last}", *errors])
    return markdown(head, rows)


def draw(records: Sequence[Record], setting: Setting) -> Figure:
    """Error against the step, a panel a seed: measured, of the linearised network, estimated."""
    columns = min(3, len(records))
    shape = math.ceil(len(records) / columns), columns
    figure = Figure(figsize=(1.0 + 3.6 * columns, 0.8 + 2.8 * shape[0]), layout="constrained")
    panels = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    for axes, record in zip(panels.flat, records, strict=False):
        panel(axes, record)
    for axes in panels.flat[len(records) :]:
        axes.set_axis_off()
    panels[0, 0].legend(fontsize="small")
    figure.suptitle(
        f"Noisy regression: {setting.points} points, noise {setting.noise:g}, width "
        f"{setting.width}, lr = {setting.share:g} of the largest stable one",
        fontsize="medium",
    )
    return figure


def panel(axes: Axes, record: Record) -> None:
    """One seed."""
    steps = np.array(record["steps"][1:])
    curves = {
        "measured, validation": ("measured", COLOURS[0], "-"),
        "linearised, validation": ("linearized", COLOURS[1], "--"),
        "estimated from the noisy data": ("risk", COLOURS[2], "-."),
    }
    for label, (name, colour, style) in curves.items():
        values = np.array(record[name][1:])
        axes.loglog(steps, np.where(values > 0, values, np.nan), style, color=colour, label=label)
    axes.axvline(record["best"], color=COLOURS[0], linewidth=0.8)
    if record["predicted"] is not None:
        axes.axvline(record["predicted"], color=COLOURS[2], linewidth=0.8, linestyle="-.")
    axes.set_title(f"seed {record['seed']}: ratio {record['ratio']:.2f}", fontsize="medium")
    axes.set(xlabel="step of gradient descent", ylabel="mean square of f - f*")


def main(
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    folder: Path = Path("logs/noisy_regression"),
    **options: Any,
) -> None:
    """Foretell and measure the best step for each seed, print the table, draw the figure.

    Args:
        seeds: Seeds of data and initialisation.
        folder: Where everything is written.
        options: Those of `Setting`.
    """
    torch.set_num_threads(1)  # a second thread costs the small kernels more than it brings
    setting = Setting(**options)
    records = [study(setting, seed) for seed in seeds]
    print(table(records))
    save(folder, draw(records, setting), {"options": vars(setting), "runs": records})


if __name__ == "__main__":
    jsonargparse.CLI(main, as_positional=False)
