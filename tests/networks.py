"""Networks as data: id -> factory(in_dim, out_dim), float64 and the same at every call.

All are tiny, smooth (a PDE differentiates them) and map points (N, in_dim) to values (N, out_dim).
`WIDTH` differs from the numbers of points in `cases.py`, so that a mistaken axis shows in a shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, softplus
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

WIDTH = 5
"""Width of hidden layers; read when a network is built."""

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


def of_width(layer: Callable[[int], nn.Module]) -> Callable[[], nn.Module]:
    """A layer of as many features as the hidden layers have."""
    return lambda: layer(WIDTH)


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


class Computed(nn.Module):
    """A layer whose weight (n_out, n_in) a function makes of its parameters at every call."""

    def __init__(self, weight: Callable[[nn.Module], Tensor], bias: int, **trained: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.bias = nn.Parameter(0.1 * torch.randn(bias))
        for name, value in trained.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight(self), self.bias)


def normed_by_hand(n_in: int, n_out: int, dim: int | None = 1) -> nn.Module:
    """g v / abs(v) in plain operations, the norm of rows, of columns or of all of v."""

    def weight(layer: nn.Module) -> Tensor:
        norm = layer.v.norm() if dim is None else layer.v.norm(dim=dim, keepdim=True)
        return layer.g * layer.v / norm

    scale = torch.rand(()) if dim is None else torch.rand(n_out, 1)
    return Computed(weight, n_out, v=torch.randn(n_out, n_in), g=scale + 0.5)


def normalised(n_in: int, n_out: int) -> nn.Module:
    v = torch.randn(n_out, n_in)
    return Computed(lambda layer: 2 * normalize(layer.v, dim=1), n_out, v=v)


def masked(n_in: int, n_out: int) -> nn.Module:
    """Some entries of the weight are held at zero."""
    mask = torch.rand(n_out, n_in, dtype=torch.float64) > 0.3
    return Computed(lambda layer: layer.v * mask, n_out, v=torch.randn(n_out, n_in))


def positive(n_in: int, n_out: int) -> nn.Module:
    v = torch.randn(n_out, n_in)
    return Computed(lambda layer: softplus(layer.v) / n_in, n_out, v=v)


def low_rank_added(n_in: int, n_out: int) -> nn.Module:
    """A fixed weight and a trained one of rank 2 (LoRA of Hu et al. 2021)."""
    fixed = torch.randn(n_out, n_in, dtype=torch.float64)
    a, b = torch.randn(n_out, 2), torch.randn(2, n_in)
    return Computed(lambda layer: fixed.to(layer.a) + 0.5 * layer.a @ layer.b, n_out, a=a, b=b)


def scaled(n_in: int, n_out: int) -> nn.Module:
    """c W / sqrt(n), with a trained number c: the NTK parametrisation with a learnable scale."""
    w, c = torch.randn(n_out, n_in), torch.ones(())
    return Computed(lambda layer: layer.c * layer.w / n_in**0.5, n_out, w=w, c=c)


def diagonal_times(n_in: int, n_out: int) -> nn.Module:
    s, v = 0.1 * torch.randn(n_out), torch.randn(n_out, n_in)
    return Computed(lambda layer: torch.diag(layer.s.exp()) @ layer.v, n_out, s=s, v=v)


def parts_joined(n_in: int, n_out: int) -> nn.Module:
    """A weight cut out of one tensor and put together anew."""
    w = torch.randn(n_out + 1, n_in)
    return Computed(lambda layer: torch.cat([layer.w[2:], layer.w[:1].neg()]), n_out, w=w)


def one_of_a_stack(n_in: int, n_out: int) -> nn.Module:
    return Computed(lambda layer: layer.w[1].T, n_out, w=torch.randn(3, n_in, n_out))


def normed_of_old(n_in: int, n_out: int, dim: int | None = 0) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and in many code bases
        return old_weight_norm(nn.Linear(n_in, n_out), dim=dim)


def spectral(n_in: int, n_out: int) -> nn.Module:
    return spectral_norm(nn.Linear(n_in, n_out)).eval()  # no power iteration in a call


class Products(nn.Module):
    """A linear layer by any expression of points and a weight."""

    def __init__(
        self, product: Callable[[Tensor, Tensor], Tensor], turned: bool, n_in: int, n_out: int
    ) -> None:
        super().__init__()
        shape = (n_out, n_in) if turned else (n_in, n_out)
        self.weight = nn.Parameter(torch.randn(shape) / n_in**0.5)
        self.bias = nn.Parameter(0.1 * torch.randn(n_out))
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight) + self.bias


PRODUCTS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "einsum_bi_oi": (lambda x, w: torch.einsum("bi,oi->bo", x, w), True),
    "einsum_bi_io": (lambda x, w: torch.einsum("bi,io->bo", x, w), False),
    "einsum_dots": (lambda x, w: torch.einsum("...i,oi->...o", x, w), True),
    "tensordot": (lambda x, w: torch.tensordot(x, w, dims=([1], [1])), True),
    "matmul_of_three_axes": (lambda x, w: (x[:, None] @ w)[:, 0], False),
    "weight_to_each_point": (lambda x, w: torch.matmul(w, x[:, :, None])[..., 0], True),
    "sum_of_products": (lambda x, w: (x[:, None, :] * w).sum(-1), True),
}
"""Id -> a product of points (N, n_in) and a weight, and whether that is (n_out, n_in)."""


class Ensemble(nn.Module):
    """Three networks in one, their weights stacked, and the mean of what they give."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        sizes = [in_dim, WIDTH, WIDTH, out_dim]
        self.weights = nn.ParameterList(torch.randn(3, b, a) / a**0.5 for a, b in pairwise(sizes))
        self.biases = nn.ParameterList(0.1 * torch.randn(3, 1, b) for b in sizes[1:])

    def forward(self, x: Tensor) -> Tensor:
        h = x.expand(3, *x.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = torch.tanh(torch.einsum("mbi,moi->mbo", h, weight) + bias)
        return torch.baddbmm(self.biases[-1], h, self.weights[-1].mT).mean(0)


class PointsPerFunction(nn.Module):
    """DeepONet whose functions each have points of their own, the points of all in one batch."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.branch, self.trunk = stack([4, 6, 3 * out_dim]), stack([in_dim, WIDTH, 3 * out_dim])

    def forward(self, x: Tensor) -> Tensor:
        sensors = torch.linspace(-1, 1, 4, dtype=x.dtype).cos().expand(1, 4)
        functions = self.branch(sensors).unflatten(-1, (-1, 3))  # (1, out_dim, 3)
        places = self.trunk(x).unflatten(-1, (-1, 3))[None]  # (1, N, out_dim, 3)
        return torch.einsum("fop,fnop->fno", functions, places)[0]


class LatentCodes(nn.Module):
    """Each point carries the code of one of three shapes (auto-decoder)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.codes = nn.Embedding(3, 2)
        self.net = plain(in_dim + 2, out_dim, hidden=2)

    def forward(self, x: Tensor) -> Tensor:
        shape = (3 * x.detach()[..., 0]).abs().long().clamp(max=2)
        return self.net(torch.cat([x, self.codes(shape)], dim=-1))


class Bilinear(nn.Module):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(in_dim, WIDTH), nn.Linear(in_dim, 3)
        self.last = nn.Bilinear(WIDTH, 3, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.one(x).tanh(), self.other(x).tanh())


class Recurrent(nn.Module):
    """Two steps of a GRU cell."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.cell, self.last = nn.GRUCell(in_dim, WIDTH), nn.Linear(WIDTH, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x, self.cell(x)))


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

    def __init__(self, in_dim: int, out_dim: int, conv: type[nn.Module] = nn.Conv1d) -> None:
        super().__init__()
        self.first, self.conv = nn.Linear(in_dim, WIDTH), conv(1, 2, kernel_size=3)
        left = WIDTH - 2 if conv is nn.Conv1d else WIDTH + 2
        self.last = nn.Linear(2 * left, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        signal = self.first(x).tanh().unsqueeze(1)  # (N, 1, WIDTH)
        return self.last(self.conv(signal).tanh().flatten(1))


class ConvImage(nn.Module):
    """The features of each point as a picture of two channels."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(in_dim, 2 * 4 * 5)
        self.one = nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=1, groups=2)
        self.other = nn.Conv2d(4, 3, 2, dilation=(2, 1))
        self.last = nn.Linear(3 * 3 * 2, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        picture = self.first(x).tanh().view(-1, 2, 4, 5)
        return self.last(self.other(self.one(picture).tanh()).tanh().flatten(1))


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
    "layer_norm": partial(plain, activation=in_turn(of_width(nn.LayerNorm), nn.Tanh)),
    "layer_norm_by_hand": partial(plain, activation=in_turn(of_width(LayerNormByHand), nn.Tanh)),
    "weight_norm": partial(plain, layer=normed),
    "weight_norm_old": partial(plain, layer=normed_of_old),
    "weight_norm_columns": partial(plain, layer=lambda i, o: weight_norm(nn.Linear(i, o), dim=1)),
    "weight_norm_of_all": partial(plain, layer=partial(normed_of_old, dim=None)),
    "weight_norm_by_hand": partial(plain, layer=normed_by_hand),
    "weight_norm_columns_by_hand": partial(plain, layer=partial(normed_by_hand, dim=0)),
    "weight_norm_of_all_by_hand": partial(plain, layer=partial(normed_by_hand, dim=None)),
    "normalised": partial(plain, layer=normalised),
    "spectral_norm": partial(plain, layer=spectral),
    "orthogonal": partial(
        plain, layer=lambda i, o: orthogonal(nn.Linear(i, o), orthogonal_map="matrix_exp")
    ),
    "weight_factorised": partial(plain, layer=FactorisedLinear),
    "diagonal_times": partial(plain, layer=diagonal_times),
    "masked": partial(plain, layer=masked),
    "positive": partial(plain, layer=positive),
    "low_rank_added": partial(plain, layer=low_rank_added),
    "scaled": partial(plain, layer=scaled),
    "parts_joined": partial(plain, layer=parts_joined),
    "one_of_a_stack": partial(plain, layer=one_of_a_stack),
    **{
        name: partial(plain, layer=partial(Products, product, turned))
        for name, (product, turned) in PRODUCTS.items()
    },
    "bilinear": Bilinear,
    "ensemble": Ensemble,
    "gru_cell": Recurrent,
    "prelu": partial(plain, activation=in_turn(nn.Tanh, of_width(nn.PReLU))),
    "group_norm": partial(plain, activation=in_turn(of_width(partial(nn.GroupNorm, 1)), nn.Tanh)),
    "rms_norm": partial(plain, activation=in_turn(of_width(nn.RMSNorm), nn.Tanh)),
    "latent_codes": LatentCodes,
    "deeponet_points_per_function": PointsPerFunction,
    "slope_per_layer": partial(plain, activation=SlopedTanh),
    "slope_per_neuron": partial(plain, activation=of_width(SlopedTanh)),
    "deeponet_one_sensor_vector": partial(DeepONet, sensors=one_sensor_vector),
    "deeponet_sensors_per_point": partial(DeepONet, sensors=sensors_per_point),
    "by_hand": ByHand,
    "points_in_columns": PointsInColumns,
    "frozen_and_unused": frozen_and_unused,
    "dropout": partial(plain, activation=in_turn(nn.Tanh, partial(SeededDropout, 0.3))),
    "conv1d": ConvHead,
    "conv2d": ConvImage,
    "conv_transposed": partial(ConvHead, conv=nn.ConvTranspose1d),
    "batch_norm": partial(  # in train mode: points interact
        plain, hidden=2, activation=in_turn(of_width(nn.BatchNorm1d), nn.Tanh)
    ),
}

NETWORKS: dict[str, Factory] = {name: reproducible(build) for name, build in _FACTORIES.items()}
