"""What the examples have in common: the command line, and what is said and drawn at the end."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor


class Solved(LightningModule):
    """A PINN with a known solution: ``net`` is compared with ``exact`` on the test points."""

    @torch.no_grad()
    def error(self, points: Tensor) -> Tensor:
        """Relative L2 error against the exact solution."""
        exact = self.exact(points)
        return (self.net(points) - exact).norm() / exact.norm()

    def validation_step(self, points: Tensor) -> None:
        """Log the relative L2 error as training goes on."""
        self.log("rel_l2", self.error(points), prog_bar=True, batch_size=1)


class Tested(LightningDataModule):
    """Points to train on, and those of ``test``, on which the error is taken."""

    def val_dataloader(self) -> DataLoader[Tensor]:
        """All test points in one batch."""
        return DataLoader([self.test], batch_size=None)


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


def ignore_advice() -> None:
    """Ignore what Lightning warns of in vain."""
    for message in (
        # The batch lies in memory: worker processes and a GPU would only slow it down.
        ".* does not have many workers",
        "GPU available but not used",
        "Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its folder
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of _pytree
    ):
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning says nothing of the trainings within, of which a script makes many."""
    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning")
    levels = {log: log.level for log in map(logging.getLogger, names)}
    with warnings.catch_warnings():
        ignore_advice()
        for log in levels:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in levels.items():
                log.setLevel(level)


def run(
    model: type[LightningModule],
    data: type[LightningDataModule],
    report: Report,
    max_steps: int,
    shared: Sequence[str] = (),
) -> None:
    """Run the command line of an example; ``shared`` is what the model takes from the data."""

    class Main(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.link_arguments("trainer.max_steps", "data.steps")  # one epoch holds all steps
            for name in shared:
                parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it does
    ignore_advice()
    Main(
        model,
        data,
        seed_everything_default=0,
        trainer_defaults={"max_steps": max_steps, "callbacks": [report]},
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
    )
