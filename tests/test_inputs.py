"""Fingerprints of points: equal while the points stay, another once they change, and no sooner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, hessian, jvp, vmap
from torch.utils.checkpoint import checkpoint

from pinn_ntk.graph.jacobian.inputs import fingerprint
from tests.networks import NETWORKS
from tests.operators import grad as slope

Residual = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """Everything that the residuals below are made with; `features` is no parameter."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.Tanh, dropout: float = 0.0) -> None:
        super().__init__()
        drop = nn.Dropout(dropout)
        hidden = [nn.Linear(2, 5), activation(), drop, nn.Linear(5, 5), activation(), drop]
        self.body = nn.Sequential(*hidden, nn.Linear(5, 1))
        self.other = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
        self.nu = nn.Parameter(torch.tensor(0.7))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.register_buffer("features", torch.linspace(-2, 2, 6).reshape(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def live(x: Tensor) -> Tensor:
    return x.clone().requires_grad_()


def operator_of(net: nn.Module, x: Tensor) -> Tensor:
    """u_x + u_yy by two sweeps."""
    x = live(x)
    first = slope(net(x), x, "ones_like")
    return first[:, :1] + slope(first[:, 1], x)[:, 1:]


def with_derivatives(u: Residual) -> Residual:
    return lambda net, x: operator_of(lambda points: u(net, points), x)


def standardised(net: Net, x: Tensor) -> Tensor:
    return net((x - 0.5) / 0.3)


def constrained(net: Net, x: Tensor) -> Tensor:
    return (x * (1 - x)).prod(1, keepdim=True) * net(x)


def fourier(net: Net, x: Tensor) -> Tensor:
    phase = x @ net.features
    return net.other(torch.cat([phase.sin(), phase.cos()], 1))


def one_coordinate_live(net: Net, x: Tensor) -> Tensor:
    t = live(x[:, :1])
    return slope(net(torch.cat([t, x[:, 1:]], 1)), t)


def inner_product(net: Net, x: Tensor) -> Tensor:
    """Branch and trunk: only the trunk's points are live."""
    trunk = live(torch.linspace(0, 1, len(x)).to(x)[:, None].expand(-1, 2))
    return slope((net.body[:2](x) * net.body[:2](trunk)).sum(1, keepdim=True), trunk)


def slope_of_relu_output(net: Net, x: Tensor) -> Tensor:
    x = live(x)
    return slope(net(x).relu(), x)


RESIDUALS: dict[str, Residual] = {
    "plain": lambda net, x: net(x) - 1,
    "standardised": standardised,
    "operator": lambda net, x: net.nu * operator_of(net, x),
    "operator_standardised": with_derivatives(standardised),
    "hard_constraint": with_derivatives(constrained),
    "constraint_without_gradient": constrained,
    "fourier": fourier,
    "fourier_operator": with_derivatives(fourier),
    "one_coordinate_live": one_coordinate_live,
    "two_networks": lambda net, x: net(x.flip(1)) * fourier(net, x),
    "inner_product": inner_product,
    "slope_of_relu_output": slope_of_relu_output,
    "on_an_axis_of_its_own": lambda net, x: net(x.reshape(2, -1, 2)),
    "scaled_parameter": lambda net, x: net.nu * x - 1,
}
operator = RESIDUALS["operator"]


def trained(net: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def step(net: nn.Module, seed: int) -> None:
    """Change every parameter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained(net).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)


def points(dtype: torch.dtype, seed: int = 3) -> Tensor:
    return torch.rand(8, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("residual", RESIDUALS.values(), ids=RESIDUALS)
def test_it_follows_the_points_and_nothing_else(residual: Residual, dtype: torch.dtype):
    net, x = Net().to(dtype), points(dtype)
    first = fingerprint(residual(net, x), trained(net))
    assert first is not None
    for seed in range(4):
        step(net, seed)
        assert fingerprint(residual(net, x.clone()), trained(net)) == first
    assert fingerprint(residual(net, points(dtype, seed=4)), trained(net)) != first
    one_entry = x.clone()
    one_entry[5, 1] += 1e-3
    assert fingerprint(residual(net, one_entry), trained(net)) != first
    assert fingerprint(residual(net, x[:6]), trained(net)) != first


def assert_follows(residual: Callable[[Tensor], Tensor], net: nn.Module) -> None:
    x = points(torch.float32)
    first = fingerprint(residual(x), trained(net))
    step(net, 0)
    assert fingerprint(residual(x.clone()), trained(net)) == first is not None
    assert fingerprint(residual(points(torch.float32, 4)), trained(net)) != first


ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.GELU]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.__name__)
def test_slopes_of_activations_are_no_points(activation: Callable[[], nn.Module]):
    net, x = Net(activation), points(torch.float64).float()
    prints = set()
    for seed in range(7):
        prints |= {fingerprint(r(net, x), trained(net)) for r in (operator, slope_of_relu_output)}
        assert len(prints) == 1
        step(net, seed)


@pytest.mark.parametrize("name", ["plain", "operator", "hard_constraint", "inner_product"])
def test_masks_of_dropout_are_no_points(name: str):
    net, x = Net(dropout=0.5), points(torch.float32)
    outputs = [RESIDUALS[name](net, x) for _ in range(5)]
    prints = {fingerprint(output, trained(net)) for output in outputs}
    if name != "inner_product":  # which holds no dropout
        assert not torch.equal(outputs[0], outputs[1])
    assert len(prints) == 1
    assert fingerprint(RESIDUALS[name](net, points(torch.float32, 4)), trained(net)) not in prints


def test_points_of_two_values_are_told_from_others():
    net, x = Net(), torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    first = fingerprint(net(x), trained(net))
    step(net, 0)
    assert fingerprint(net(x), trained(net)) == first
    assert fingerprint(net(x.flip(0)), trained(net)) != first


def test_targets_are_no_points_but_dtype_and_order_of_the_rows_count():
    net, x, wide = Net(), points(torch.float32), Net().double()
    (ours,) = {fingerprint(net(x) - torch.randn(8, 1), trained(net)) for _ in range(3)}
    assert ours == fingerprint(net(x), trained(net)) != fingerprint(net(x.flip(0)), trained(net))
    assert ours != fingerprint(wide(x.double()), trained(wide))


def test_neither_autocast_nor_statistics_of_a_layer_norm_are_points():
    net = Net()
    with torch.autocast("cpu", torch.bfloat16):
        assert_follows(net, net)
    net = NETWORKS["layer_norm"](2, 1).float()
    assert_follows(lambda x: operator_of(net, x), net)


def test_complex_points():
    w = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    x = torch.tensor([[1 + 2j, 0.5j]])
    first = fingerprint((x @ w[:, None]).real, {"w": w})
    assert first == fingerprint((x @ w[:, None]).imag, {"w": w})
    assert first != fingerprint((x.conj() @ w[:, None]).real, {"w": w})


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]] = {
    "vmap": vmap,
    "gradient": lambda u: vmap(grad(u)),
    "laplacian": lambda u: vmap(lambda y: hessian(u)(y).diagonal().sum()),
    "directional": lambda u: lambda x: jvp(vmap(u), (x,), (torch.ones_like(x),))[1],
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_residuals_made_with_torch_func(transform: Callable[..., Any]):
    net = Net()
    assert_follows(transform(lambda y: net(y).squeeze()), net)


def test_negated_and_expanded_views_and_checkpoints():
    net, x = Net(), points(torch.float32)
    negated = torch.complex(x, -x).conj().imag  # x, by a flag on -x
    assert negated.is_neg()
    first = fingerprint(net(x), trained(net))
    assert fingerprint(net(negated), trained(net)) == first
    assert fingerprint(checkpoint(net, x, use_reentrant=False), trained(net)) == first
    x = torch.rand(1, 1).expand(1, 2)  # one point
    assert fingerprint(net(x), trained(net)) == fingerprint(net(x.clone()), trained(net))


NOTHING: Mapping[str, Residual] = {
    "points_enter_by_a_sum_without_gradient": lambda net, x: (x[:, :1] + net.nu).sin(),
    "parameters_alone": lambda net, x: net.nu * 2,
    "a_parameter_itself": lambda net, x: net.nu,
    "mask_on_activations": lambda net, x: (net.nu + x[:, :1]).tanh() * (x[:, :1] > 0.5),
}


@pytest.mark.parametrize("residual", NOTHING.values(), ids=NOTHING)
def test_none_where_no_inputs_are_found(residual: Residual):
    net = Net()
    assert fingerprint(residual(net, points(torch.float32)), trained(net)) is None


@pytest.mark.parametrize("pattern", ["body.0", "body.6", "nu", "nothing"])
def test_parameters_that_the_kernel_leaves_out_are_no_points(pattern: str):
    net, x = Net(), points(torch.float32)
    some = {name: p for name, p in trained(net).items() if name.startswith(pattern)}
    first = fingerprint(operator(net, x), some)
    assert first == fingerprint(operator(net, x), trained(net))
    step(net, 0)
    assert fingerprint(operator(net, x), some) == first
    assert fingerprint(operator(net, points(torch.float32, 4)), some) != first


def test_trained_tensors_that_are_no_parameters_are_told_by_params():
    net, x = Net(), points(torch.float32)
    coefficient = torch.tensor(1.0, requires_grad=True)
    params = trained(net) | {"coefficient": coefficient}
    first = fingerprint(coefficient * net(x), params)
    with torch.no_grad():
        coefficient += 1
    assert fingerprint(coefficient * net(x), params) == first == fingerprint(net(x), params)


def test_nothing_is_left_behind_and_a_freed_graph_says_so():
    net, x = Net(), points(torch.float32)
    residual = operator(net, x)
    state = torch.get_rng_state()
    fingerprint(residual, trained(net))
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in net.parameters())
    residual.sum().backward()  # the graph is alive
    with pytest.raises(RuntimeError, match="second time"):
        fingerprint(residual, trained(net))
