"""Poisson in one dimension: Wang, Yu, Perdikaris 2022, section 7 and Fig. 4.

    u_xx = f on [0, 1],    u = sin(a pi x),    f = -(a pi)^2 sin(a pi x)

For a = 4 the residual term learns hundreds of times faster than the boundary term, and gradient
descent ends with a wrong solution. Weights from the traces of the neural tangent kernel mend it.

    python examples/poisson.py fit --config configs/poisson.yaml          # weighted
    python examples/poisson.py fit --config configs/poisson_plain.yaml    # the same without weights

Every setting of the YAML can be changed behind it, e.g. ``--model.width 500 --seed_everything 1``.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

PUBLISHED = "2.40e-01 without weights, 1.63e-03 with lambda_b = 100 (a = 4, width 100)"


class Points(LightningDataModule):
    """The training points, fixed: every step sees the same full batch.

    Args:
        n_boundary: Rows of the boundary term, half of them at x = 0, half at x = 1.
        n_residual: Residual points, evenly spaced on [0, 1].
        n_test: Points on which the error is taken.
        steps: Length of an epoch; the command line sets it to ``trainer.max_steps``.
    """

    def __init__(
        self,
        n_boundary: int = 100,
        n_residual: int = 100,
        n_test: int = 1000,
        steps: int = 1000,
    ) -> None:
        super().__init__()
        self.steps = steps
        ends = torch.tensor([0.0, 1.0])
        self.train = {
            "x_b": ends.repeat_interleave(n_boundary // 2)[:, None],  # (N_b, 1)
            "x_r": torch.linspace(0.0, 1.0, n_residual)[:, None],  # (N_r, 1)
        }
        self.test = torch.linspace(0.0, 1.0, n_test)[:, None]
        self.mean = float(self.train["x_r"].mean())
        self.std = float(self.train["x_r"].std(correction=0))

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """One batch, ``steps`` times: a single epoch, because each start of one costs time."""
        return DataLoader([self.train] * self.steps, batch_size=None)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """All test points in one batch."""
        return DataLoader([self.test], batch_size=None)


class Network(nn.Sequential):
    """One hidden tanh layer on standardised inputs; W ~ N(0, 1) / sqrt(fan_in), b ~ N(0, 1).

    The standardisation is part of the network, so derivatives with respect to x come out in
    physical units (each divided by the standard deviation). Without it the trace weight of the
    boundary starts near 4 instead of 160, and there is little to balance.
    """

    def __init__(self, width: int, mean: float, std: float) -> None:
        super().__init__(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))
        self.mean, self.std = mean, std
        for layer in (self[0], self[2]):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
            nn.init.normal_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """u(x) for x of shape (N, 1)."""
        return super().forward((x - self.mean) / self.std)


def derivative(y: Tensor, x: Tensor) -> Tensor:
    """dy/dx where row i of y depends on row i of x alone, on the graph."""
    return torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)[0]


class Poisson(LightningModule):
    """The PINN, trained by plain gradient descent on the sum of its two mean squares.

    Args:
        a: Frequency; the exact solution is sin(a pi x).
        width: Neurons of the hidden layer.
        lr: Step size of gradient descent.
        mean: Mean of the residual points; the command line takes it from the data.
        std: Their standard deviation; the command line takes it from the data.
    """

    def __init__(
        self,
        a: float = 4.0,
        width: int = 100,
        lr: float = 1e-5,
        mean: float = 0.5,
        std: float = 1 / math.sqrt(12),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.a, self.lr = a, lr
        self.net = Network(width, mean, std)

    def exact(self, x: Tensor) -> Tensor:
        """u = sin(a pi x)."""
        return torch.sin(self.a * math.pi * x)

    def source(self, x: Tensor) -> Tensor:
        """f = u_xx = -(a pi)^2 sin(a pi x)."""
        return -((self.a * math.pi) ** 2) * self.exact(x)

    def residual(self, x: Tensor) -> Tensor:
        """u_xx - f at the points x, (N_r, 1)."""
        x = x.clone().requires_grad_()
        u_x = derivative(self.net(x), x)
        u_xx = derivative(u_x, x)
        return u_xx - self.source(x.detach())

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """loss_b + loss_r, each a mean of squares without the factor 1/2."""
        loss_b = (self.net(batch["x_b"]) - self.exact(batch["x_b"])).square().mean()
        loss_r = self.residual(batch["x_r"]).square().mean()
        self.log("loss_b", loss_b)
        self.log("loss_r", loss_r)
        return loss_b + loss_r

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent: the theory is about its limit of small steps."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    @torch.no_grad()
    def error(self, x: Tensor) -> Tensor:
        """Relative L2 error against the exact solution at the points x."""
        exact = self.exact(x)
        return (self.net(x) - exact).norm() / exact.norm()

    def validation_step(self, x: Tensor) -> None:
        """Log the relative L2 error as training goes on."""
        self.log("rel_l2", self.error(x), prog_bar=True, batch_size=1)


class Main(LightningCLI):
    """LightningCLI that fills in what the parts know of each other."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One epoch holds all steps; the network standardises by the points it is trained on."""
        parser.link_arguments("trainer.max_steps", "data.steps")
        parser.link_arguments("data.mean", "model.mean", apply_on="instantiate")
        parser.link_arguments("data.std", "model.std", apply_on="instantiate")


class Report(Callback):
    """Logs the final error and the figure, and prints what came out, when training is over."""

    def on_train_end(self, trainer: Trainer, model: Poisson) -> None:
        """Log the error, write the figure, print the report."""
        x, step = trainer.datamodule.test, trainer.global_step - 1  # the step of the last batch
        error = float(model.error(x))
        for logger in trainer.loggers:
            logger.log_metrics({"rel_l2": error}, step=step)
        path = save_figure(draw(model, x), trainer)
        rows = {
            "relative L2 error": f"{error:.2e}",
            "published": PUBLISHED,
            **kernel_rows(trainer),
            "figure": str(path),
            "curves and images": "tensorboard --logdir logs",
        }
        print(f"\nPoisson 1D, a = {model.a:g}, {trainer.global_step} steps of gradient descent")
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


@torch.no_grad()
def draw(model: Poisson, x: Tensor) -> Figure:
    """Prediction on the exact solution, and the pointwise error below."""
    u, exact = model.net(x).flatten().numpy(), model.exact(x).flatten().numpy()
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    above.plot(x, exact, color="0.6", linewidth=4, label="exact")
    above.plot(x, u, color="tab:red", linestyle="--", label="prediction")
    above.set_ylabel("u")
    above.set_title(f"Poisson 1D, a = {model.a:g}: relative L2 error {model.error(x):.2e}")
    above.legend(loc="upper right")
    below.plot(x, np.abs(u - exact), color="tab:red")
    below.set(xlabel="x", ylabel="|prediction - exact|", ylim=(0, None), xlim=(0, 1))
    return figure


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


def main() -> None:
    """Run the command line."""
    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it does
    # The batch lies in memory, so worker processes would only slow it down; a GPU would as well.
    warnings.filterwarnings("ignore", message=".* does not have many workers")
    warnings.filterwarnings("ignore", message="GPU available but not used")
    # Lightning's own use of torch.utils._pytree.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    defaults = {"max_steps": 40_001, "callbacks": [Report()]}
    Main(
        Poisson,
        Points,
        seed_everything_default=0,
        trainer_defaults=defaults,
        auto_configure_optimizers=False,
    )


if __name__ == "__main__":
    main()
