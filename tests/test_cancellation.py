"""Rows whose terms cancel, as finite differences have them: K keeps the digits that J has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from pinn_ntk import FactoredJacobian, empirical_ntk, reference_ntk
from pinn_ntk.graph.jacobian.certificate import Probe, backward_probe, rounding_seen
from pinn_ntk.kernel.factors import Factor, Outer
from pinn_ntk.kernel.parts import Part, Parts
from pinn_ntk.kernel.scaled import Scaled, Site
from tests.asserts import assert_near
from tests.networks import stack

R, M, N = 7, 3, 4

pytestmark = pytest.mark.usefixtures("float64")


def factors(size: float) -> tuple[Outer, Outer]:
    """One site and the same but for a small change, with the sign turned; both ``size`` large."""
    left, right, small = torch.randn(R, M), torch.randn(R, N), torch.randn(R, N)
    return Outer((size * left,), (right,)), Outer((-size * left,), (right + small / size,))


def one_factor(size: float) -> Outer:
    first, second = factors(size)
    return Outer(first.left + second.left, first.right + second.right)


def two_parts(size: float) -> Parts:
    every = torch.arange(R)
    return Parts(tuple(Part(factor, every) for factor in factors(size)), R)


def scaled_parts(size: float) -> Parts:
    every, scale = torch.arange(R), torch.full((R,), size)
    first, second = factors(1.0)
    second = Outer(second.left, (first.right[0] + torch.randn(R, N) / size,))
    return Parts((Part(first, every, None, scale), Part(second, every, every, scale)), R)


def one_scaled(size: float) -> Scaled:
    """The same with sites that have a fixed matrix, as of a normalised weight."""
    left, matrix = torch.randn(R, M), torch.randn(M, N)
    first = Site(size * left, None, matrix)
    return Scaled((first, Site(-size * left, None, matrix + torch.randn(M, N) / size)), (M, N))


MADE: dict[str, Callable[[float], Factor | Parts]] = {
    "sites": one_factor,
    "parts": two_parts,
    "scaled_parts": scaled_parts,
    "fixed_matrices": one_scaled,
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("size", [1.0, 1e2, 1e5])
@pytest.mark.parametrize("budget", [2**20, 1])
def test_rows_are_written_out_before_their_terms_are_multiplied(make, size: float, budget: int):
    torch.manual_seed(0)
    factor, other = make(size), Outer((torch.randn(R, M),), (torch.randn(R, N),))
    one, two = (
        FactoredJacobian({"w": f}, {"w": M * N}, R, memory_budget=budget) for f in (factor, other)
    )
    J = one.dense()
    assert_near(one.gram(), J @ J.mT, 1e-13, "K")
    assert_near(one.gram(two), J @ two.dense().mT, 1e-13, "K_ab")
    assert_near(two.gram(one), two.dense() @ J.mT, 1e-13, "K_ba")
    assert_near(one.diagonal(), J.square().sum(1), 1e-13, "diagonal")
    assert one.squared_norms()["w"] == pytest.approx(float(J.square().sum()), rel=1e-13)


def plain() -> nn.Module:
    return stack([1, 20, 20, 1])


def normalised() -> nn.Module:
    net = plain()
    weight_norm(net[2])
    return net


def by_calls(net: nn.Module, x: Tensor, h: float) -> Tensor:
    return (net(x + h) - 2 * net(x) + net(x - h)) / h**2


def by_stencil(net: nn.Module, x: Tensor, h: float) -> Tensor:
    u = net(x[0] + h * torch.arange(len(x), dtype=x.dtype)[:, None])
    return (u[2:] - 2 * u[1:-1] + u[:-2]) / h**2


@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
@pytest.mark.parametrize("make", [plain, normalised])
@pytest.mark.parametrize("residual", [by_calls, by_stencil])
@pytest.mark.parametrize(("h", "tol"), [(1e-1, 1e-13), (1e-2, 1e-11), (1e-3, 1e-9)])
def test_finite_differences(make, residual, h: float, tol: float):
    """Rounding in u alone costs eps / h^2; products of the terms would cost eps / h^4."""
    net, x = make(), torch.linspace(-1, 1, 9)[:, None]
    live = residual(net, x, h)
    truth = reference_ntk({"r": live}, net)["r", "r"]
    kernel = empirical_ntk(live, net, certify=False)
    assert_near(kernel.diagonal("residual"), truth.diagonal(), tol, "diagonal")
    assert_near(kernel["residual"], truth, tol, "K")


@pytest.mark.filterwarnings("error::pinn_ntk.NTKWarning")
@pytest.mark.parametrize("make", [plain, normalised])
@pytest.mark.parametrize("residual", [by_calls, by_stencil])
@pytest.mark.parametrize(
    ("dtype", "h", "tol"),
    [
        *((torch.float64, 1e-1, 1e-12), (torch.float64, 1e-2, 1e-10), (torch.float64, 1e-3, 1e-8)),
        *((torch.float32, 1e-1, 1e-4), (torch.float32, 3e-2, 1e-3)),
    ],
)
def test_rounding_of_finite_differences_is_no_failure(make, residual, dtype, h: float, tol: float):
    """A backward pass rounds them as much as the factors do."""
    torch.manual_seed(0)
    net, x = make().to(dtype), torch.linspace(-1, 1, 60, dtype=dtype)[:, None]
    live = residual(net, x, h)
    kernel = empirical_ntk(live, net, max_rows=8)
    assert kernel.jacobian("residual").fallbacks == {}
    assert kernel.sampled_terms == ()
    truth = reference_ntk({"r": live}, net)["r", "r"]
    assert_near(kernel["residual"], truth, tol, "K")


def test_an_error_beyond_rounding_is_one():
    exact = {"w": torch.ones(4), "b": torch.ones(1)}
    for off, seen, found in [(1e-3, 0.0, ["w"]), (1e-3, 1e-4, []), (1e-1, 1e-4, ["w"])]:
        probe = Probe(exact, {"w": (1 + off) * torch.ones(4), "b": torch.ones(1)})
        assert list(probe.failed(1e-4, 0.0, seen)) == found
    assert list(Probe(exact, {"w": 1.2 * torch.ones(4)}).failed(1e-4, 0.0, 1e9)) == ["w", "b"]


def test_a_pass_that_does_not_round_shows_no_rounding():
    w = torch.ones(4, requires_grad=True)
    leaves, residual = {"w": w}, torch.eye(4) @ w
    assert rounding_seen(residual, leaves, backward_probe(residual, leaves)) < 1e-15
