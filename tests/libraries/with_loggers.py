"""Weights & Biases, MLflow and CSV loggers beside TensorBoard's, on Poisson's equation."""

import math

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import nn
from torch.utils.data import DataLoader

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor


class Poisson(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        x = torch.linspace(0, 1, 50)[:, None].requires_grad_()
        u_x = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]
        u_xx = torch.autograd.grad(u_x.sum(), x, create_graph=True)[0]
        pde = (u_xx + math.pi**2 * torch.sin(math.pi * x)).square().mean()
        bc = self.net(torch.tensor([[0.0], [1.0]])).square().mean()
        self.log_dict({"pde": pde, "bc": bc})
        return pde + bc

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def train(callbacks, steps=200):
    seed_everything(0)
    loggers = [
        TensorBoardLogger("logs"),
        WandbLogger(project="pinn", save_dir="logs", offline=True),
        MLFlowLogger(experiment_name="pinn", tracking_uri="sqlite:///mlflow.db"),
        CSVLogger("logs"),
    ]
    trainer = Trainer(max_epochs=1, callbacks=callbacks, logger=loggers, accelerator="cpu")
    trainer.fit(Poisson(), DataLoader([torch.zeros(1)] * steps, batch_size=None))
    return trainer


if __name__ == "__main__":
    train([NTKMonitor(every_n_steps=100), NTKBalancer(every_n_steps=50)])  # the one line
