"""Spectra of the wave equation's kernels through training: Wang, Yu, Perdikaris 2022, Fig 7.

K_u, K_ut and K_r are the blocks of the three terms of ``wave.py``: u on the initial line and both
boundaries, u_t on the initial line, and the residual inside. The network is trained with loss
weights from the traces of these blocks.

    python studies/wave_spectra.py                                # three seeds, 5 minutes each
    python studies/wave_spectra.py --steps 1000 --seeds [0]       # half a minute
    python studies/wave_spectra.py --logs [logs/wave/version_0]   # of a run that is there
    python studies/wave_spectra.py --logs [logs/wave_paper/rebalanced/checkpoints/last.ckpt]

Setting: that of ``configs/wave.yaml`` (128 random Fourier features in front of two tanh layers of
100, standard parametrisation, Adam, points drawn anew at each step, weights every 500 steps,
convention "mean"); ``--settings configs/wave_paper.yaml`` trains the network of the authors'
notebook for hours. Loss: sums of means of squares, that of u of three. Kernels: on the first
batch, held fixed, 300 rows of u, 100 of u_t, 300 of the residual; not divided by the number of
rows, not weighted. A log folder holds those of the training batches instead, in single precision.

A seed that is finished is not run again, its numbers lie in ``logs/wave_spectra/``. Written:
``logs/wave_spectra/wave_spectra.png`` and ``.json``. The tables and figures are those of "Spectra
of the wave equation through training" in docs/results.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import torch
import yaml
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from problems import fit_quietly, wave
from pytorch_lightning import seed_everything
from results import markdown, of, remembered, save
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from pinn_ntk import Spectrum
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.tensorboard import PLUGIN_NAME

Series = Sequence[tuple[int, Spectrum]]
"""(step, spectrum), in the order measured."""
Spectra = Mapping[str, Series]
"""Term -> its spectra."""
NAMES = {"loss_u": "$K_u$", "loss_ut": "$K_{ut}$", "loss_r": "$K_r$"}
FIGURES = ("lambda_max", "effective_rank", "trace")
MOMENTS = {"start": 0.0, "middle": 0.5, "end": 1.0}
"""Moment -> share of the steps."""
SNAPSHOTS = (0.0, 0.01, 0.1, 0.5, 1.0)
"""Shares of the steps at which spectra are drawn."""
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "wave.yaml"


def train(seed: int, steps: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Train one seed; what came out, and the spectra on the first batch."""
    seed_everything(seed, verbose=False)
    model = wave.Wave(**config["model"])
    points = wave.Points(**config["data"], seed=seed, steps=steps)
    moments = sorted({round(share * (steps - 1)) for share in SNAPSHOTS})
    monitor = NTKMonitor(steps=moments, probe=wave.Wave.residuals)
    balancer = NTKBalancer(**options_of("NTKBalancer", config))
    start = time.perf_counter()
    fit_quietly(model, points, monitor, balancer)
    return {
        "rel_l2": float(model.error(points.test)),
        "weights": {name: float(weight) for name, weight in balancer.weights.items()},
        "seconds": time.perf_counter() - start,
        "spectra": {
            term: [[step, s.eigenvalues.tolist(), s.floor] for step, s in series]
            for term, series in monitor.spectra.items()
        },
    }


def options_of(callback: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a callback in a configuration."""
    for entry in config["trainer"]["callbacks"]:
        if entry["class_path"].rpartition(".")[2] == callback:
            return entry.get("init_args", {})
    return {}


def trained(
    seeds: Sequence[int], steps: int, config: Mapping[str, Any], folder: Path
) -> dict[str, Spectra]:
    """Spectra of each seed: from its file, or from a training that is run now."""
    found = {}
    for seed in seeds:
        setting = {"seed": seed, "steps": steps, "model": config["model"], "data": config["data"]}
        setting["balancer"] = options_of("NTKBalancer", config)
        path, run = folder / f"seed{seed}.json", partial(train, seed, steps, config)
        known = remembered(path, {"setting": setting}, run)
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in known["weights"].items())
        print(
            f"seed {seed}: {known['seconds']:.0f} s, relative L2 error {known['rel_l2']:.2e}, "
            f"weights {weights}",
            flush=True,
        )
        found[f"seed {seed}"] = {
            term: [(n, Spectrum(torch.tensor(v, dtype=torch.float64), f)) for n, v, f in series]
            for term, series in known["spectra"].items()
        }
    return found


def read(path: Path) -> Spectra:
    """Spectra from the log folder of a run, or from a checkpoint."""
    spectra = from_checkpoint(path) if path.is_file() else from_events(path)
    if not spectra:
        raise ValueError(
            f"no spectra in {path}; expected the log folder of a run with an NTKMonitor, such as "
            "logs/wave/version_0, or a checkpoint of one."
        )
    return spectra


def from_checkpoint(path: Path) -> Spectra:
    """What the first monitor of a Trainer has kept."""
    callbacks = torch.load(path, map_location="cpu", weights_only=True).get("callbacks", {})
    for name, state in callbacks.items():
        if "NTKMonitor" in name:
            monitor = NTKMonitor()
            monitor.load_state_dict(state)
            return monitor.spectra
    return {}


def from_events(folder: Path) -> Spectra:
    """The tensor summaries ``ntk/spectrum/<term>``."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    if not any("/spectrum/" in tag for tag in events.Tags()["tensors"]):
        return {}  # asked for the tags of an absent plugin, TensorBoard raises
    found = {}
    for tag, content in events.PluginTagToContent(PLUGIN_NAME).items():
        rel_floor = json.loads(content)["rel_floor"]
        series = []
        for event in events.Tensors(tag):
            values = torch.tensor(tensor_util.make_ndarray(event.tensor_proto)).double()
            series.append((event.step, Spectrum(values, rel_floor * float(values[0]))))
        found[tag.rpartition("/")[2]] = series
    return found


def near(series: Series, share: float) -> tuple[int, Spectrum]:
    """The measurement nearest to a share of all steps."""
    step = share * series[-1][0]
    return min(series, key=lambda measured: abs(measured[0] - step))


def summary(runs: Mapping[str, Spectra]) -> list[dict[str, Any]]:
    """Figures of each block of each run at start, middle and end."""
    rows = []
    for run, spectra in runs.items():
        for (term, series), (moment, share) in product(spectra.items(), MOMENTS.items()):
            step, spectrum = near(series, share)
            figures = {name: getattr(spectrum, name) for name in FIGURES}
            rows.append({"run": run, "term": term, "moment": moment, "step": step, **figures})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary in Markdown: mean over runs, smallest to largest."""
    lines = []
    for term, moment in product(dict.fromkeys(row["term"] for row in rows), MOMENTS):
        chosen = of(rows, term=term, moment=moment)
        steps = "/".join(str(step) for step in dict.fromkeys(row["step"] for row in chosen))
        spreads = [spread([row[name] for row in chosen]) for name in FIGURES]
        lines.append([term, moment, steps, *spreads])
    return markdown(["term", "moment", "step", *FIGURES], lines)


def spread(values: Sequence[float]) -> str:
    """Mean, smallest and largest of several numbers; the number of one."""
    mean = f"{sum(values) / len(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} to {max(values):.3g})"


def draw(runs: Mapping[str, Spectra], title: str) -> Figure:
    """Spectra of each block, a colour a moment, a line a run; only what is above the floor."""
    terms = list(next(iter(runs.values())))
    figure = Figure(figsize=(1.5 + 4.0 * len(terms), 3.9), layout="constrained")
    panels = figure.subplots(1, len(terms), squeeze=False)[0]
    for axes, term in zip(panels, terms, strict=True):
        for number, spectra in enumerate(runs.values()):
            draw_run(axes, snapshots(spectra[term]), in_legend=not number)
        axes.set(xlabel="index", ylabel="eigenvalue", title=NAMES.get(term, term))
    panels[0].legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def draw_run(axes: Axes, series: Series, *, in_legend: bool) -> None:
    """The spectra of one run, and the floor of the last."""
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(SNAPSHOTS)))
    for (step, spectrum), colour in zip(series, colours, strict=False):
        kept = spectrum.above_floor
        label = f"step {step}" if in_legend else None
        axes.semilogy(np.arange(1, len(kept) + 1), kept, color=colour, linewidth=1.0, label=label)
    label = "floor at the end" if in_legend else None
    axes.axhline(series[-1][1].floor, color="0.5", linestyle=":", linewidth=0.8, label=label)


def snapshots(series: Series) -> Series:
    """The measurements to draw, each once."""
    return list(dict(near(series, share) for share in SNAPSHOTS).items())


def main(
    seeds: Sequence[int] = (0, 1, 2),
    steps: int | None = None,
    settings: Path = CONFIG,
    logs: Sequence[Path] = (),
    folder: Path = Path("logs/wave_spectra"),
) -> None:
    """Train all seeds, or read what was trained before; print the table, draw the figure.

    Args:
        seeds: Seeds of initialisation and points.
        steps: Steps of Adam; those of the configuration when left out.
        settings: Configuration of ``wave.py``.
        logs: Log folders or checkpoints to read, in place of training.
        folder: Where everything is written.
    """
    config = yaml.safe_load(settings.read_text())
    steps = config["trainer"]["max_steps"] if steps is None else steps
    runs = {str(path): read(path) for path in logs}
    runs = runs or trained(seeds, steps, config, folder)
    rows = summary(runs)
    print("\nfigures of each block, mean over runs (smallest to largest)\n")
    print(table(rows))
    save(folder, draw(runs, title(config["model"], logs)), {"summary": rows})


def title(model: Mapping[str, Any], logs: Sequence[Path]) -> str:
    """What the figure shows."""
    if logs:
        return f"Wave 1D: spectra in {', '.join(path.name for path in logs)}"
    network = f"{model['depth']} layers of {model['width']}"
    if model.get("frequencies"):
        network = f"{model['frequencies']} Fourier features, {network}"
    return (
        f"Wave 1D, trained with weights: spectra of the unweighted blocks; {network}; a line a seed"
    )


if __name__ == "__main__":
    jsonargparse.CLI(main, as_positional=False)
