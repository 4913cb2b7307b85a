"""DeepXDE, PyTorch backend: Poisson on the unit square."""

import os

os.environ.setdefault("DDE_BACKEND", "pytorch")

import deepxde as dde
import numpy as np
import torch

from pinn_ntk import Balancing
from pinn_ntk.integrations.deepxde import NTKCallback


def pde(x, u):
    u_xx, u_yy = dde.grad.hessian(u, x, i=0, j=0), dde.grad.hessian(u, x, i=1, j=1)
    load = torch.sin(np.pi * x).prod(dim=1, keepdim=True)
    return u_xx + u_yy + 2 * np.pi**2 * load


def train(callbacks, steps=200):
    dde.config.set_random_seed(0)
    square = dde.geometry.Rectangle([0, 0], [1, 1])
    edge = dde.icbc.DirichletBC(square, lambda x: 0, lambda _, on_boundary: on_boundary)
    data = dde.data.PDE(square, pde, edge, num_domain=200, num_boundary=80)
    net = dde.nn.FNN([2, 32, 32, 1], "tanh", "Glorot uniform")
    model = dde.Model(data, net)
    model.compile("adam", lr=2e-3)
    model.train(iterations=steps, callbacks=callbacks)
    return model


if __name__ == "__main__":
    train([NTKCallback(every=100, balancing=Balancing("trace"))])  # the one line
