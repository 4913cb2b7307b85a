"""The NTK parametrisation: what layers compute, how they start, and their kernels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import FactoredJacobian, NTKLinear, empirical_ntk, ntk_mlp, to_ntk_parametrization
from pinn_ntk import limit as package
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.limit.parametrization import effective, found_stds, linear_layers, one_per_layer
from tests.kernels import Standardised, gaussian, mlp
from tests.operators import grad
from tests.pinn import same

points, fresh = gaussian, partial(mlp, 2, 7, 5, 1)
RESIDUALS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "u": lambda network, x: network(x),
    "u_xx": lambda net, x: grad(grad(net(x := x.clone().requires_grad_()), x)[:, :1], x)[:, 0],
}


def test_layer_is_its_formula():
    layer, x = NTKLinear(3, 4, weight_std=1.7, bias_std=0.3).double(), points(5, 3)
    sums = (x[:, None] * layer.weight).sum(2)
    torch.testing.assert_close(layer(x), 1.7 / math.sqrt(3) * sums + 0.3 * layer.bias)


def test_layer_takes_any_leading_shape_and_either_dtype(dtype: torch.dtype):
    layer = NTKLinear(3, 4).to(dtype)
    x = points(6, 3, dtype=dtype)
    torch.testing.assert_close(layer(x.reshape(2, 3, 3)), layer(x).reshape(2, 3, 4))
    assert layer(x[0]).shape == (4,)
    assert layer(x).dtype == dtype


def test_parameters_start_standard_normal_and_without_memory_of_the_stds():
    layer = NTKLinear(400, 500, weight_std=3.0, bias_std=0.2)
    for sample in (layer.weight.detach(), layer.bias.detach()):
        assert float(sample.std()) == pytest.approx(1.0, abs=4 / math.sqrt(sample.numel()))
        assert abs(float(sample.mean())) < 4 / math.sqrt(sample.numel())
    kurtosis = float(layer.weight.detach().double().pow(4).mean())
    assert kurtosis == pytest.approx(3.0, abs=0.1)  # 1.8 if it were uniform


def test_without_bias_std_there_is_no_bias():
    layer = NTKLinear(2, 3, bias_std=0.0)
    assert layer.bias is None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    torch.testing.assert_close(layer(torch.zeros(1, 2)), torch.zeros(1, 3))


def test_state_dict_loads_what_it_saved_and_repr_says_the_stds():
    one, other = ntk_mlp([2, 5, 1]), ntk_mlp([2, 5, 1])
    other.load_state_dict(one.state_dict())
    x = points(4, 2, dtype=torch.float32)
    assert torch.equal(one(x), other(x))
    shown = "NTKLinear(in_features=2, out_features=3, weight_std=1.5, bias_std=0.1)"
    assert repr(NTKLinear(2, 3, 1.5, 0.1)) == shown


def test_mlp_has_the_stds_of_its_layers():
    network = ntk_mlp([2, 4, 4, 3], nn.SiLU, weight_std=[1.0, 1.5, 2.0], bias_std=0.1)
    assert [type(layer) for layer in network] == [NTKLinear, nn.SiLU] * 2 + [NTKLinear]
    layers = list(linear_layers(network).values())
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(2, 4), (4, 4), (4, 3)]
    assert [layer.weight_std for layer in layers] == [1.0, 1.5, 2.0]
    assert [layer.bias_std for layer in layers] == [0.1] * 3


def test_outputs_of_a_wide_mlp_have_the_variance_of_the_recursion():
    """E u^2 = sigma_w^2 q / 2 + sigma_b^2 with q = sigma_w^2 |x|^2 / n_in + sigma_b^2, of ReLU."""
    network = ntk_mlp([2, 512, 2000], nn.ReLU, weight_std=1.4, bias_std=0.5)
    mean_square = float(network(torch.tensor([[1.0, -2.0]])).detach().square().mean())
    q = 1.4**2 * 5 / 2 + 0.25
    assert mean_square == pytest.approx(1.4**2 * q / 2 + 0.25, rel=0.2)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("stds", [(None, None), (1.3, 0.4), ([0.5, 1.0, 2.0], [0.1, 0.2, 3.0])])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
def test_image_computes_the_same_function(residual: str, stds: tuple[Any, Any], bias: bool):
    network, x = fresh(bias=bias), points(6, 2)
    image = to_ntk_parametrization(network, *stds)
    values = RESIDUALS[residual](network, x)
    torch.testing.assert_close(RESIDUALS[residual](image, x), values, rtol=1e-12, atol=1e-13)


def part(jacobian: FactoredJacobian, name: str) -> Tensor:
    """K of one parameter: its factor alone."""
    rows = jacobian.factors[name].rows()
    return rows @ rows.mT


@pytest.mark.parametrize("residual", RESIDUALS)
def test_kernel_of_the_image_is_the_sum_of_scaled_parts(residual: str):
    """K_ntk = sum_l sigma_w^2 / n_in K_W + sigma_b^2 K_b."""
    network, x = fresh(), points(6, 2)
    weight_std, bias_std = [0.5, 1.0, 2.0], [0.1, 0.2, 3.0]
    image = to_ntk_parametrization(network, weight_std, bias_std)
    rows = RESIDUALS[residual](network, x)
    jacobian = empirical_ntk(rows, network).jacobian("residual")
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for name, w, b in zip("024", weight_std, bias_std, strict=True):
        n_in = network[int(name)].in_features
        expected += w**2 / n_in * part(jacobian, f"{name}.weight")
        if f"{name}.bias" in jacobian.factors:  # the last bias has no share in u_xx
            expected += b**2 * part(jacobian, f"{name}.bias")
    kernel = empirical_ntk(RESIDUALS[residual](image, x), image)
    torch.testing.assert_close(kernel["residual"], expected, rtol=1e-10, atol=1e-12)
    assert kernel.jacobian("residual").fallbacks == {}  # layers are read in factors


def test_found_stds_are_those_of_the_initialisation():
    network = fresh()
    for layer, w, b in zip(network[::2], (1.5, 1.0, 0.5), (0.3, 0.2, 0.1), strict=True):
        nn.init.constant_(layer.weight, -w / math.sqrt(layer.in_features))
        nn.init.constant_(layer.bias, b)
    weight_std, bias_std = found_stds(network)
    assert weight_std == pytest.approx((1.5, 1.0, 0.5))
    assert bias_std == pytest.approx((0.3, 0.2, 0.1))
    weight_std, bias_std = found_stds(nn.Sequential(nn.Linear(300, 400)))
    assert weight_std[0] == pytest.approx(1 / math.sqrt(3), rel=0.02)
    assert bias_std[0] == pytest.approx(1 / math.sqrt(3 * 300), rel=0.1)


def test_layers_that_have_the_parametrisation_keep_their_stds():
    network = ntk_mlp([2, 4, 1], weight_std=[1.5, 0.5], bias_std=[0.0, 0.1]).double()
    assert found_stds(network) == ((1.5, 0.5), (0.0, 0.1))
    image = to_ntk_parametrization(network)
    torch.testing.assert_close(image.state_dict(), network.state_dict())
    x = points(3, 2)
    other = to_ntk_parametrization(network, weight_std=2.0, bias_std=[0.3, 0.3])
    torch.testing.assert_close(other(x), network(x))
    assert other[0].bias is None


def test_effective_weight_is_that_of_the_standard_parametrisation():
    network, x = ntk_mlp([2, 4], weight_std=1.5, bias_std=0.2).double(), points(3, 2)
    weight, bias = effective(network[0])
    torch.testing.assert_close(x @ weight.mT + bias, network(x))


def test_subclass_keeps_its_forward():
    network, x = Standardised(*fresh()), points(4, 2)
    image = to_ntk_parametrization(network)
    assert type(image) is Standardised
    torch.testing.assert_close(image(x), network(x))


def test_image_is_a_copy_and_the_network_stays_as_it_is():
    network, state = fresh(), torch.get_rng_state()
    before = copy.deepcopy(network)
    image = to_ntk_parametrization(network)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in image.parameters():
            parameter.add_(1.0)
    assert same(network, before)
    assert [type(layer) for layer in network[::2]] == [nn.Linear] * 3


def test_image_keeps_what_is_trained_mode_and_dtype(dtype: torch.dtype):
    network = fresh().to(dtype).eval()
    network[0].weight.requires_grad_(False)
    network[2].bias.requires_grad_(False)
    image = to_ntk_parametrization(network)
    frozen = [name for name, p in image.named_parameters() if not p.requires_grad]
    assert frozen == ["0.weight", "2.bias"]
    assert all(parameter.dtype == dtype for parameter in image.parameters())
    assert not any(module.training for module in image.modules())


def zeroed(network: nn.Sequential, *names: str) -> nn.Sequential:
    for name in names:
        nn.init.zeros_(network.get_parameter(name))
    return network


def test_layers_and_biases_that_start_at_zero():
    network = zeroed(fresh(), "4.weight")
    image = to_ntk_parametrization(network, weight_std=1.0, bias_std=1.0)
    torch.testing.assert_close(image(points(4, 2)), network(points(4, 2)))
    network = zeroed(fresh(), "0.bias", "2.bias", "4.bias")
    image = to_ntk_parametrization(network)
    assert found_stds(network)[1] == (0.0, 0.0, 0.0)
    assert all(layer.bias is None for layer in image[::2])
    torch.testing.assert_close(image(points(4, 2)), network(points(4, 2)))


def test_biases_that_start_at_zero_are_kept_where_their_std_is_given():
    network, x = zeroed(fresh(), "0.bias", "2.bias", "4.bias"), points(4, 2)
    image = to_ntk_parametrization(network, bias_std=0.5)
    torch.testing.assert_close(image(x), network(x))
    assert [layer.bias.tolist() for layer in image[::2]] == [[0.0] * 7, [0.0] * 5, [0.0]]
    plain = to_ntk_parametrization(network)
    kernel, without = (empirical_ntk(net(x), net)["residual"] for net in (image, plain))
    # What the biases add: 0.5^2 times the inner products of the gradients by b.
    gradients = reference_jacobian(network(x), [layer.bias for layer in network[::2]])
    torch.testing.assert_close(kernel - without, 0.25 * gradients @ gradients.mT)


def test_an_activation_may_be_a_module_that_is_copied():
    network = ntk_mlp([1, 4, 4, 1], nn.Softplus(beta=2.0))
    assert [layer.beta for layer in network[1::2]] == [2.0, 2.0]
    assert network[1] is not network[3]


image = to_ntk_parametrization
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: NTKLinear(0, 3), "at least one input"),
    (lambda: NTKLinear(2, -1), "got 2 and -1"),
    (lambda: NTKLinear(2, 3, 0.0), "weight_std > 0"),
    (lambda: NTKLinear(2, 3, -1.0), "weight_std > 0"),
    (lambda: NTKLinear(2, 3, math.nan), "got nan"),
    (lambda: NTKLinear(2, 3, 1.0, -0.1), "bias_std >= 0"),
    (lambda: NTKLinear(2, 3, 1.0, math.inf), "both finite"),
    (lambda: ntk_mlp([]), "at least inputs and outputs"),
    (lambda: ntk_mlp([3]), "at least inputs and outputs"),
    (lambda: ntk_mlp([1, 4, 1], nn.Tanh, [1, 2, 3]), r"has 3 entries, \[1.0, 2.0, 3.0\], for 2"),
    (lambda: ntk_mlp([1, 4, 1], "tanh"), "expected a module or what makes one"),
    (lambda: ntk_mlp([1, 4, 1], lambda: torch.tanh), "expected a module or what makes one"),
    (lambda: one_per_layer([1.0], 2, "bias_std"), "bias_std has 1 entries"),
    (lambda: image(nn.Sequential(nn.Tanh())), "at least one linear layer"),
    (lambda: image(nn.Sequential(nn.Linear(1, 2), nn.PReLU())), "'1' is a PReLU with param"),
    (lambda: image(nn.Sequential(nn.Sequential(nn.Linear(1, 2)))), "'0' is a Sequential"),
    (lambda: image(nn.Sequential(layer := nn.Linear(2, 2), nn.Tanh(), layer)), "share parameters"),
    (lambda: image(zeroed(fresh(), "4.weight")), "starts at zero has no limit kernel"),
    (lambda: image(fresh(), 1.0, 0.0), "layer '0' has a bias of norm .* which bias_std = 0 cannot"),
    (lambda: image(fresh(), [1.0, 2.0], 1.0), "weight_std has 2 entries"),
    (lambda: image(fresh(), 1.0, [1.0]), "bias_std has 1 entries"),
    (lambda: image(fresh(), -1.0, 1.0), "weight_std > 0"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED)
def test_what_is_impossible_is_refused(build: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_misspelt_name_of_the_package_is_told():
    with pytest.raises(AttributeError, match=r"no attribute 'LimitKernels'; it has \['Distance"):
        _ = package.LimitKernels
