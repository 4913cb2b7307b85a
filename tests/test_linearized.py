"""The linearised model: against J written out, in its derivatives, and along a training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import LinearizedModel, LinearizedTraining, empirical_ntk
from pinn_ntk.analysis.linearized import laziness, linearized_residuals
from pinn_ntk.graph.reference import reference_jacobian
from tests.asserts import assert_all_near, assert_near
from tests.networks import Lambda, stack
from tests.operators import grad, laplacian

pytestmark = pytest.mark.usefixtures("float64")


def network(n_in: int = 1, n_out: int = 1) -> nn.Sequential:
    return stack([n_in, 8, 8, n_out])


@torch.no_grad()
def move(model: nn.Module, size: float = 0.1) -> None:
    for p in model.parameters():
        if p.requires_grad:
            p.add_(size * torch.randn_like(p))


def u_xx(function, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return laplacian(function(x), x)


def flat(displacement: dict[str, Tensor]) -> Tensor:
    return nn.utils.parameters_to_vector(displacement.values()).detach()


class Slope(nn.Module):
    """Differentiates in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.unused = network(), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return grad(self.net(x), x)


def tied() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    return model


def output(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


EXPANDED = {
    "one_output": (lambda: network(2, 1), (6, 2), output, 1e-13),
    "three_outputs": (lambda: network(2, 3), (6, 2), output, 1e-13),
    "pde_residual": (network, (5, 1), u_xx, 1e-12),
    "tied_weights": (tied, (3, 4), output, 1e-13),
    "derivative_in_forward": (Slope, (4, 1), output, 1e-12),
}


@pytest.mark.parametrize("case", EXPANDED)
def test_values_are_those_of_the_start_plus_jacobian_times_displacement(case: str):
    build, shape, value, tol = EXPANDED[case]
    model, x = build(), torch.randn(shape)
    linearized, start = LinearizedModel(model), value(model, x)
    jacobian = reference_jacobian(start, model)
    assert case != "tied_weights" or list(linearized.start) == ["0.weight"]
    move(model)
    found, moved = value(linearized, x).detach(), flat(linearized.displacement())
    assert found.shape == start.shape
    assert_near(found.flatten(), start.detach().flatten() + jacobian @ moved, tol, case)
    if value is output:
        assert_near(linearized.at_start(x).detach(), start.detach(), 1e-15, "f_0")
    assert not torch.allclose(value(model, x), found, rtol=1e-3)


def test_parameters_are_taken_from_a_dict():
    model, x = network(), torch.randn(4, 1)
    linearized = LinearizedModel(model)
    here = {name: p + 0.3 for name, p in linearized.start.items()}
    elsewhere = linearized(x, parameters=here)
    assert_near(linearized(x).detach(), model(x).detach(), 1e-15, "at the start")
    model.load_state_dict(here)
    assert_near(linearized(x).detach(), elsewhere.detach(), 1e-14, "live")


def test_kernel_of_the_linearised_model_stands_still():
    model, x = network(), torch.randn(5, 1)
    linearized = LinearizedModel(model)
    before = empirical_ntk(model(x), model)["residual"]
    move(model, 1.0)
    jacobian = reference_jacobian(linearized(x), model)
    assert_near(jacobian @ jacobian.mT, before, 1e-12, "kernel of f_lin")


def test_training_it_is_linearised_training():
    model, x, y = network(), torch.randn(6, 1), torch.randn(6, 1)
    linearized, start = LinearizedModel(model), model(x) - y
    residuals = {"data": start}
    training = LinearizedTraining(empirical_ntk(residuals, model), residuals, {"data": 2 / 6})
    lr = 0.5 * training.max_stable_lr(0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        (linearized(x) - y).square().mean().backward()
        optimizer.step()
    found = training.descent(30, lr, 0.9)["data"]
    assert_near(found, (linearized(x) - y).detach().flatten(), 1e-10, "residual")


def test_distance_is_second_order_in_the_displacement_and_none_of_a_linear_model():
    model, x = network(), torch.randn(9, 1)
    linearized = LinearizedModel(model)
    direction = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    assert math.isnan(linearized.distance(x))
    distances = []
    for size in (1e-2, 1e-3):
        model.load_state_dict({n: p + size * direction[n] for n, p in linearized.start.items()})
        distances.append(linearized.distance(x))
        f, f_lin = model(x).detach(), linearized(x).detach()
        f_0 = linearized.at_start(x).detach()
        assert distances[-1] == pytest.approx(float((f - f_lin).norm() / (f - f_0).norm()))
    assert distances[0] / distances[1] == pytest.approx(10, rel=0.05)
    linear = nn.Linear(3, 2)
    linearized = LinearizedModel(linear)
    move(linear, 10.0)
    assert linearized.distance(torch.randn(4, 3)) < 1e-15


def test_frozen_parameters_and_buffers_stay_those_of_the_start():
    model = nn.Sequential(nn.Linear(1, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))
    model(torch.randn(20, 1))  # statistics that are not those at birth
    model.eval()
    model[0].weight.requires_grad_(False)
    linearized, x = LinearizedModel(model), torch.randn(6, 1)
    assert "0.weight" not in linearized.start
    start, jacobian = model(x).detach(), reference_jacobian(model(x), model)
    move(model)
    expected = start.flatten() + jacobian @ flat(linearized.displacement())
    with torch.no_grad():
        model[0].weight += 1.0
        model[1].running_mean += 1.0
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert_near(linearized(x).detach().flatten(), expected, 1e-13, "f_lin")
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


class TwoNames(nn.Module):
    """A layer registered under two names, as often in PINN code, beside weights that are tied."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        net = stack([1, 4, 4, 4, 1])
        self.layers = nn.ModuleList(net[::2])
        if tied:
            self.layers[2].weight = self.layers[1].weight
        self.net = net
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("same_scale", self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.same_scale * self.net(self.scale * x)


def tensors_of(model: nn.Module) -> list[int]:
    return [id(tensor) for tensor in model.state_dict(keep_vars=True).values()]


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
def test_a_layer_under_two_names_stays_in_the_model(tied: bool):
    model, x = TwoNames(tied), torch.randn(5, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    linearized, start = LinearizedModel(model), model(x).detach()
    jacobian = reference_jacobian(model(x), model)
    held = tensors_of(model)
    for _ in range(3):
        optimizer.zero_grad()
        linearized(x).square().mean().backward()
        optimizer.step()
        linearized.distance(x)
    assert tensors_of(model) == held
    moved = flat(linearized.displacement())
    assert float(moved.norm()) > 0.01
    expected = start.flatten() + jacobian @ moved
    assert_near(linearized(x).detach().flatten(), expected, 1e-13, "f_lin")
    assert_near(linearized.at_start(x).detach(), start, 1e-15, "f_0")


def test_a_forward_that_fails_leaves_the_model_as_it_was():
    model = TwoNames(tied=True)
    held = tensors_of(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        LinearizedModel(model)(torch.randn(5, 3))
    assert tensors_of(model) == held


@pytest.mark.parametrize("call", ["__call__", "at_start", "distance"])
def test_outputs_that_are_no_tensor_are_refused(call: str):
    both = nn.Sequential(network(), Lambda(lambda u: (u, u)))
    with pytest.raises(TypeError, match="returns tuple; expected one tensor"):
        getattr(LinearizedModel(both), call)(torch.randn(3, 1))


def test_several_inputs_and_no_trace_in_the_random_state():
    class Pair(nn.Sequential):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(torch.cat([x, t], 1))

    model, x, t = Pair(*network(2)), torch.randn(4, 1), torch.randn(4, 1)
    linearized, state = LinearizedModel(model), torch.get_rng_state()
    assert_near(linearized(x, t).detach(), model(x, t).detach(), 1e-15, "f_lin")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_residuals_of_several_terms_by_the_jacobians():
    model, x = network(), torch.randn(5, 1)
    residuals = {"pde": u_xx(model, x), "bc": model(x[:2])}
    kernel = empirical_ntk(residuals, model)
    jacobians = {t: reference_jacobian(r, model) for t, r in residuals.items()}
    linearized = LinearizedModel(model)
    move(model)
    moved = linearized.displacement()
    expected = {t: r.flatten() + jacobians[t] @ flat(moved) for t, r in residuals.items()}
    assert_all_near(linearized_residuals(kernel, residuals, moved), expected, 1e-12)
    only = linearized_residuals(kernel, residuals, {"0.weight": moved["0.weight"]})
    part = moved["0.weight"].detach().flatten()
    expected = residuals["bc"].detach().flatten() + jacobians["bc"][:, : len(part)] @ part
    assert_near(only["bc"], expected, 1e-12, "bc")


def test_nothing_is_recorded_where_gradients_are_off():
    model, x = network(), torch.randn(4, 1)
    linearized = LinearizedModel(model)
    move(model)
    with torch.no_grad():
        off = linearized(x)
    assert not off.requires_grad
    assert torch.equal(off, linearized(x).detach())


def test_output_without_parameters_stays():
    class Constant(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x**2

    model = Constant(1, 1)
    linearized = LinearizedModel(model)
    move(model)
    for x in (torch.randn(3, 1), torch.randn(3, 1, requires_grad=True)):
        assert torch.equal(linearized(x), x**2)


def test_names_and_sizes_have_to_agree():
    model, x = network(), torch.randn(5, 1)
    r = model(x)
    moved = LinearizedModel(model).displacement()
    with pytest.raises(ValueError, match=r"no parameter '0.weight' with 8 entries"):
        linearized_residuals(empirical_ntk(r, model.parameters()), {"residual": r}, moved)
    with pytest.raises(ValueError, match="expected 5 entries"):
        linearized_residuals(empirical_ntk(r, model), {"residual": r[:3]}, moved)


def test_a_model_that_was_changed_is_refused():
    model = network()
    linearized = LinearizedModel(model)
    model[4] = nn.Linear(8, 2)
    with pytest.raises(ValueError, match=r"differ from those at the start in \['4.bias', '4.w"):
        linearized(torch.randn(3, 1))
    with pytest.raises(ValueError, match="differ from those at the start"):
        linearized(torch.randn(3, 1), parameters={"0.weight": torch.ones(8, 1)})


def test_a_frozen_model_and_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        LinearizedModel(network().requires_grad_(False))
    with pytest.raises(ValueError, match="one shape"):
        laziness(torch.ones(3, 1), torch.ones(3), torch.ones(3))
