"""The command line of an example, and its small size ``--smoke``."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from gallery.report import Report

__all__ = ["Report", "ignore_advice", "quiet", "run"]

SMOKE = {"trainer.max_steps": 20, "trainer.val_check_interval": 10, "trainer.log_every_n_steps": 5}
"""Settings of a run that shows in seconds that a script works, whatever its other arguments say."""
SMALL = {"width": 8, "n_test": 20}
"""Arguments of model and data at that size; other numbers of points are 10."""


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


def arguments(owner: type) -> set[str]:
    """Names of the arguments of a class, those that it hands on to its base with them."""
    names: set[str] = set()
    for one in owner.__mro__:
        if "__init__" in vars(one):
            own = inspect.signature(one.__init__).parameters
            names |= set(own)
            if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
                break
    return names


def smoke(model: type[LightningModule], data: type[LightningDataModule]) -> list[str]:
    """The arguments that ``--smoke`` is short for."""
    points = sorted(name for name in arguments(data) if name.startswith("n_"))
    settings = SMOKE | {f"data.{name}": SMALL.get(name, 10) for name in points}
    if "width" in arguments(model):
        settings["model.width"] = SMALL["width"]
    return [f"--{name}={value}" for name, value in settings.items()]


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
            small = "few steps, points and neurons: does the script work?"
            parser.add_argument("--smoke", action="store_true", help=small)

    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it does
    ignore_advice()
    if "--smoke" in sys.argv:
        sys.argv = [*sys.argv, *smoke(model, data)]
    Main(
        model,
        data,
        seed_everything_default=0,
        trainer_defaults={"max_steps": max_steps, "callbacks": [report]},
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
    )
