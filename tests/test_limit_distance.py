"""The distance of a network's kernel to its limit, and how plain networks are found."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from pinn_ntk import LimitKernel, empirical_ntk, ntk_mlp, to_ntk_parametrization
from pinn_ntk.limit import DistanceToLimit, distance_to_limit, limit_of, plain_mlp
from pinn_ntk.limit.layers import find_plain, layer_inputs, layer_kernel
from pinn_ntk.limit.parametrization import found_stds
from tests.kernels import Standardised, gaussian, mlp

points = partial(gaussian, seed=6)


def between(*activations: nn.Module, dtype: torch.dtype | None = None) -> nn.Sequential:
    """Linear layers of width 4 with these activations between them."""
    sizes = [1, *[4] * len(activations), 1]
    layers = [nn.Linear(n_in, n_out, dtype=dtype) for n_in, n_out in pairwise(sizes)]
    pairs = zip(layers[:-1], activations, strict=True)
    return nn.Sequential(*(part for pair in pairs for part in pair), layers[-1])


def after(first: nn.Module) -> nn.Sequential:
    """A hidden layer of another kind."""
    return nn.Sequential(first, nn.Tanh(), nn.Linear(4, 1))


class Scaled(nn.Linear):
    """A layer that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 30 * super().forward(x)


class Sine(nn.Module):
    """Its frequency is not part of its ``repr``."""

    def __init__(self, frequency: float) -> None:
        super().__init__()
        self.frequency = frequency

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.frequency * x)


def pinn(net: nn.Module) -> nn.Module:
    module = nn.ModuleDict({"net": net})
    module.viscosity = nn.Parameter(torch.ones(()))
    return module


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "itself": lambda: mlp(1, 4, 1),
    "inside": lambda: pinn(mlp(1, 4, 4, 2)),
    "subclass": lambda: pinn(Standardised(*mlp(1, 4, 1))),
    "ntk layers": lambda: pinn(ntk_mlp([1, 4, 1])),
    "no bias": lambda: ntk_mlp([1, 4, 1], bias_std=0.0),
    "one frequency": lambda: between(Sine(3.0), Sine(3.0)),
    "one activation used twice": lambda: between(tanh := nn.Tanh(), tanh),
    "beside other modules": lambda: nn.ModuleList([mlp(1, 4, 1), nn.Linear(2, 2), nn.Tanh()]),
}

NOT_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "two networks": lambda: nn.ModuleDict({"u": mlp(1, 4, 1), "v": mlp(1, 4, 1)}),
    "no network": lambda: nn.Linear(1, 1),
    "no hidden layer": lambda: nn.Sequential(nn.Linear(1, 1)),
    "activation at the end": lambda: nn.Sequential(nn.Linear(1, 4), nn.Tanh()),
    "two activations": lambda: between(nn.Tanh(), nn.SiLU()),
    "two slopes": lambda: between(nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
    "dropout": lambda: between(nn.Dropout(0.5)),
    "trained activation": lambda: between(nn.PReLU()),
    "convolution": lambda: nn.Sequential(nn.Conv1d(1, 4, 1), nn.Tanh(), nn.Conv1d(4, 1, 1)),
    "one layer used twice": lambda: nn.Sequential(
        nn.Linear(1, 4), nn.Tanh(), layer := nn.Linear(4, 4), nn.Tanh(), layer, *mlp(4, 4, 1)[1:]
    ),
    "two frequencies": lambda: between(Sine(30.0), Sine(1.0)),
    "another linear layer": lambda: after(Scaled(1, 4)),
    "normalised weights": lambda: after(nn.utils.parametrizations.weight_norm(nn.Linear(1, 4))),
    "pruned weights": lambda: after(prune.l1_unstructured(nn.Linear(1, 4), "weight", 2)),
    "complex weights": lambda: between(nn.Tanh(), dtype=torch.complex128),
    "two layers in a row": lambda: nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 4), nn.Linear(4, 1)),
}


@pytest.mark.parametrize("build", PLAIN.values(), ids=PLAIN)
def test_plain_networks_are_found(build: Callable[[], nn.Module]):
    module = build()
    found = plain_mlp(module)
    assert isinstance(found, nn.Sequential)
    assert found in list(module.modules())


@pytest.mark.parametrize("build", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_others_are_not(build: Callable[[], nn.Module]):
    module = build()
    assert plain_mlp(module) is None
    with pytest.raises(ValueError, match=r"expected one nn\.Sequential of linear"):
        distance_to_limit(module, points(3, 1))


def test_limit_has_the_settings_of_the_network():
    net = mlp(2, 50, 50, 1, activation=nn.SiLU)
    kernel = limit_of(net)
    assert (kernel.hidden, kernel.activation.name) == (2, "silu")
    assert (kernel.weight_std, kernel.bias_std) == found_stds(net)
    assert limit_of(net, 1.5, [0.1, 0.2, 0.3]).bias_std == (0.1, 0.2, 0.3)
    assert limit_of(mlp(2, 5, 1, bias=False), 1.5, 0.3).bias_std == (0.0, 0.0)
    with pytest.raises(ValueError, match="expected linear layers with one elementwise activation"):
        limit_of(nn.Sequential(nn.Linear(1, 1), nn.Tanh()))


@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.ReLU, nn.Mish])
@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
def test_layer_kernel_is_that_of_the_image(activation: Any, n_out: int, bias: bool):
    net, x = mlp(2, 7, 6, n_out, activation=activation, bias=bias), points(5, 2)
    stds = [0.5, 1.0, 2.0], [0.1, 0.2, 3.0]
    image = to_ntk_parametrization(net, *stds)
    expected = empirical_ntk(image(x), image)["residual"].reshape(5, n_out, 5, n_out)
    got = layer_kernel(find_plain(net), x, *stds).permute(1, 0, 3, 2)
    torch.testing.assert_close(got, expected)
    of_image = layer_kernel(find_plain(image), x, *stds).permute(1, 0, 3, 2)
    torch.testing.assert_close(of_image, expected)


def test_layer_inputs_are_those_of_the_first_layer():
    net, x = Standardised(*mlp(1, 4, 1)), points(3, 1)
    torch.testing.assert_close(layer_inputs(net, x), (x - 0.3) / 0.2)
    assert torch.equal(layer_inputs(nn.Sequential(*net), x), x)
    assert layer_inputs(net.float(), x.requires_grad_()).dtype == torch.float64
    assert not net[0]._forward_pre_hooks


class Twice(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(-x)


X = points(3, 1)
UNFIT: dict[str, tuple[nn.Module, Tensor, tuple[Any, ...], str]] = {
    "inputs": (mlp(2, 4, 1), X, (), r"shapes \[\(3, 1\)\] for points of shape \(3, 1\)"),
    "twice": (Twice(*mlp(1, 4, 1)), X, (), r"shapes \[\(3, 1\), \(3, 1\)\]"),
    "flat": (mlp(1, 4, 1), X[:, 0], (), r"expected one of shape \(N, 1\)"),
    "weight_std": (mlp(1, 4, 1), X, ([1.0], 1.0), "weight_std has 1 entries"),
    "bias_std": (mlp(1, 4, 1), X, (1.0, [1.0, 1.0, 1.0]), "bias_std has 3 entries"),
    "too_wide": (mlp(1, 4, 1), points(4, 1), (100.0, 1.0), "Hermite polynomials leave"),
}


@pytest.mark.parametrize(("net", "x", "stds", "message"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_named(net: nn.Module, x: Tensor, stds: tuple[Any, ...], message: str):
    with pytest.raises(ValueError, match=message):
        distance_to_limit(net, x, *stds)


@pytest.mark.parametrize("n_out", [1, 2])
def test_distance_is_the_relative_frobenius_norm(n_out: int):
    net, x = mlp(2, 9, 8, n_out), points(6, 2)
    image = to_ntk_parametrization(net)
    kernel = empirical_ntk(image(x), image)["residual"]
    limit = torch.kron(LimitKernel(2, "tanh", *found_stds(net)).ntk(x), torch.eye(n_out).double())
    expected = float((kernel - limit).norm() / limit.norm())
    assert distance_to_limit(net, x) == pytest.approx(expected, rel=1e-10)
    assert expected > 0.05


def test_given_stds_are_used():
    net, x = ntk_mlp([1, 9, 1], weight_std=1.3, bias_std=0.2).double(), points(4, 1)
    assert distance_to_limit(net, x) == distance_to_limit(net, x, 1.3, 0.2)
    assert distance_to_limit(net, x, 1.0, 0.2) != distance_to_limit(net, x)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Softplus])
def test_distance_falls_with_the_width(activation: Callable[[], nn.Module]):
    def mean(width: int) -> float:
        nets = (mlp(2, width, width, 1, activation=activation) for _ in range(6))
        return sum(distance_to_limit(normal(net), points(8, 2)) for net in nets) / 6

    def normal(net: nn.Sequential) -> nn.Sequential:
        for layer in net[::2]:
            nn.init.normal_(layer.weight, std=1.2 / math.sqrt(layer.in_features))
            nn.init.normal_(layer.bias, std=0.5)
        return net

    narrow, wide = mean(32), mean(512)
    assert wide < 0.15
    assert 2 < narrow / wide < 8  # 4 for one over the root of the width


def test_during_training_the_limit_stays():
    net, x = mlp(1, 20, 20, 1), points(6, 1)
    distance = DistanceToLimit(net, x)
    start, limit = distance(net), distance.limit.clone()
    assert start == distance_to_limit(net, x)
    stds = distance.weight_std, distance.bias_std
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    end = distance(net)
    assert torch.equal(distance.limit, limit)
    assert end > 2 * start
    image = to_ntk_parametrization(net, *stds)
    of_image = empirical_ntk(image(x), image)["residual"]
    for kernel in (layer_kernel(find_plain(net), x, *stds)[0, :, 0], of_image):
        assert end == pytest.approx(float((kernel - limit).norm() / limit.norm()), rel=1e-10)


def test_biases_that_start_at_zero_and_move():
    net, x = mlp(1, 8, 1), points(4, 1)
    for layer in net[::2]:
        nn.init.zeros_(layer.bias)
    distance = DistanceToLimit(net, x)
    assert distance.bias_std == (0.0, 0.0)
    start = distance(net)
    nn.init.ones_(net[0].bias)
    assert distance(net) != start


def test_state_gives_the_same_distances():
    net, x = pinn(mlp(2, 8, 1)), points(5, 2)
    distance = DistanceToLimit(net, x)
    state = {name: value.clone() for name, value in distance.state_dict().items()}
    assert all(isinstance(value, Tensor) for value in state.values())
    other = DistanceToLimit.from_state_dict(state)
    nn.init.constant_(net["net"][0].bias, 0.7)
    assert other(net) == distance(net)
    fresh = DistanceToLimit(net, points(3, 2))
    fresh.load_state_dict(state)
    assert fresh(net) == distance(net)


def test_network_and_random_state_stay_as_they_are(dtype: torch.dtype):
    net = pinn(mlp(2, 8, 1)).to(dtype)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    assert 0 < distance_to_limit(net, points(5, 2).to(dtype)) < 3
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_weights_that_are_not_finite_give_no_number():
    net, x = mlp(1, 8, 1), points(4, 1)
    distance = DistanceToLimit(net, x)
    nn.init.constant_(net[2].weight, math.nan)
    assert math.isnan(distance(net))


def test_sixty_four_points_take_a_moment():
    net, x = ntk_mlp([2, 128, 128, 128, 1]), points(64, 2)
    DistanceToLimit(net, x)  # tables of quadrature
    start = time.process_time()
    distance = DistanceToLimit(net, x)
    made = time.process_time()
    distance(net)
    assert made - start < 1.0
    assert time.process_time() - made < 0.2


def test_inputs_of_the_first_layer_take_the_place_of_points():
    net, x = Standardised(*mlp(1, 6, 1)), 0.3 + 0.2 * points(5, 1)
    expected = DistanceToLimit(net, x, 1.2, 0.3)
    plain = find_plain(net)
    distance = DistanceToLimit.from_inputs(plain, (x - 0.3) / 0.2, 1.2, 0.3)
    assert distance(plain) == distance(net) == pytest.approx(expected(net), rel=1e-12)
    assert torch.equal(expected.points, distance.points)


def test_a_network_is_run_once_at_most():
    calls = []
    net = Standardised(*mlp(1, 6, 1, activation=lambda: Sine(2.0)))
    for part in net.modules():
        part.register_forward_hook(lambda part, *_: calls.append(part))
    distance = DistanceToLimit(net, 0.2 * points(5, 1))
    assert len(calls) == 4  # network, layer, activation, layer
    assert distance(net) > 0
    assert len(calls) == 4


def test_another_network_is_refused():
    distance = DistanceToLimit(mlp(1, 4, 1), points(4, 1))
    with pytest.raises(ValueError, match=r"weight_std has 2 entries.* for 3 linear"):
        distance(mlp(1, 4, 4, 1))
    with pytest.raises(ValueError, match=r"inputs have shape \(4, 1\); expected \(N, 2\)"):
        distance(mlp(2, 4, 1))
    assert distance(ntk_mlp([1, 7, 1])) > 0
