"""AnyPINN: its Poisson problem on the unit square, boundary points drawn anew each step."""

import math
import typing

import torch
import typing_extensions
from lightning.pytorch import Trainer, seed_everything

if not hasattr(typing, "override"):  # AnyPINN 0.25 takes it from there, as of Python 3.12
    typing.override = typing_extensions.override

from anypinn.catalog.poisson_2d import Poisson2DDataModule
from anypinn.core import (
    Field,
    GenerationConfig,
    MLPConfig,
    PINNHyperparameters,
    Problem,
    ScalarConfig,
    build_criterion,
)
from anypinn.lib.diff import laplacian
from anypinn.lightning import PINNModule
from anypinn.problems import BoundaryCondition, DirichletBCConstraint, PDEResidualConstraint

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor


def residual(x, fields, params):
    source = -2 * math.pi**2 * torch.sin(math.pi * x).prod(dim=1, keepdim=True)
    return -laplacian(fields["u"](x), x) + source


def edge(n):
    """Points on the edge of the unit square."""
    along, side = torch.rand(n), torch.randint(0, 4, (n,))
    fixed = (side % 2).float()
    x = torch.where(side < 2, fixed, along)
    return torch.stack([x, torch.where(side < 2, along, fixed)], dim=1)


def zero(x):
    return torch.zeros(len(x), 1)


def train(callbacks, steps=200):
    seed_everything(0)
    points = GenerationConfig(
        batch_size=200,
        data_ratio=2,
        collocations=800,
        x=torch.linspace(0, 1, 30),
        args_to_train={},
        noise_level=0,
    )
    mlp = MLPConfig(in_dim=2, out_dim=1, hidden_layers=[32, 32], activation="tanh")
    scalar = ScalarConfig(init_value=0.0)
    hp = PINNHyperparameters(lr=2e-3, training_data=points, fields_config=mlp, params_config=scalar)
    u, bc = Field(config=mlp), BoundaryCondition(sampler=edge, value=zero, n_pts=80)
    pde = PDEResidualConstraint({"u": u}, {}, residual)
    constraints = [pde, DirichletBCConstraint(bc, u, log_key="loss/bc")]
    problem = Problem(constraints, build_criterion("mse"), fields={"u": u}, params={})
    trainer = Trainer(max_steps=steps, callbacks=callbacks, accelerator="cpu")
    trainer.fit(PINNModule(problem, hp), datamodule=Poisson2DDataModule(hp))
    return trainer


if __name__ == "__main__":
    train([NTKMonitor(every_n_steps=100), NTKBalancer(every_n_steps=50)])  # the one line
