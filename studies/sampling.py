"""How loss weights depend on how many points were drawn, under each convention.

    python studies/sampling.py [--seed 0]

Two tables, in Markdown. The first: a network at ten points (a) and at the same ten points a hundred
times each (b), both as means of squares, hence one and the same function of the parameters; their
weights should be equal. The second: u'' = f with u given at the ends, drawn in `SAMPLINGS`; how
much more the boundary weighs than the equation. What the conventions mean stands in
`pinn_ntk.weights.trace`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping

import torch
from results import markdown
from torch import Tensor, nn

from pinn_ntk import NTK, empirical_ntk, trace_weights
from pinn_ntk.weights.trace import Convention

CONVENTIONS: tuple[Convention, ...] = ("mean", "sum", "rate")
SAMPLINGS = ((100, 100), (1000, 2), (2000, 20), (400, 4), (50, 50), (10, 100))
"""Points inside, points on the boundary."""


def network(seed: int) -> nn.Module:
    """A tanh MLP 1-[50]*2-1 in float64."""
    torch.manual_seed(seed)
    layers = [nn.Linear(1, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 1)]
    return nn.Sequential(*layers).double()


def repeated(net: nn.Module, rows: int = 10, times: int = 100) -> NTK:
    """Kernel of a and b, which see the same points."""
    x = torch.linspace(-1, 1, rows, dtype=torch.float64)[:, None]
    return empirical_ntk({"a": net(x), "b": net(x.repeat(times, 1))}, net)


def sampled(net: nn.Module, inside: int, boundary: int) -> NTK:
    """Kernel of the equation on random points, and of u on the two ends in turn."""
    x = (2 * torch.rand(inside, 1, dtype=torch.float64) - 1).requires_grad_()
    ends = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(math.ceil(boundary / 2))
    u_x = derivative(net(x), x)
    residuals = {"pde": derivative(u_x, x), "bc": net(ends[:boundary, None])}
    return empirical_ntk(residuals, net)


def derivative(u: Tensor, x: Tensor) -> Tensor:
    """du/dx, row by row."""
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0]


def ratios(kernel: NTK, of: str, over: str) -> dict[Convention, float]:
    """Convention -> weight of one term over that of another."""
    found = {convention: trace_weights(kernel, convention) for convention in CONVENTIONS}
    return {convention: weights[of] / weights[over] for convention, weights in found.items()}


def table(seed: int) -> Mapping[tuple[int, int], dict[Convention, float]]:
    """Sampling -> ratio of the weights of boundary and equation."""
    net = network(seed)
    return {rows: ratios(sampled(net, *rows), "bc", "pde") for rows in SAMPLINGS}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of network and points")
    seed = parser.parse_args().seed
    kernel = repeated(network(seed))
    weights = [[c, *(f"{w:.4g}" for w in trace_weights(kernel, c).values())] for c in CONVENTIONS]
    print(markdown(["convention", "weight of a", "weight of b"], weights))
    rows = [
        [inside, boundary, *(f"{ratio:.3g}" for ratio in found.values())]
        for (inside, boundary), found in table(seed).items()
    ]
    print(markdown(["points inside", "on the boundary", *CONVENTIONS], rows))


if __name__ == "__main__":
    main()
