"""Activations of the limit kernels: their derivatives, and how they are recognised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor, nn

from pinn_ntk.limit.activations import Activation, activation
from tests.kernels import MPMATH
from tests.networks import Lambda, SlopedTanh

POINTS = [-8.0, -3.3, -1.0, -0.1, 0.0, 0.2, 0.9, 2.5, 6.0]
ORDERS = 14
"""What an operator of order 4 needs."""
KINDS = [nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Softplus, nn.Identity, nn.ReLU]
MODULES: dict[str, nn.Module] = {kind.__name__.lower(): kind() for kind in KINDS}


def by_taylor(function: Callable[[Any], Any], points: list[float], orders: int) -> Iterator[Any]:
    """Derivatives at the points, order by order, from 40 digits."""
    with mpmath.workdps(40):
        series = [mpmath.taylor(function, mpmath.mpf(point), orders - 1) for point in points]
        for k, coefficients in enumerate(zip(*series, strict=True)):
            yield [float(c * mpmath.factorial(k)) for c in coefficients]


@pytest.mark.parametrize("name", MPMATH)
def test_derivatives_are_those_of_40_digits(name: str):
    got = activation(name).derivatives(torch.tensor(POINTS, dtype=torch.float64), ORDERS)
    assert got.shape == (ORDERS, len(POINTS))
    for row, expected in zip(got, by_taylor(MPMATH[name], POINTS, ORDERS), strict=True):
        size = 1e-3 * float(row.abs().max())  # of the derivative near by
        assert row.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12 * size)


@pytest.mark.parametrize("orders", [1, 2, 3])
@pytest.mark.parametrize("name", MPMATH)
def test_as_many_derivatives_as_asked_for(name: str, orders: int):
    u = torch.randn(2, 3, dtype=torch.float64)
    few, many = (activation(name).derivatives(u, n) for n in (orders, 6))
    assert few.shape == (orders, 2, 3)
    torch.testing.assert_close(few, many[:orders], rtol=1e-15, atol=0)


@pytest.mark.parametrize("name", MODULES)
def test_value_is_that_of_the_module(name: str):
    u = torch.linspace(-15, 15, 61, dtype=torch.float64)
    known = activation(MODULES[name])
    assert known is activation(name)
    torch.testing.assert_close(known.derivatives(u, 1)[0], MODULES[name](u))


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "silu"])
def test_far_tails_are_finite(name: str):
    u = torch.tensor([-1e4, -800.0, 800.0, 1e4], dtype=torch.float64)
    values = activation(name).derivatives(u, 8)
    assert bool(torch.isfinite(values).all())
    assert float(values[2:].abs().max()) == 0.0


def test_names_functions_modules_and_classes_are_the_same_and_ones_own_is_itself():
    known = activation("tanh")
    for like in ("tanh", torch.tanh, nn.functional.tanh, nn.Tanh, nn.Tanh(), known):
        assert activation(like) is known
    assert activation(torch.erf) is activation(torch.special.erf) is activation("erf")
    assert activation(torch.sin) is activation("sin")
    assert activation(torch.relu) is activation(nn.functional.relu) is activation(nn.ReLU)
    own = Activation("bump", lambda u, orders: torch.stack([u, 1 - u**2][:orders]))
    assert activation(own) is own


def test_rectifiers_are_not_smooth():
    leaky = activation(nn.LeakyReLU(0.2))
    assert (leaky.smooth, leaky.slope, activation("relu").smooth) == (False, 0.2, False)
    u = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    expected = torch.tensor([[-0.4, 3.0], [0.2, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(leaky.derivatives(u, 2), expected)
    assert activation("relu").derivatives(u, 1).tolist() == [[-0.0, 3.0]]
    with pytest.raises(ValueError, match="no second derivative, asked for order 2"):
        leaky.derivatives(u, 3)


GENERIC: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "sine module": (Lambda(lambda u: torch.sin(3.0 * u)), lambda u: mpmath.sin(3 * u)),
    "function": (lambda u: torch.tanh(u) ** 2, lambda u: mpmath.tanh(u) ** 2),
    "mish": (nn.Mish(), lambda u: u * mpmath.tanh(mpmath.log(1 + mpmath.exp(u)))),
    "softplus of beta 2": (nn.Softplus(beta=2.0), lambda u: mpmath.log(1 + mpmath.exp(2 * u)) / 2),
    "polynomial": (lambda u: u**3 - u, lambda u: u**3 - u),
}


@pytest.mark.parametrize(("like", "function"), GENERIC.values(), ids=GENERIC)
def test_other_smooth_functions_are_differentiated(like: Any, function: Callable[[Any], Any]):
    points = [-1.3, 0.2, 0.9]
    with torch.no_grad():
        got = activation(like).derivatives(torch.tensor(points, dtype=torch.float64), 6)
    assert not got.requires_grad
    for row, expected in zip(got, by_taylor(function, points, 6), strict=True):
        assert row.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_a_copy_without_hooks_is_run_and_the_random_state_stays():
    class Counting(Lambda):
        calls = 0

        def forward(self, u: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(u)

    module, seen, state = Counting(lambda u: torch.sin(2.0 * u)), [], torch.get_rng_state()
    module.register_forward_hook(lambda *_: seen.append("forward"))
    u = torch.tensor([0.3], dtype=torch.float64)
    assert activation(module).derivatives(u, 2)[1].item() == pytest.approx(2 * math.cos(0.6))
    assert (module.calls, seen) == (0, [])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ("thanh", r"no activation is called 'thanh'; known are \['cos', 'erf'"),
        (nn.PReLU(), "PReLU.* has parameters"),
        (SlopedTanh(), "trained activations"),
        (nn.ELU(), "ELU.* is not a smooth elementwise function"),
        (nn.Hardtanh, "not a smooth elementwise"),
        (nn.Dropout(0.5), "not a smooth elementwise"),
        (nn.LayerNorm(3, elementwise_affine=False), "not a smooth elementwise"),
        (lambda u: torch.softmax(u, -1), "is not an elementwise function"),
        (lambda u: u.sum(), "is not an elementwise function"),
        (lambda u: u - u.mean(), "taken together and one by one"),
    ],
)
def test_what_has_no_limit_is_refused(like: Any, message: str):
    with pytest.raises(ValueError, match=message):
        activation(like)
