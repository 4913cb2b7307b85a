"""What the callbacks have to give, worked out by the module that is trained."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pinn_ntk import distance_to_limit, empirical_ntk, reference_ntk, trace_weights
from pinn_ntk.limit.parametrization import found_stds
from pinn_ntk.weights.trace import DEFAULT, Convention
from tests.kernels import mlp
from tests.pinn import N_BC, N_PDE, Pinn, batch
from tests.zoo import Noted

D = np.array([2 / N_PDE] * N_PDE + [2 / N_BC] * N_BC)
OWN_INPUTS = 3 * batch()["x"]  # as the network is called


class Seen(Noted):
    """Tells what each step did to the loss, relative to what is foretold."""

    def stacked(self, step: int) -> list[np.ndarray]:
        """Residuals of all terms, (R,), and their Jacobian, (R, P)."""
        noted = self.rows[step], self.jacobians[step]
        return [torch.cat(list(of_terms.values())).numpy() for of_terms in noted]

    def ratio(self, step: int, weights: np.ndarray | float = 1.0) -> float:
        (r, J), (after, _) = self.stacked(step), self.stacked(step + 1)
        linear = r + J @ (self.theta[step + 1] - self.theta[step]).numpy()
        before, predicted, measured = (weights * D @ x**2 / 2 for x in (r, linear, after))
        return float((before - measured) / (before - predicted))

    def ratios(self, *steps: int) -> dict[int, Any]:
        return pytest.approx({step: self.ratio(step) for step in steps}, rel=1e-8)


class Weighted(Pinn):
    """Weights its own loss: what a user would write by hand, at the same steps."""

    def __init__(
        self, every: int, convention: Convention = DEFAULT, ema: float = 0.0, **options: Any
    ):
        super().__init__(**options)
        self.every, self.convention, self.ema = every, convention, ema
        self.weights = {"pde": 1.0, "bc": 1.0}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        if batch_idx % self.every == 0:
            new = trace_weights(empirical_ntk(residuals, self), self.convention)
            for name, old in self.weights.items():
                self.weights[name] = self.ema * old + (1 - self.ema) * new[name]
        losses = {n: (self.weights[n] * r.square()).mean() for n, r in residuals.items()}
        return losses["pde"] + losses["bc"]


def wang_weights(residuals: dict[str, Tensor], module: pl.LightningModule) -> dict[str, float]:
    """Wang's rule with the row-by-row kernel, its traces as means over the rows."""
    kernel = reference_ntk(residuals, module)
    means = {name: float(kernel[name, name].diagonal().mean()) for name in residuals}
    return {name: sum(means.values()) / mean for name, mean in means.items()}


def gradient(loss: Tensor, module: Pinn) -> Tensor:
    params = list(module.parameters())
    grads = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])


class Plain(Pinn):
    """A plain network, which keeps copies of itself of each step."""

    def __init__(self, optimizer: str = "adam") -> None:
        super().__init__(optimizer=optimizer)
        self.net = mlp(1, 8, 8, 1)
        self.copies: list[dict[str, Tensor]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.copies.append(copy.deepcopy(self.net.state_dict()))
        return super().training_step(batch, batch_idx)

    def distances(self, *steps: int, points: Tensor = OWN_INPUTS) -> Any:
        net = nn.Sequential(*copy.deepcopy(self.net))
        net.load_state_dict(self.copies[0])
        stds, found = found_stds(net), {}
        for step in steps:
            net.load_state_dict(self.copies[step])
            found[step] = distance_to_limit(net, points, *stds)
        assert len({round(value, 6) for value in found.values()}) == len(steps)  # it moves
        return pytest.approx(found, rel=1e-12)
