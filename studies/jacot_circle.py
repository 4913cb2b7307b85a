"""The kernel on the unit circle against its limit: Jacot, Gabriel, Hongler 2018, Fig. 1.

    Theta(x0, x(gamma)),    x0 = (1, 0),    x(gamma) = (cos gamma, sin gamma)

for several initialisations and two widths, at the start and after gradient descent. Wide networks
have nearly one kernel, that of infinite width, and it hardly moves while they are trained.

    python studies/jacot_circle.py                       # twenty minutes on one core
    python studies/jacot_circle.py --widths [100,500]    # seconds

Setting: depth 4, that is three hidden layers of ReLU; NTK parametrisation (sigma_w = 1: weights
W / sqrt(n_in) with N(0, 1) entries; beta = sigma_b = 0.1). Full-batch gradient descent with
learning rate 1 on 1 / (2 N) sum (u - x1 x2)^2 over inputs from N(0, 1), 200 steps. The paper does
not say how many inputs: 20 here, the same for all networks. Kernel: of the output, no factor 1/N;
network in float32, products in float64; the limit in closed form.

A network that is finished is not trained again, its numbers lie in ``logs/jacot_circle/``.
Written: ``logs/jacot_circle/jacot_circle.png`` and ``.json``. An initialisation of width 10000
takes four minutes and 2 GB on one core, one of width 500 a second. The table and the figure are
those of "Kernels at start and end of training" in docs/results.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import torch
from matplotlib.figure import Figure
from results import COLOURS, labelled, markdown, remembered, save
from torch import Tensor, nn

from pinn_ntk import empirical_ntk
from pinn_ntk.limit.kernel import LimitKernel
from pinn_ntk.limit.parametrization import NTKLinear, ntk_mlp

HEAD = ["width", "spread at start", "distance of one", "distance of the mean", "drift"]
HEAD += ["loss at start", "loss at end", "seconds"]


@dataclass(frozen=True)
class Run:
    """One network."""

    width: int
    seed: int
    start: list[float]  # Theta(x0, x(gamma)) before training, a number a point
    end: list[float]  # the same after it
    losses: list[float]  # of every step, before it is taken, and after the last
    seconds: float


def circle(points: int) -> tuple[Tensor, Tensor]:
    """Angles gamma from -pi to pi, (points,), and x(gamma), (points, 2)."""
    angles = torch.linspace(-math.pi, math.pi, points, dtype=torch.float64)
    return angles, torch.stack([angles.cos(), angles.sin()], 1)


def data(samples: int) -> tuple[Tensor, Tensor]:
    """Inputs from N(0, 1), (samples, 2), and x1 x2, (samples, 1), the same at every call."""
    x = torch.randn(samples, 2, generator=torch.Generator().manual_seed(12345))
    return x, x.prod(1, keepdim=True)


def row(network: nn.Module, x: Tensor) -> list[float]:
    """Theta(x0, x) of the network: one row of the kernel at x0 and x, through its factors."""
    x0 = torch.tensor([[1.0, 0.0]])
    kernel = empirical_ntk({"u": network(torch.cat([x0, x.float()]))}, network, certify=False)
    jacobian = kernel.jacobian("u")
    return jacobian.take(slice(0, 1)).gram(jacobian)[0, 1:].tolist()


def forward(network: nn.Sequential, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The output, and input and output of every linear layer."""
    seen = []
    for layer in network:
        y = layer(x)
        if isinstance(layer, NTKLinear):
            seen.append((x, y))
        x = y
    return x, seen


def descend(network: nn.Sequential, steps: int, lr: float, samples: int) -> list[float]:
    """Train by full-batch gradient descent; the loss before every step and after the last.

    The gradient of a weight, as large as the weight, has rank ``samples`` and is never written.
    """
    x, y = data(samples)
    layers, losses = [layer for layer in network if isinstance(layer, NTKLinear)], []
    for step in range(steps + 1):
        u, seen = forward(network, x)
        loss = (u - y).square().mean() / 2
        losses.append(float(loss.detach()))
        if step < steps:
            slopes = torch.autograd.grad(loss, [output for _, output in seen])
            for layer, slope, (inputs, _) in zip(layers, slopes, seen, strict=True):
                move(layer, inputs.detach(), slope, lr)
    return losses


@torch.no_grad()
def move(layer: NTKLinear, inputs: Tensor, slope: Tensor, lr: float) -> None:
    """One step of gradient descent, ``slope`` being the derivative of the loss in the output."""
    scale = layer.weight_std / math.sqrt(layer.in_features)
    layer.weight.addmm_(slope.mT, inputs, alpha=-lr * scale)
    if layer.bias is not None:
        layer.bias.add_(slope.sum(0), alpha=-lr * layer.bias_std)


def run(width: int, seed: int, options: Mapping[str, Any]) -> Run:
    """Make a network, take its kernel, train it, take its kernel again."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    sizes = [2, *[width] * (options["depth"] - 1), 1]
    network, (_, x) = ntk_mlp(sizes, nn.ReLU, bias_std=options["beta"]), circle(options["points"])
    start = row(network, x)
    losses = descend(network, options["steps"], options["lr"], options["samples"])
    end = row(network, x)
    seconds = time.perf_counter() - began
    print(f"width {width}, seed {seed}: loss {losses[0]:.3g} to {losses[-1]:.3g}, {seconds:.0f} s")
    return Run(width, seed, start, end, losses, seconds)


def known_or_run(folder: Path, width: int, seed: int, options: dict[str, Any]) -> Run:
    """The numbers of a network from its file, if it had the same options, or from training it."""
    path = folder / f"width{width}_seed{seed}.json"
    made = remembered(path, {"options": options}, lambda: {"run": vars(run(width, seed, options))})
    return Run(**made["run"])


def statistics(runs: Sequence[Run], limit: np.ndarray) -> dict[str, float]:
    """Distances over the circle for the networks of one width, all relative to the limit.

    Example:
        >>> one, other = (Run(1, 0, [k], [k + 0.5], [1.0, 0.5], 0.0) for k in (1.0, 3.0))
        >>> numbers = statistics([one, other], np.array([2.0]))
        >>> round(numbers["spread"], 6), numbers["distance"], numbers["drift"]  # sqrt(2) / 2
        (0.707107, 0.5, 0.25)
    """
    start, end = np.array([run.start for run in runs]), np.array([run.end for run in runs])
    norm = np.linalg.norm(limit)

    def relative(values: np.ndarray) -> float:
        return float((np.linalg.norm(values, axis=-1) / norm).mean())

    spread = start.std(axis=0, ddof=1) if len(runs) > 1 else np.full_like(limit, np.nan)
    return {
        "spread": relative(spread),
        "distance": relative(start - limit),
        "distance_of_mean": relative(start.mean(axis=0) - limit),
        "drift": relative(end - start),
        "loss_start": float(np.mean([run.losses[0] for run in runs])),
        "loss_end": float(np.mean([run.losses[-1] for run in runs])),
        "seconds": float(np.mean([run.seconds for run in runs])),
    }


def draw(runs: Sequence[Run], angles: Tensor, limit: np.ndarray, title: str) -> Figure:
    """All kernels over the angle: start dashed, end solid, one colour a width; limit in black."""
    figure = Figure(figsize=(7.0, 4.8), layout="constrained")
    axes = figure.subplots()
    for width, colour in zip(sorted({run.width for run in runs}), cycle(COLOURS), strict=False):
        style = {"color": colour, "linewidth": 1, "alpha": 0.8}
        for in_legend, one in labelled(f"width {width}", (r for r in runs if r.width == width)):
            for values, when, line in ((one.start, "start", ":"), (one.end, "end", "-")):
                label = in_legend and f"{in_legend}, {when}"
                axes.plot(angles, values, line, label=label, **style)
    axes.plot(angles, limit, color="black", linewidth=2, linestyle="--", label="infinite width")
    axes.set(xlabel=r"angle $\gamma$ / rad", ylabel=r"$\Theta(x_0, x(\gamma))$", title=title)
    axes.set(xlim=(-math.pi, math.pi), ylim=(0, None))
    axes.legend(loc="upper right", fontsize="small")
    return figure


def main(
    widths: Sequence[int] = (500, 10_000),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    steps: int = 200,
    lr: float = 1.0,
    samples: int = 20,
    depth: int = 4,
    beta: float = 0.1,
    points: int = 101,
    threads: int = 1,
    folder: Path = Path("logs/jacot_circle"),
) -> None:
    """Run all networks, print the table, draw the figure.

    Args:
        widths: Neurons a hidden layer.
        seeds: Of the initialisations.
        steps: Steps of gradient descent.
        lr: Its step size.
        samples: Inputs it is trained on.
        depth: Number of layers with weights.
        beta: Factor of the biases.
        points: Points on the circle.
        threads: Threads of the CPU.
        folder: Where everything is written.
    """
    torch.set_num_threads(threads)
    angles, x = circle(points)
    x0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    limit = LimitKernel(depth - 1, "relu", 1.0, beta).ntk(x0, x)[0].numpy()
    options = {"steps": steps, "lr": lr, "samples": samples, "depth": depth, "beta": beta}
    options["points"] = points
    runs = [known_or_run(folder, width, seed, options) for width in widths for seed in seeds]
    groups = {str(width): [one for one in runs if one.width == width] for width in widths}
    summary = {width: statistics(group, limit) for width, group in groups.items()}
    print("\nover the circle, relative to the limit kernel; mean over initialisations\n")
    print(markdown(HEAD, [[width, *found.values()] for width, found in summary.items()]))
    title = f"ReLU, depth {depth}, beta = {beta:g}: start, and after {steps} steps"
    numbers = {
        "options": {**options, "seeds": list(seeds)},
        "summary": summary,
        "angles": angles.tolist(),
        "limit": limit.tolist(),
        "runs": [vars(one) for one in runs],
    }
    save(folder, draw(runs, angles, limit, title), numbers)


if __name__ == "__main__":
    jsonargparse.CLI(main, as_positional=False)
