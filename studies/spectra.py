"""Spectra of the Poisson kernels for a = 1, 2, 4: Wang, Yu, Perdikaris 2022, Fig 1.

    u_xx = f on [0, 1],    u = sin(a pi x),    K = [[K_uu, K_ur], [K_ru, K_rr]]

At initialisation no block depends on a: f and the boundary values are constants of the residuals
and drop out of their derivatives. What differs in the paper's Fig 1 is the draw of the network.
Training brings a in: the lower row of the figure, after gradient descent.

    python studies/spectra.py                               # five minutes on one core
    python studies/spectra.py --steps 0                     # seconds: initialisation only
    python studies/spectra.py --parametrization standard    # as in the authors' notebook

Setting: 100 boundary rows (50 copies of each end, so that K_uu has rank 2), 100 residual points,
one hidden tanh layer of width 100, inputs standardised as in the notebook, NTK parametrisation
(W / sqrt(n_in), all entries N(0, 1)), loss: means of squares of both terms, gradient descent with
lr 1e-5. Kernels: float64, not divided by the number of rows, not weighted; eigenvalues from the
singular values of the Jacobian, those above the noise floor.

Written to ``logs/spectra/``: ``spectra.png`` and ``.json``; the eigenfunctions of K_rr, largest
eigenvalue first, as ``eigenfunctions_poisson.png``, and those of the wave operator u_tt - 4 u_xx of
``wave.py`` (three layers of 100, at initialisation) as ``eigenfunctions_wave.png``. The table and
the three figures are those of "Spectra for a = 1, 2, 4" in docs/results.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import numpy as np
import torch
from drift import Network
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from problems import fit_quietly, poisson, wave
from pytorch_lightning import seed_everything
from results import COLOURS, labelled, markdown, save

from pinn_ntk import NTK, Spectrum, empirical_ntk
from pinn_ntk.analysis.eigenfunctions import eigenfunction_figure

Parametrization = Literal["ntk", "standard"]
Found = dict[tuple[str, float, int], dict[str, Spectrum]]
"""(moment, a, seed) -> block -> spectrum."""
BLOCKS = {"K": None, "K_uu": "loss_b", "K_rr": "loss_r"}
"""Block -> its term; None for all."""
MOMENTS = ("initialisation", "after training")
FIGURES = ("lambda_max", "trace", "effective_rank", "stable_rank", "rank")


@dataclass(frozen=True)
class Setting:
    """What all networks have in common.

    Args:
        width: Neurons of the hidden layer.
        steps: Steps of gradient descent before the second measurement; 0 for none.
        parametrization: "ntk" or "standard", which has other kernels.
        standardised: Whether the network gets (x - mean) / std.
    """

    width: int = 100
    steps: int = 10_000
    parametrization: Parametrization = "ntk"
    standardised: bool = True

    @property
    def title(self) -> str:
        """What the figure shows."""
        inputs = "standardised inputs" if self.standardised else "inputs as they are"
        names = {"ntk": "NTK parametrisation", "standard": "standard parametrisation"}
        of_network = f"width {self.width}, {names[self.parametrization]}, {inputs}"
        return f"Poisson 1D, {of_network}; a line a seed"


def make_model(a: float, seed: int, setting: Setting) -> poisson.Poisson:
    """The PINN, its network drawn with this seed."""
    seed_everything(seed, verbose=False)
    points = poisson.Points()
    mean, std = (points.mean, points.std) if setting.standardised else (0.0, 1.0)
    model = poisson.Poisson(a=a, width=setting.width, mean=mean, std=std)
    if setting.parametrization == "ntk":
        seed_everything(seed, verbose=False)
        model.net = Network(setting.width, 1, mean, std)
    return model


def kernel_of(model: poisson.Poisson) -> NTK:
    """K of the training points, in float64."""
    dtype = next(model.parameters()).dtype
    points = {name: x.double() for name, x in poisson.Points().train.items()}
    kernel = empirical_ntk(model.double().residuals(points), model)
    model.to(dtype)
    return kernel


def spectra_of(kernel: NTK) -> dict[str, Spectrum]:
    """Spectrum of each block."""
    return {name: kernel.spectrum(term, method="accurate") for name, term in BLOCKS.items()}


def all_spectra(frequencies: Sequence[float], seeds: Sequence[int], setting: Setting) -> Found:
    """Spectra of every frequency and seed, at initialisation and after training."""
    found: Found = {}
    for a, seed in product(frequencies, seeds):
        model = make_model(a, seed, setting)
        found[MOMENTS[0], a, seed] = spectra_of(kernel_of(model))
        if steps := setting.steps:
            fit_quietly(model, poisson.Points(steps=steps))
            found[MOMENTS[1], a, seed] = spectra_of(kernel_of(model))
            error = float(model.error(poisson.Points().test))
            said = f"a = {a:g}, seed {seed}: relative L2 error {error:.2e} after {steps} steps"
            print(said, flush=True)
    return found


def spread_over_a(found: Found) -> dict[str, float]:
    """Largest relative difference between the spectra of different a, one seed, one block."""
    groups: dict[tuple[str, int, str], list[torch.Tensor]] = defaultdict(list)
    for (moment, _, seed), blocks in found.items():
        for name, spectrum in blocks.items():
            groups[moment, seed, name].append(spectrum.eigenvalues)
    result: dict[str, float] = {}
    in_order = sorted(groups.items(), key=lambda group: MOMENTS.index(group[0][0]))
    for (moment, *_), (first, *others) in in_order:
        change = max((float((s - first).norm() / first.norm()) for s in others), default=0.0)
        result[moment] = max(result.get(moment, 0.0), change)
    return result


def summary(found: Found) -> list[dict[str, Any]]:
    """Figures of each spectrum, ready for JSON."""
    rows = []
    for (moment, a, seed), blocks in found.items():
        for name, spectrum in blocks.items():
            decay = spectrum.decay
            rows.append(
                {"moment": moment, "a": a, "seed": seed, "block": name, "floor": spectrum.floor}
                | {figure: getattr(spectrum, figure) for figure in FIGURES}
                | {"decay": None if decay is None else [decay.law, decay.rate, decay.r_squared]}
                | {"eigenvalues": spectrum.above_floor.tolist()}
            )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary in Markdown, mean over seeds; at initialisation one row for all a."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        a = "any" if row["moment"] == MOMENTS[0] else f"{row['a']:g}"
        groups[row["moment"], a, row["block"]].append(row)
    lines = []
    for key, group in groups.items():
        means = [float(np.mean([row[name] for row in group])) for name in FIGURES]
        laws = [row["decay"] for row in group if row["decay"]]
        lines.append([*key, *means, decay_in_words(laws)])
    return markdown(["moment", "a", "block", *FIGURES, "decay"], lines)


def decay_in_words(laws: Sequence[tuple[str, float, float]]) -> str:
    """The law that most seeds follow, its mean rate and least R^2."""
    if not laws:
        return "-"
    names = [name for name, *_ in laws]
    law = max(dict.fromkeys(names), key=names.count)
    rates, explained = zip(*[(rate, r2) for name, rate, r2 in laws if name == law], strict=True)
    form = "exp(-{:.2g} i)" if law == "exponential" else "i^-{:.2g}"
    return f"{form.format(np.mean(rates))}, R^2 {min(explained):.3f}"


def draw(found: Found, frequencies: Sequence[float], title: str) -> Figure:
    """A column a block, a row a moment, a colour a frequency, a line a seed."""
    moments = [moment for moment in MOMENTS if any(key[0] == moment for key in found)]
    figure = Figure(figsize=(11.5, 0.8 + 3.0 * len(moments)), layout="constrained")
    panels = figure.subplots(len(moments), len(BLOCKS), squeeze=False)
    for (row, moment), (column, block) in product(enumerate(moments), enumerate(BLOCKS)):
        axes = panels[row, column]
        for number, a in enumerate(frequencies):
            spectra = [found[key][block] for key in found if key[:2] == (moment, a)]
            # Thick below thin, so that lines which coincide are seen to.
            width = 1.0 + 1.6 * (len(frequencies) - 1 - number)
            draw_seeds(axes, labelled(f"a = {a:g}", spectra), color=COLOURS[number], lw=width)
        symbol = f"${block[0]}_{{{block[2:]}}}$" if "_" in block else "$K$"
        axes.set_title(f"{symbol}, {moment}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[:, 0]:
        axes.set_ylabel("eigenvalue")
    for axes in panels[-1]:
        axes.set_xlabel("index")
    panels[0, 0].legend()
    figure.suptitle(title, fontsize="medium")
    return figure


def draw_seeds(axes: Axes, curves: Iterable[tuple[str | None, Spectrum]], **style: Any) -> None:
    """Eigenvalues above the floor, and the floor, a line a seed."""
    for label, spectrum in curves:
        kept = spectrum.above_floor.numpy()
        marker = "." if len(kept) < 5 else ""
        axes.semilogy(np.arange(1, len(kept) + 1), kept, marker=marker, label=label, **style)
        axes.axhline(spectrum.floor, color="0.6", linestyle=":", linewidth=0.6)


def poisson_functions(setting: Setting) -> Figure:
    """The first eigenfunctions of K_rr at initialisation, a = 1, seed 0."""
    kernel = kernel_of(make_model(1.0, 0, setting))
    spectrum = kernel.spectrum("loss_r", method="accurate", eigenvectors=True)
    x = poisson.Points().train["x_r"]
    return eigenfunction_figure(x, spectrum, labels="x", title="Poisson 1D: $K_{rr}$ at the start")


def wave_functions(width: int, side: int = 24) -> Figure:
    """The first eigenfunctions of the kernel of u_tt - 4 u_xx, on a grid of side^2 points."""
    seed_everything(0, verbose=False)
    model = wave.Wave(width=width, depth=3).double()
    axis = torch.linspace(0.0, 1.0, side, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    kernel = empirical_ntk({"r": model.residual(points)}, model)
    spectrum = kernel.spectrum("r", eigenvectors=True)
    title = "Wave 1D: $K_r$ at the start"
    return eigenfunction_figure(points, spectrum, labels=("t", "x"), title=title)


def main(
    frequencies: Sequence[float] = (1.0, 2.0, 4.0),
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path = Path("logs/spectra"),
    **options: Any,
) -> None:
    """Measure all spectra, print the table, draw the figures.

    Args:
        frequencies: Values of a.
        seeds: Seeds of the initialisation.
        folder: Where everything is written.
        options: Those of `Setting`.
    """
    torch.set_num_threads(1)
    setting = Setting(**options)
    found = all_spectra(frequencies, seeds, setting)
    rows, spread = summary(found), spread_over_a(found)
    print(f"\n{table(rows)}\n")
    for moment, change in spread.items():
        print(f"{moment}: spectra of different a differ by {change:.2g} at most, relatively")
    numbers = {"spread_over_a": spread, "spectra": rows}
    save(folder, draw(found, frequencies, setting.title), numbers)
    functions = {"poisson": poisson_functions(setting), "wave": wave_functions(setting.width)}
    for name, figure in functions.items():
        figure.savefig(folder / f"eigenfunctions_{name}.png", dpi=150)


if __name__ == "__main__":
    jsonargparse.CLI(main, as_positional=False)
