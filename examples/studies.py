"""What the studies of kernels have in common: tables, figures and numbers under ``logs/``."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning import Callback, Trainer

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's colours, told apart by the colour-blind too."""
STYLES = ("-", "--", "-.", ":", "-", "--")


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floating-point numbers with three digits.

    Example:
        >>> print(markdown(["width", "drift"], [[10, 0.12345]]))
        | width | drift |
        | --- | --- |
        | 10 | 0.123 |
    """
    lines = [list(head), ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(folder: Path, figure: Figure, numbers: dict[str, Any]) -> None:
    """Write ``<name>.png`` and ``<name>.json`` into a folder of that name."""
    write_json(folder / f"{folder.name}.json", numbers)
    FigureCanvasAgg(figure)
    figure.savefig(folder / f"{folder.name}.png", dpi=150)
    print(f"\nfigure and numbers: {folder / folder.name}.png, .json")


def write_json(path: Path, numbers: dict[str, Any]) -> None:
    """Write the file at once, so that a run that is stopped leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(numbers, indent=1) + "\n")
    draft.replace(path)


def quiet_trainer(steps: int, *callbacks: Callback, **options: Any) -> Trainer:
    """A Trainer on one thread of the CPU that writes and says nothing."""
    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it does
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # The batch lies in memory, so worker processes would only slow it down; a GPU would as well.
    warnings.filterwarnings("ignore", message=".* does not have many workers")
    warnings.filterwarnings("ignore", message="GPU available but not used")
    # Lightning's own use of torch.utils._pytree.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    silent = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    chosen = silent | options
    return Trainer(accelerator="cpu", max_steps=steps, callbacks=list(callbacks), **chosen)


def _text(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
