"""A plain PyTorch loop: Poisson on [0, 1], with a monitor of its own."""

import math

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import pinn_ntk
from pinn_ntk.tensorboard import add_spectrum

NAMES = ["pde", "bc"]


class Monitor:
    def __init__(self, net, folder="runs", every=100):
        self.net, self.every, self.verdicts = net, every, []
        self.writer = SummaryWriter(folder)

    def __call__(self, loss, step):
        if step % self.every == 0:
            self.seen = seen = pinn_ntk.look(loss, self.net, names=NAMES, step=step)
            for term, spectrum in seen.spectra.items():
                self.writer.add_scalar(f"ntk/trace/{term}", seen.traces[term], step)
                self.writer.add_scalar(f"ntk/effective_rank/{term}", spectrum.effective_rank, step)
                tag = f"ntk/spectrum/{term}"
                add_spectrum(self.writer, tag, spectrum.eigenvalues, step, rel_floor=0.0)
            self.verdicts.append(pinn_ntk.diagnose(seen, previous=self.verdicts))
            self.writer.add_text("ntk/verdict", str(self.verdicts[-1]), step)


def train(monitored=True, balanced=False, steps=301):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    adam, ends = torch.optim.Adam(net.parameters(), lr=2e-3), torch.tensor([[0.0], [1.0]])
    monitor = Monitor(net) if monitored else None
    weights, balancing = pinn_ntk.LossWeights(NAMES), pinn_ntk.Balancing("trace")
    for step in range(steps):
        x = torch.rand(100, 1, requires_grad=True)
        u_x = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
        u_xx = torch.autograd.grad(u_x.sum(), x, create_graph=True)[0]
        pde = (u_xx + math.pi**2 * torch.sin(math.pi * x)).square().mean()
        losses = {"pde": pde, "bc": net(ends).square().mean()}
        if balanced and step % 50 == 0:
            weights.update(balancing.update(pinn_ntk.look(sum(losses.values()), net, names=NAMES)))
        loss = weights(losses)
        if monitor:
            monitor(loss, step)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return net, monitor, weights


if __name__ == "__main__":
    train(balanced=True)
