"""PINNs-Torch: Burgers' equation from an initial and a boundary condition."""

import numpy as np
from lightning.pytorch import Trainer, seed_everything
from pinnstorch import data, models
from pinnstorch.utils import gradient

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

NAMES = ["f", "ic", "bc"]  # in the order of the datasets: PINNs-Torch logs their sum alone


def start(_root):
    """u at t = 0, and 0 at the ends; the rest of the mesh is not read."""
    return {"u": np.repeat(-np.sin(np.pi * np.linspace(-1, 1, 64))[:, None], 20, axis=1)}


def burgers(outputs, x, t):
    u_x, u_t = gradient(outputs["u"], [x, t])
    u_xx = gradient(u_x, x)[0]
    outputs["f"] = u_t + outputs["u"] * u_x - (0.01 / np.pi) * u_xx
    return outputs


def train(callbacks, steps=200, jit=False):
    seed_everything(0)
    time, space = data.TimeDomain([0, 0.99], t_points=20), data.Interval([-1, 1], shape=[64, 1])
    mesh = data.Mesh(space, time, root_dir=".", read_data_fn=start)
    sets = [
        data.MeshSampler(mesh, num_sample=200, collection_points=["f"]),
        data.InitialCondition(mesh, num_sample=50, solution=["u"]),
        data.DirichletBoundaryCondition(mesh, num_sample=40, solution=["u"]),
    ]
    points = data.PINNDataModule(sets, data.MeshSampler(mesh, solution=["u"]))
    net = models.FCN([2, 32, 32, 1], mesh.lb, mesh.ub, output_names=["u"])
    module = models.PINNModule(net, burgers, loss_fn="mse", amp=False, jit_compile=jit)
    trainer = Trainer(
        max_epochs=steps,
        callbacks=callbacks,
        accelerator="cpu",
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=points)
    return trainer


if __name__ == "__main__":
    train([NTKMonitor(every_n_steps=100, names=NAMES), NTKBalancer(every_n_steps=50, names=NAMES)])
