"""PINA: Poisson on the unit square, out of its problem zoo."""

import torch
from lightning.pytorch import seed_everything
from pina import Trainer
from pina.model import FeedForward
from pina.optim import TorchOptimizer
from pina.problem.zoo import Poisson2DSquareProblem
from pina.solver import PhysicsInformedSingleModelSolver

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor


def train(callbacks, steps=200):
    seed_everything(0)  # PINA draws points by Python's generator, too
    problem = Poisson2DSquareProblem()
    problem.discretise_domain(200, "random", domains="D")
    problem.discretise_domain(80, "random", domains="boundary")
    net = FeedForward(input_dimensions=2, output_dimensions=1, layers=[32, 32])
    adam = TorchOptimizer(torch.optim.Adam, lr=2e-3)
    solver = PhysicsInformedSingleModelSolver(problem, net, optimizer=adam)
    trainer = Trainer(solver, max_epochs=steps, callbacks=callbacks, accelerator="cpu")
    trainer.train()
    return trainer


if __name__ == "__main__":
    train([NTKMonitor(every_n_steps=100), NTKBalancer(every_n_steps=50)])  # the one line
