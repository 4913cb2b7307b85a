"""The row-by-row kernel against torch.func, hand computation and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from pinn_ntk import reference_ntk
from pinn_ntk.graph.reference import reference_jacobian
from tests.asserts import assert_near
from tests.cases import FORMS, coefficients
from tests.networks import NETWORKS
from tests.operators import OPERATORS, grad, points

WRONG_IN_TORCH = {
    "layer_norm": "torch's third derivative of layer_norm is wrong: pytorch issue 175754",
    "batch_norm": "torch's third derivative of batch_norm is wrong: pytorch issue 186256",
}


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def weights(*numbers: float) -> list[Tensor]:
    return [column(number).squeeze().requires_grad_() for number in numbers]


@pytest.fixture
def net() -> nn.Module:
    return NETWORKS["mlp"](2, 3)


def functional_jacobian(net: nn.Module, x: Tensor) -> Tensor:
    """Jacobian (N out_dim, P) of the network's values by torch.func."""
    theta = {name: p.detach() for name, p in net.named_parameters()}
    parts = jacrev(lambda t: functional_call(net, t, (x,)).flatten())(theta)
    return torch.cat([part.flatten(1) for part in parts.values()], dim=1)


def test_equals_torch_func_on_an_mlp(net: nn.Module):
    x, y = points(6, 2).detach(), points(4, 2, seed=1).detach()
    jacobians = {"a": functional_jacobian(net, x), "b": functional_jacobian(net, y)}
    kernel = reference_ntk({"a": net(x), "b": net(y)}, net)
    assert list(kernel) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    for (a, b), block in kernel.items():
        assert_near(block, jacobians[a] @ jacobians[b].T, 1e-14, f"K_{a}{b}")


def test_linear_model():
    x, y = column(-1.0, 0.5, 2.0), column(3.0, -2.0)
    a, b = weights(0.3, -0.7)
    kernel = reference_ntk({"x": a * x + b, "y": a * y + b}, [a, b])
    assert torch.equal(kernel["x", "x"], torch.outer(x, x) + 1)
    assert torch.equal(kernel["x", "y"], torch.outer(x, y) + 1)


def test_second_derivative_of_a_quadratic():
    """u = a x^2 + b x + c: du/dtheta = (x^2, x, 1) and du_xx/dtheta = (2, 0, 0)."""
    x = column(-1.0, 0.5, 2.0).requires_grad_()
    a, b, c = weights(0.3, -0.7, 1.1)
    u = a * x**2 + b * x + c
    kernel = reference_ntk({"u_xx": grad(grad(u, x), x), "u": u}, [a, b, c])
    z = x.detach()
    assert torch.equal(kernel["u_xx", "u_xx"], torch.full((3, 3), 4.0, dtype=torch.float64))
    assert torch.equal(kernel["u", "u_xx"], (2 * z**2)[:, None].expand(3, 3))
    expected = torch.outer(z**2, z**2) + torch.outer(z, z) + 1
    assert_near(kernel["u", "u"], expected, 1e-15, "K_uu")


def test_second_derivative_of_one_neuron():
    """u = c tanh(w x): with t = tanh(w x) and s = 1 - t^2, u_xx = -2 c w^2 t s."""
    x = column(-1.0, 0.5, 2.0).requires_grad_()
    c, w = weights(0.8, 1.3)
    u = c * torch.tanh(w * x)
    jacobian = reference_jacobian(grad(grad(u, x), x), [c, w])
    t = torch.tanh(w * x).detach()
    s, z, c, w = 1 - t**2, x.detach(), c.detach(), w.detach()
    by_c = -2 * w**2 * t * s
    by_w = -4 * c * w * t * s - 2 * c * w**2 * z * s * (1 - 3 * t**2)
    assert_near(jacobian, torch.stack([by_c, by_w], dim=1), 1e-14, "J of u_xx")


def assert_jacobian_is_derivative(residual: Callable[[], Tensor], params: list[Tensor]) -> None:
    """J d against the central difference along a random direction d of all parameters."""
    params = [p for p in params if p.requires_grad]
    generator = torch.Generator().manual_seed(5)
    step = [1e-5 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]
    predicted = reference_jacobian(residual(), params) @ torch.cat([s.flatten() for s in step])
    ends = []
    for sign in (1, -2):  # from theta to theta + d, then to theta - d
        with torch.no_grad():
            for p, s in zip(params, step, strict=True):
                p.add_(s, alpha=sign)
        ends.append(residual().detach().flatten())
    assert_near(predicted, (ends[0] - ends[1]) / 2, 1e-6, "J d against finite differences")


def wrong_in_torch(name: str) -> object:
    marks = [pytest.mark.xfail(reason=WRONG_IN_TORCH[name])] if name in WRONG_IN_TORCH else []
    return pytest.param("u_xx", name, marks=marks)


PAIRS = [("grad_u", name) for name in WRONG_IN_TORCH] + [(name, "mlp") for name in OPERATORS]
PAIRS += [wrong_in_torch(name) for name in NETWORKS if name != "mlp"]


@pytest.mark.parametrize(("name", "network"), PAIRS)
def test_every_network_and_operator_against_finite_differences(name: str, network: str):
    operator, trained = OPERATORS[name], coefficients(name)
    net, x = NETWORKS[network](operator.in_dim, operator.out_dim), points(6, operator.in_dim)
    params = [*net.parameters(), *trained.values()]
    assert_jacobian_is_derivative(lambda: operator.residual(net, x, **trained), params)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 6), (2, 3), (1, 2, 3)])
def test_rows_are_the_entries_in_row_major_order(shape: tuple[int, ...]):
    a, b = weights(0.3, -0.7)
    x = torch.arange(6, dtype=torch.float64)
    kernel = reference_ntk((a * x + b).reshape(shape), [a, b])
    assert torch.equal(kernel["residual", "residual"], torch.outer(x, x) + 1)


def test_scalar_and_empty_residuals_and_one_bare_tensor_as_params():
    w = column(3.0, 4.0).requires_grad_()
    assert reference_jacobian(w.prod(), w).tolist() == [[4.0, 3.0]]
    (a,) = weights(3.0)
    assert reference_jacobian(a**2, [a]).tolist() == [[6.0]]
    assert reference_jacobian((a * column(1.0, 2.0))[:0], [a]).shape == (0, 1)


def test_float32_network_gives_float64_kernel(net: nn.Module):
    x = points(4, 2).detach()
    expected = reference_ntk(net(x), net)["residual", "residual"]
    kernel = reference_ntk(net.float()(x.float()), net)["residual", "residual"]
    assert_near(kernel, expected, 1e-6, "float64 kernel of a float32 network")


WHOLE = ["module", "iterator", "pairs", "dict", "optimizer", "groups", "each_twice"]


@pytest.mark.parametrize("form", [FORMS[name][0] for name in WHOLE], ids=WHOLE)
def test_every_form_of_params(net: nn.Module, form: Callable[[nn.Module], object]):
    residual = net(points(3, 2))
    expected = reference_jacobian(residual, list(net.parameters()))
    assert torch.equal(reference_jacobian(residual, form(net)), expected)


def test_frozen_parameters_have_no_columns_and_unused_ones_zero_columns():
    a, b, unused = weights(0.3, -0.7, 9.0)
    residual = a * column(1.0, 2.0) + b
    b.requires_grad_(False)
    assert reference_jacobian(residual, [unused, a, b]).tolist() == [[0.0, 1.0], [0.0, 2.0]]


def test_graph_and_gradients_stay_as_they_are_and_errors_name_the_cause(net: nn.Module):
    residual = net(points(3, 2))
    reference_ntk(residual, net)
    assert all(p.grad is None for p in net.parameters())
    residual.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    with pytest.raises(ValueError, match=r"shape \(3, 3\) without a graph"):
        reference_jacobian(residual.detach(), net)
    with pytest.raises(ValueError, match="got 0 tensors"):
        reference_ntk(residual, iter(()))
    with pytest.raises(ValueError, match="got 8 tensors"):
        reference_ntk(residual, net.requires_grad_(False))
