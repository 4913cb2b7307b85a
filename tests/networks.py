"""Networks as data: id -> factory(in_dim, out_dim), float64 and the same at every call.

All are tiny, smooth (a PDE differentiates them) and map points (N, in_dim) to values (N, out_dim).
`WIDTH` differs from the numbers of points in `cases.py`, so that a mistaken axis shows in a shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.parametrizations import weight_norm

WIDTH = 5

Factory = Callable[[int, int], nn.Module]


class Lambda(nn.Module):
    """A function without parameters as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def own_function(
    name: str, forward: Callable[[object, Tensor], Tensor], backward: Callable[..., Tensor]
) -> Callable[[Tensor], Tensor]:
    """A function whose backward pass is written by its user, under the name of its node."""
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name, (torch.autograd.Function,), methods).apply


def stack(
    sizes: list[int],
    activation: Callable[[], nn.Module] = nn.Tanh,
    layer: Callable[[int, int], nn.Module] = nn.Linear,
) -> nn.Sequential:
    """Layers of the given sizes with an activation after each but the last."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [layer(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])


def plain(
    in_dim: int, out_dim: int, hidden: int = 3, **kinds: Callable[..., nn.Module]
) -> nn.Sequential:
    """`stack` of ``hidden`` layers of `WIDTH`."""
    return stack([in_dim, *[WIDTH] * hidden, out_dim], **kinds)


def in_turn(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """An activation made of several modules."""
    return lambda: nn.Sequential(*(layer() for layer in layers))


class FourierFeatures(nn.Module):
    """cos(x B), sin(x B) (N, 6), the frequencies B (in_dim, 3) fixed or trained."""

    def __init__(self, in_dim: int, trained: bool) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(in_dim, 3), requires_grad=trained)

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=-1)


def fourier(in_dim: int, out_dim: int, trained: bool) -> nn.Module:
    return nn.Sequential(FourierFeatures(in_dim, trained), plain(6, out_dim, hidden=2))


class Gated(nn.Module):
    """Modified MLP of Wang, Teng and Perdikaris (2021): every layer mixes two encoders U and V."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.u, self.v, self.first = (nn.Linear(in_dim, WIDTH) for _ in range(3))
        self.hidden = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.last = nn.Linear(WIDTH, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        u, v, h = self.u(x).tanh(), self.v(x).tanh(), self.first(x).tanh()
        for layer in self.hidden:
            gate = layer(h).tanh()
            h = (1 - gate) * u + gate * v
        return self.last(h)


class ResidualBlocks(nn.Module):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(in_dim, WIDTH)
        self.blocks = nn.ModuleList(stack([WIDTH, 6, WIDTH]) for _ in range(2))
        self.last = nn.Linear(WIDTH, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h.tanh())
        return self.last(h)


class LayerNormByHand(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(1 + 0.1 * torch.randn(size))
        self.bias = nn.Parameter(0.1 * torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred * torch.rsqrt(variance + 1e-2) * self.gain + self.bias


def layer_twice(in_dim: int, out_dim: int) -> nn.Module:
    """One hidden layer used two times in a row."""
    first, shared = nn.Linear(in_dim, WIDTH), nn.Linear(WIDTH, WIDTH)
    twice = [nn.Tanh(), shared] * 2
    return nn.Sequential(first, *twice, nn.Tanh(), nn.Linear(WIDTH, out_dim))


class SharedTrunk(nn.Module):
    """Product of two networks that both own the trunk, each evaluating it anew."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        trunk = stack([in_dim, WIDTH, WIDTH])
        self.one = nn.Sequential(trunk, nn.Tanh(), nn.Linear(WIDTH, out_dim))
        self.other = nn.Sequential(trunk, nn.Tanh(), stack([WIDTH, 6, out_dim]))

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) * (2 + self.other(x))


def normed(n_in: int, n_out: int) -> nn.Module:
    """A weight-normalised layer away from its start, where the kernel equals the plain layer's."""
    layer = weight_norm(nn.Linear(n_in, n_out))
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(0.5 + torch.rand(n_out, 1))
    return layer


class FactorisedLinear(nn.Module):
    """Random weight factorisation of Wang et al. (2022): W = diag(exp s) V, made at every call."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(0.5 + 0.1 * torch.randn(n_out))
        self.direction = nn.Parameter(torch.randn(n_out, n_in) / n_in**0.5)
        self.bias = nn.Parameter(0.1 * torch.randn(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.scale.exp().unsqueeze(-1) * self.direction, self.bias)


class SlopedTanh(nn.Module):
    """tanh(n a x) with a learnable slope a of the given shape (Jagtap et al. 2020), n = 5."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(0.2 + 0.05 * torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(5 * self.slope * x)


def one_sensor_vector(x: Tensor) -> Tensor:
    return torch.linspace(-1, 1, 4, dtype=x.dtype).cos().unsqueeze(0)  # (1, 4)


def sensors_per_point(x: Tensor) -> Tensor:
    return torch.sin(x.sum(-1, keepdim=True) * torch.arange(1, 5, dtype=x.dtype))  # (N, 4)


class DeepONet(nn.Module):
    """sum_p branch(s)_p trunk(x)_p; `sensors` x -> s gives one (1, 4), or one a point (N, 4)."""

    def __init__(self, in_dim: int, out_dim: int, sensors: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.branch, self.trunk = stack([4, 6, 3 * out_dim]), stack([in_dim, WIDTH, 3 * out_dim])
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.sensors = sensors

    def forward(self, x: Tensor) -> Tensor:
        product = self.branch(self.sensors(x)) * self.trunk(x)
        return product.unflatten(-1, (-1, 3)).sum(-1) + self.bias


class ByHand(nn.Module):
    """einsum and ``x @ W + b`` on bare parameters, biases of shape (n,) and (1, n)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(in_dim, WIDTH))
        self.b1 = nn.Parameter(torch.randn(WIDTH))
        self.w2 = nn.Parameter(torch.randn(WIDTH, 6) / 2)
        self.b2 = nn.Parameter(torch.randn(1, 6))
        self.w3 = nn.Parameter(torch.randn(6, out_dim) / 2)
        self.b3 = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(torch.einsum("ni,io->no", x, self.w1) + self.b1)
        h = torch.tanh(h @ self.w2 + self.b2)
        return torch.addmm(self.b3, h, self.w3)


class PointsInColumns(nn.Module):
    """W @ X + b with the points on axis 1 inside; points (N, in_dim) outside as everywhere."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        shapes = [(WIDTH, in_dim), (WIDTH, WIDTH), (out_dim, WIDTH)]
        self.weights = nn.ParameterList(torch.randn(shape) / shape[1] ** 0.5 for shape in shapes)
        self.biases = nn.ParameterList(0.1 * torch.randn(n_out, 1) for n_out, _ in shapes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.weights[0] @ x.T + self.biases[0]  # (WIDTH, N)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h = weight @ h.tanh() + bias
        return h.T


def frozen_and_unused(in_dim: int, out_dim: int) -> nn.Module:
    net = plain(in_dim, out_dim)
    net[2].weight.requires_grad_(False)
    net[4].bias.requires_grad_(False)
    net.register_parameter("unused", nn.Parameter(torch.ones(2, 3)))
    return net


class SeededDropout(nn.Dropout):
    """Dropout whose masks do not touch the global generator: the same at every call."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(8)
            return super().forward(x)


class ConvHead(nn.Module):
    """The features of each point as a signal of one channel."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.first, self.conv = nn.Linear(in_dim, WIDTH), nn.Conv1d(1, 2, kernel_size=3)
        self.last = nn.Linear(2 * (WIDTH - 2), out_dim)

    def forward(self, x: Tensor) -> Tensor:
        signal = self.first(x).tanh().unsqueeze(1)  # (N, 1, WIDTH)
        return self.last(self.conv(signal).tanh().flatten(1))


def reproducible(build: Factory) -> Factory:
    """The factory seeded and in float64, leaving the global generator as it is."""

    def seeded(in_dim: int, out_dim: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(20)
            return build(in_dim, out_dim).to(torch.float64)

    return seeded


_FACTORIES: dict[str, Factory] = {
    "mlp": plain,
    "no_bias": partial(plain, layer=partial(nn.Linear, bias=False)),
    "one_hidden": partial(plain, hidden=1),
    "five_hidden": partial(plain, hidden=5),
    "siren": partial(plain, activation=lambda: Lambda(lambda x: torch.sin(3 * x))),
    "softplus": partial(plain, activation=nn.Softplus),
    "gelu": partial(plain, activation=nn.GELU),
    "silu": partial(plain, activation=nn.SiLU),
    "fourier_fixed": partial(fourier, trained=False),
    "fourier_trained": partial(fourier, trained=True),
    "gated": Gated,
    "residual_blocks": ResidualBlocks,
    "layer_twice": layer_twice,
    "shared_trunk": SharedTrunk,
    # torch's own norms have wrong third derivatives (pytorch issues 175754 and 186256). Training on
    # u_xx uses them all the same: the kernel is that of the graph, not of the formula.
    "layer_norm": partial(plain, activation=in_turn(partial(nn.LayerNorm, WIDTH), nn.Tanh)),
    "layer_norm_by_hand": partial(
        plain, activation=in_turn(partial(LayerNormByHand, WIDTH), nn.Tanh)
    ),
    "weight_norm": partial(plain, layer=normed),
    "weight_factorised": partial(plain, layer=FactorisedLinear),
    "slope_per_layer": partial(plain, activation=SlopedTanh),
    "slope_per_neuron": partial(plain, activation=partial(SlopedTanh, WIDTH)),
    "deeponet_one_sensor_vector": partial(DeepONet, sensors=one_sensor_vector),
    "deeponet_sensors_per_point": partial(DeepONet, sensors=sensors_per_point),
    "by_hand": ByHand,
    "points_in_columns": PointsInColumns,
    "frozen_and_unused": frozen_and_unused,
    "dropout": partial(plain, activation=in_turn(nn.Tanh, partial(SeededDropout, 0.3))),
    "conv1d": ConvHead,
    "batch_norm": partial(  # in train mode: points interact
        plain, hidden=2, activation=in_turn(partial(nn.BatchNorm1d, WIDTH), nn.Tanh)
    ),
}

NETWORKS: dict[str, Factory] = {name: reproducible(build) for name, build in _FACTORIES.items()}
