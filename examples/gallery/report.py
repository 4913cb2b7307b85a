"""What an example prints, logs and draws when training is over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor


class Report(Callback):
    """Logs the final error and the figure, and prints what came out, when training is over.

    What stands in braces in the title, such as ``{model.a}``, is filled in; ``draw`` makes the
    figure of a model on the test points.
    """

    def __init__(self, title: str, published: str, draw: Callable[[Any, Tensor], Figure]) -> None:
        self.title, self.published, self.draw = title, published, draw

    def on_train_end(self, trainer: Trainer, model: LightningModule) -> None:
        """Log the error, write the figure, print the report."""
        x, step = trainer.datamodule.test, trainer.global_step - 1  # the step of the last batch
        error = float(model.error(x))
        for logger in trainer.loggers:
            logger.log_metrics({"rel_l2": error}, step=step)
        path = save_figure(self.draw(model, x), trainer)
        rows = {
            "relative L2 error": f"{error:.2e}",
            "published": self.published,
            **model.found(),
            **kernel_rows(trainer),
            "figure": str(path),
            "curves and images": "tensorboard --logdir logs",
        }
        print(f"\n{self.title.format(model=model)}, {trainer.global_step} steps")
        print("\n".join(f"  {label:<20}{text}" for label, text in rows.items()))


def kernel_rows(trainer: Trainer) -> dict[str, str]:
    """What the callbacks say of the kernel at the end: loss weights and drift."""
    rows = {}
    for callback in trainer.callbacks:
        if isinstance(callback, NTKBalancer):
            weights = [f"{name} {weight:.5g}" for name, weight in callback.weights.items()]
            rows["loss weights"] = ", ".join(weights)
        if isinstance(callback, NTKMonitor):
            for what in ("kernel", "parameters"):
                for _, drift in callback.history.get(f"ntk/drift/{what}", [])[-1:]:
                    rows[f"drift, {what}"] = f"{drift:.3g}"
    return rows


def save_figure(figure: Figure, trainer: Trainer) -> Path:
    """Write the figure into the log folder as PNG, and to TensorBoard as an image."""
    path = Path(trainer.log_dir or ".") / "prediction.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # (height, width, 3)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            step = trainer.global_step - 1
            logger.experiment.add_image("prediction", pixels, step, dataformats="HWC")
            logger.experiment.flush()
    return path
