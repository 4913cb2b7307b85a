"""The PINNs of ``examples/``, and a Trainer for those who study them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import wave

import poisson
import report

__all__ = ["poisson", "quiet_trainer", "report", "wave"]


def quiet_trainer(steps: int, *callbacks: Callback, **options: Any) -> Trainer:
    """A Trainer on one thread of the CPU that writes and says nothing."""
    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it does
    report.ignore_advice()
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    chosen = dict.fromkeys(off, False) | options
    return Trainer(accelerator="cpu", max_steps=steps, callbacks=list(callbacks), **chosen)
