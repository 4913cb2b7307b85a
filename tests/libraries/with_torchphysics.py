"""TorchPhysics: Poisson on the unit square, points drawn anew each step."""

import math

import pytorch_lightning as pl
import torch
import torchphysics as tp

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor


def pde_residual(u, x):
    load = torch.prod(torch.sin(math.pi * x), dim=1, keepdim=True)
    return tp.utils.laplacian(u, x) + 2 * math.pi**2 * load


def edge_residual(u):
    return u


def train(callbacks, steps=200):
    pl.seed_everything(0)
    X, U = tp.spaces.R2("x"), tp.spaces.R1("u")
    square = tp.domains.Parallelogram(X, [0, 0], [1, 0], [0, 1])
    inner = tp.samplers.RandomUniformSampler(square, n_points=200)
    edge = tp.samplers.RandomUniformSampler(square.boundary, n_points=80)
    net = tp.models.FCN(input_space=X, output_space=U, hidden=(32, 32))
    pde = tp.conditions.PINNCondition(net, inner, pde_residual, name="pde")
    bc = tp.conditions.PINNCondition(net, edge, edge_residual, name="bc")
    adam = tp.OptimizerSetting(torch.optim.Adam, lr=2e-3)
    solver = tp.solver.Solver([pde, bc], optimizer_setting=adam)
    trainer = pl.Trainer(max_steps=steps, callbacks=callbacks, accelerator="cpu")
    trainer.fit(solver)
    return trainer


if __name__ == "__main__":
    train([NTKMonitor(every_n_steps=100), NTKBalancer(every_n_steps=50)])  # the one line
