"""The PINNs of ``examples/``, and a Trainer for those who study them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import wave

import poisson
from gallery import command_line, points, problem

__all__ = ["command_line", "fit_quietly", "points", "poisson", "problem", "wave"]


def fit_quietly(
    model: LightningModule, points: Any, *callbacks: Callback, **options: Any
) -> Trainer:
    """The Trainer of a fit on one thread of the CPU that wrote and said nothing."""
    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it does
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    chosen = dict.fromkeys(off, False) | {"max_steps": points.steps} | options
    with command_line.quiet():
        trainer = Trainer(accelerator="cpu", callbacks=list(callbacks), **chosen)
        trainer.fit(model, points)
    return trainer
