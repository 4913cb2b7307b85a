"""A tiny PINN and its Trainer for the tests of callbacks.

u_xx = sin(3x) on [-1, 1], u(-1) = u(1) = 0, with u(x) = net(3x): the PDE term is the faster one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from warnings import WarningMessage

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pinn_ntk.errors import NTKWarning

N_PDE, N_BC = 6, 4
ONE_BATCH: dict[str, Any] = {"max_epochs": -1, "limit_train_batches": 1}
"""One batch an epoch: Lightning warns of a restart in the middle of an epoch."""

Log = Literal["tensor", "item", "dict", "keyword", "sparse", "none"]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.001),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
    "lbfgs": lambda params: torch.optim.LBFGS(params, lr=0.1, max_iter=3),
    "wolfe": lambda params: torch.optim.LBFGS(params, max_iter=4, line_search_fn="strong_wolfe"),
}


class Pinn(pl.LightningModule):
    """Two terms, "pde" (N_PDE rows) and "bc" (N_BC rows), each a mean of squares."""

    def __init__(
        self,
        optimizer: str = "sgd",
        log: Log = "tensor",
        dropout: float = 0.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.optimizer, self.log_style = optimizer, log
        layers = [nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1)]
        self.net = nn.Sequential(*layers[:-1], nn.Dropout(dropout), layers[-1]).to(dtype)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer](self.parameters())

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = batch["x"].clone().requires_grad_()
        u = self.net(3 * x)
        (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        return {"pde": u_xx - torch.sin(3 * x.detach()), "bc": self.net(3 * batch["ends"])}

    def losses(self, residuals: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: r.square().mean() for name, r in residuals.items()}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = self.losses(self.residuals(batch))
        self.log_losses(losses, batch_idx)
        return torch.stack(list(losses.values())).sum()

    def log_losses(self, losses: dict[str, Tensor], batch_idx: int) -> None:
        if self.log_style == "dict":
            self.log_dict(losses)
        for name, value in losses.items():
            if self.log_style == "tensor" or (self.log_style == "sparse" and batch_idx % 3 == 0):
                self.log(name, value)
            if self.log_style == "item":
                self.log(name, value.item())
            if self.log_style == "keyword":
                self.log(value=value, name=name, prog_bar=False)


class TwoOptimizers(Pinn):
    """Two optimizer steps a batch, each counted by ``global_step``; a parameter of nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        extra = torch.ones(2, dtype=torch.float64, requires_grad=True)
        first = torch.optim.SGD([*self.net.parameters(), extra], lr=0.01)
        return [first, torch.optim.SGD([self.scale, self.net[0].weight], lr=0.01)]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        for optimizer in self.optimizers():
            losses = self.losses(self.residuals(batch))
            self.log_losses(losses, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(losses["pde"] + losses["bc"])
            optimizer.step()


def batch(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    x = torch.linspace(-1, 1, N_PDE, dtype=dtype)[:, None]
    ends = torch.tensor([-1.0, -0.9, 0.9, 1.0], dtype=dtype)[:, None]
    return {"x": x, "ends": ends}


def trainer(
    *callbacks: pl.Callback,
    steps: int = 8,
    logger: Logger | list[Logger] | bool = False,
    **options: Any,
) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=options.pop("devices", 1),
        max_steps=steps,
        callbacks=list(callbacks),
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"enable_checkpointing": False} | options),
    )


def fit(
    module: pl.LightningModule,
    *callbacks: pl.Callback,
    batches: Iterable[Any] | None = None,
    ckpt: Path | None = None,
    **options: Any,
) -> pl.Trainer:
    """Train, by default on one batch over and over; the seed is that of the test."""
    run = trainer(*callbacks, **options)
    data = [batch()] * 100 if batches is None else list(batches)
    run.fit(module, DataLoader(data, batch_size=None), ckpt_path=ckpt)
    return run


def calling(**hooks: Callable[..., Any]) -> pl.Callback:
    """A callback of just these hooks."""
    callback = pl.Callback()
    for name, hook in hooks.items():
        setattr(callback, name, hook)
    return callback


def build(**options: Any) -> Pinn:
    """The same network whenever it is called."""
    torch.manual_seed(1)
    return Pinn(**options)


def ours(warned: Iterable[WarningMessage]) -> list[str]:
    """What this package warns of; Lightning adds its own, which the recorder does not filter."""
    return [str(w.message) for w in warned if issubclass(w.category, NTKWarning)]


@contextmanager
def told_once(match: str) -> Iterator[None]:
    """This package warns once, of that."""
    with pytest.warns(NTKWarning, match=match) as warned:
        yield
    assert len(ours(warned)) == 1


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether all parameters agree to the last bit."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.equal(p, q) for p, q in pairs)
