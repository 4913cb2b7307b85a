"""The base of a problem: what is trained, how, and how far it is from the reference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from gallery.networks import network
from gallery.points import Box


class Problem(LightningModule):
    """A PINN whose ``net`` is compared with a reference on the test points.

    The loss is the sum of the terms' mean squares, without the factor 1/2. The optimiser is Adam.

    Args:
        lr: Learning rate at the start.
        decay: Factor that it falls by in 1000 steps.
    """

    inputs: tuple[str, ...] = ("t", "x")  # axes of the figure
    outputs: tuple[str, ...] = ("u",)  # its rows
    factors: Mapping[str, float] = {}  # of the means of some terms; 1 for the others

    def __init__(self, lr: float = 1e-3, decay: float = 0.9) -> None:
        super().__init__()
        self.lr, self.decay = lr, decay

    def residuals(self, batch: Any) -> dict[str, Tensor]:
        """What each term squares, by its name."""
        raise NotImplementedError

    def exact(self, points: Tensor) -> Tensor:
        """The solution in closed form, (N, n_out), at points (N, n_in)."""
        raise NotImplementedError

    def reference(self, points: Tensor) -> Tensor:
        """What the prediction is compared with, (N, n_out); the exact solution, if there is one."""
        return self.exact(points)

    def found(self) -> dict[str, str]:
        """Further lines of the report at the end, such as a coefficient and its true value."""
        return {}

    @torch.no_grad()
    def error(self, points: Tensor) -> Tensor:
        """Relative L2 error against the reference, over all outputs together."""
        reference = self.reference(points)
        return (self.net(points) - reference).norm() / reference.norm()

    def training_step(self, batch: Any) -> Tensor:
        """The sum of the terms; they are logged as they are, so that their names are found."""
        losses = {name: r.square().mean() for name, r in self.residuals(batch).items()}
        losses |= {name: factor * losses[name] for name, factor in self.factors.items()}
        self.log_dict(losses)
        return reduce(add, losses.values())

    def validation_step(self, points: Tensor) -> None:
        """Log the relative L2 error as training goes on."""
        self.log("rel_l2", self.error(points), prog_bar=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        """Adam; the learning rate falls by ``decay`` in 1000 steps."""
        adam = torch.optim.Adam(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.ExponentialLR(adam, self.decay ** (1 / 1000))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class BoxProblem(Problem):
    """A problem on a box, with a network as the arguments say; they are hyperparameters all.

    Args:
        box: Where it is solved; the inputs are standardised to it.
        n_out: Outputs of the network.
        width: Neurons a layer.
        depth: Hidden layers.
        frequencies: Random Fourier features in front of the first layer; 0 for none.
        scale: Standard deviation of their angular frequencies.
        modified: Take the modified MLP.
        factorize: Factorise the weights of the layers.
        lr: Learning rate at the start.
        decay: Factor that it falls by in 1000 steps.
    """

    def __init__(
        self,
        box: Box,
        n_out: int = 1,
        width: int = 50,
        depth: int = 3,
        frequencies: int = 0,
        scale: float = 1.0,
        modified: bool = False,
        factorize: bool = False,
        lr: float = 1e-3,
        decay: float = 0.9,
    ) -> None:
        super().__init__(lr, decay)
        self.save_hyperparameters(ignore=["box", "n_out"])
        shape = (len(box.low), n_out, width, depth)
        features = (frequencies, scale, modified, factorize)
        self.net = network(*shape, box.mean, box.std, *features)
