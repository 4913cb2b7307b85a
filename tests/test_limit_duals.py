"""Gaussian expectations of activations: 30 digits, direct quadrature, identities, closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from pinn_ntk.limit.activations import Activation, activation
from pinn_ntk.limit.closed_forms import ClosedDual, dual
from pinn_ntk.limit.duals import HermiteDual, correlation
from tests.kernels import MPMATH

TABLE = """
tanh 0.01 1 0.02 00 0.013735686949117141 11 0.97149751552594527 24 -0.3720505490653141
tanh 0.01 1 0.02 55 205.6951481602807 31 -1.8889701401073103
tanh 1.0 1 1.0 00 0.39429449039784117 11 0.46440290244826824 24 -1.0956363742500271
tanh 1.0 1 1.0 55 55.116247201569687 31 -0.47850008689025537
tanh 4.0 1 0.5 00 0.40424299479225326 11 0.34021439549600393 24 -1.0523389475713848
tanh 4.0 1 0.5 55 13.955713788434117 31 -0.1228830647067992
tanh 25.0 1 25.0 00 0.84296175956254369 11 0.10570632805654645 22 0.083730140906293395
tanh 25.0 1 25.0 55 12.312533374836922 15 0.24764884836488497
sigmoid 2.0 1 1.0 00 0.30435488978631399 12 -9.6718786815710204e-40 44 0.0072150825635887836
sigmoid 2.0 -1 1.0 00 0.19564511021368601 12 2.325010962962437e-40 44 -0.0072150825635887836
silu 2.0 1 1.0 00 0.53105915919465143 12 0.17542272216227744 44 0.078141086093783356
silu 2.0 -1 1.0 00 -0.1760476219918961 12 0.17542272216227744 44 0.078141086093783356
gelu 2.0 1 1.0 00 0.62471411583141287 12 0.21157109383040861 44 0.70998025394900185
gelu 2.0 -1 1.0 00 -0.082392665355134652 12 0.21157109383040861 44 0.70998025394900185
softplus 2.0 1 1.0 00 1.1191160095370123 12 0.10331048207095352 44 0.0056722802248925015
softplus 2.0 -1 1.0 00 0.41200922835046479 12 0.10331048207095352 44 0.0056722802248925015
tanh 0.01 0.3 0.02 00 0.0041202473154547872 11 0.97117298360219122 24 -0.11122046766352956
tanh 0.01 0.3 0.02 55 201.18171595027973 31 -1.8864813793028363
tanh 0.01 -0.8 0.02 00 -0.010988065432714164 11 0.97136906283904531 24 0.29722311806669087
tanh 0.01 -0.8 0.02 55 203.89826704622712 31 -1.8879845076898299
tanh 1.0 0.3 1.0 00 0.11066838554744633 11 0.37299191234191517 24 -0.082126808568896563
tanh 1.0 0.3 1.0 55 0.73562211989437579 31 -0.23198351365292746
tanh 1.0 -0.8 1.0 00 -0.3063267363835003 11 0.4196462282243433 24 0.44296910841493498
tanh 1.0 -0.8 1.0 55 7.9927560543353748 31 -0.33892148312777719
tanh 4.0 0.3 0.5 00 0.11304042674297933 11 0.26953208482814303 24 -0.06817106620742804
tanh 4.0 0.3 0.5 55 0.14749104667215522 31 -0.058737933494007981
tanh 4.0 -0.8 0.5 00 -0.31348090311084008 11 0.30516158388803145
tanh 1.0 0.999999999999 1.0 11 0.46440290244796804 55 55.116247200820166
gelu 2.0 0.6 1.0 44 0.138863689600264
silu 2.0 0.6 1.0 12 0.17542272216227744
softplus 2.0 0.6 1.0 00 0.95329329745709559
sigmoid 2.0 0.6 1.0 44 0.0022075816511348421
tanh 4.0 0.999999999999 2.0 22 0.20765335747085164
"""
"""name q rho q', then i j and E_ij; rho and E_ij to 17 digits. tanh is odd: rho = -1 is in it."""


def references() -> Iterator[tuple[str, int, int, float, str, float, str]]:
    """(name, i, j, q, rho, q', E_ij)."""
    for name, q, rho, other, *entries in map(str.split, TABLE.strip().splitlines()):
        for (i, j), value in zip(entries[::2], entries[1::2], strict=True):
            yield name, int(i), int(j), float(q), rho, float(other), value
            if (name, rho) == ("tanh", "1"):
                opposite = value if int(j) % 2 else str(-float(value))
                yield name, int(i), int(j), float(q), "-1", float(other), opposite


REFERENCES = list(references())
VARIANCES = [0.01, 0.3, 1.0, 4.0, 25.0]
CORRELATIONS = [1.0, -1.0, 0.0, 1 - 1e-12, 0.97, -0.4]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def one(like: Any, orders: tuple[int, int], q: float, c: float, other: float) -> Tensor:
    """E_ij for i < I, j < J of one pair, (I, J)."""
    made = HermiteDual(activation(like))
    return made.pairs(tensor(q), tensor(c)[None], tensor(other), orders)[:, :, 0, 0]


def direct(phi: Activation, orders: int, q: float, rho: float, other: float) -> Tensor:
    """E_ij by the trapezoidal rule in the plane of two independent normal variables, (I, J)."""
    # The poles of the hyperbolic tangent are twice as near to the line as those of the others.
    step = min(0.3, (0.15 if phi.name == "tanh" else 0.28) / math.sqrt(max(q, other)))
    z = torch.arange(-9.5, 9.5 + step, step, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) * (step / math.sqrt(2 * math.pi))
    left = phi.derivatives(math.sqrt(q) * z, orders) * weight  # (I, Z)
    v = rho * z[:, None] + math.sqrt((1 - rho) * (1 + rho)) * z
    right = phi.derivatives(math.sqrt(other) * v, orders) @ weight  # (J, Z)
    return left @ right.mT


@pytest.mark.parametrize(("name", "i", "j", "q", "rho", "other", "value"), REFERENCES)
def test_expectations_of_30_digits(
    name: str, i: int, j: int, q: float, rho: str, other: float, value: str
):
    c = float(rho) * math.sqrt(q * other)
    got = one(name, (i + 1, j + 1), q, c, other)[i, j]
    assert float(got) == pytest.approx(float(value), rel=1e-10)


ONE_VARIABLE = [case for case in REFERENCES if abs(float(case[4])) == 1]
TWO_VARIABLES = [case for case in REFERENCES if abs(float(case[4])) < 1 and case[1:3] == (0, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("case", [*ONE_VARIABLE[::6], TWO_VARIABLES[0]], ids=str)
def test_references_are_those_of_mpmath(case: tuple[str, int, int, float, str, float, str]):
    """Nested Gauss-Legendre quadrature on the activation as mpmath has it."""
    name, i, j, q, rho, other, value = case
    with mpmath.workdps(30):
        correlation = mpmath.mpf(rho)
        cosine = mpmath.sqrt((1 - correlation) * (1 + correlation))
        pieces = max(4, math.ceil(4 * math.sqrt(max(q, other))))
        line = [mpmath.mpf(-11) + 22 * mpmath.mpf(k) / pieces for k in range(pieces + 1)]

        def integral(function):
            weighted = lambda z: mpmath.npdf(z) * function(z)  # noqa: E731
            return mpmath.quad(weighted, line, method="gauss-legendre", maxdegree=5)

        def phi(k, u):
            return mpmath.diff(MPMATH[name], u, k) if k else MPMATH[name](u)

        def second(z):
            mean = mpmath.sqrt(other) * correlation * z
            if not cosine:
                return phi(j, mean)
            return integral(lambda y: phi(j, mean + mpmath.sqrt(other) * cosine * y))

        expected = integral(lambda z: phi(i, mpmath.sqrt(q) * z) * second(z))
        assert float(value) == pytest.approx(float(expected), rel=1e-14)


@pytest.mark.parametrize("rho", CORRELATIONS)
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "silu", "gelu", "softplus", "sin", "erf"])
def test_expectations_by_direct_quadrature(name: str, rho: float):
    orders = 6
    phi, q = activation(name), tensor(*VARIANCES[:-1])
    c = rho * (q[:, None] * q).sqrt()
    got = HermiteDual(phi).pairs(q, c, q, (orders, orders))
    size = HermiteDual(phi).own(q, orders).diagonal().sqrt()  # (N, I)
    for m, n in [(0, 0), (0, 3), (1, 1), (1, 2), (3, 2), (3, 3)]:
        expected = direct(phi, orders, VARIANCES[m], rho, VARIANCES[n])
        change = (got[:, :, m, n] - expected).abs()
        assert bool((change <= 1e-11 * size[m][:, None] * size[n]).all())
        large = expected.abs() > 1e-1 * size[m][:, None] * size[n]
        assert bool((change <= 1e-10 * expected.abs())[large].all())


def test_wide_variances_by_direct_quadrature():
    got = one("tanh", (6, 6), 25.0, 0.7 * math.sqrt(25.0 * 16.0), 16.0)
    expected = direct(activation("tanh"), 6, 25.0, 0.7, 16.0)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-13 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["tanh", "gelu", "softplus"])
@pytest.mark.parametrize("rho", [1.0, -1.0, 0.3])
def test_derivatives_follow_price(name: str, rho: float):
    """dE_00/dc = E_11, dE_00/dq = E_20 / 2, dE_00/dq' = E_02 / 2, by central differences."""
    q, other, step = 2.0, 1.5, 1e-4
    c = rho * math.sqrt(q * other) * (1 - 2e-4)  # so that both sides of it are correlations
    table = one(name, (3, 3), q, c, other)
    for place, expected in enumerate((table[2, 0] / 2, table[1, 1], table[0, 2] / 2)):
        below, above = [q, c, other], [q, c, other]
        below[place], above[place] = below[place] - step, above[place] + step
        rise = float(one(name, (1, 1), *above) - one(name, (1, 1), *below))
        assert rise / (2 * step) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["sin", "cos", "erf"])
@pytest.mark.parametrize("rho", CORRELATIONS)
def test_closed_forms_and_series_agree(name: str, rho: float):
    phi, q, other = activation(name), tensor(0.0, *VARIANCES), tensor(0.02, 1.0, 9.0)
    c = rho * (q[:, None] * other).sqrt()
    closed = dual(phi)
    assert isinstance(closed, ClosedDual)
    got, series = closed.pairs(q, c, other, (7, 7)), HermiteDual(phi).pairs(q, c, other, (7, 7))
    sizes = [HermiteDual(phi).own(v, 7).diagonal().mT.sqrt() for v in (q, other)]
    size = sizes[0][:, None, :, None] * sizes[1][None, :, None, :]
    assert bool(((got - series).abs() <= 1e-13 * size + 1e-300).all())


@pytest.mark.parametrize("name", ["sin", "cos", "erf", "tanh"])
def test_points_with_themselves_are_pairs_of_correlation_one(name: str):
    made, q = dual(activation(name)), tensor(0.0, *VARIANCES)
    pairs = made.pairs(q, (q[:, None] * q).sqrt(), q, (5, 5)).diagonal(dim1=2, dim2=3)
    own = made.own(q, 5)
    torch.testing.assert_close(own, pairs, rtol=1e-9, atol=1e-11 * float(own.abs().max()))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_waves_of_very_large_variance_do_not_overflow(name: str):
    q, made = tensor(1e6), dual(activation(name))
    assert made.pairs(q, q[:, None], q, (1, 1)).item() == pytest.approx(0.5)
    assert bool(made.pairs(q, -q[:, None], q, (3, 3)).isfinite().all())


def test_a_constant_input_has_no_spread():
    """q = 0: u is 0, and E_ij = phi^(i)(0) phi^(j)(0)."""
    at_zero = activation("sigmoid").derivatives(tensor(0.0), 4)[:, 0]
    torch.testing.assert_close(one("sigmoid", (4, 4), 0.0, 0.0, 0.0), at_zero[:, None] * at_zero)


def test_correlation_is_clipped_and_defined_at_zero():
    q, other = tensor(0.0, 1.0), tensor(1.0, 4.0)
    c = tensor(0.0, 0.0, 1.0 + 1e-12, -1.0).reshape(2, 2)
    assert correlation(q, c, other).tolist() == [[0.0, 0.0], [1.0, -0.5]]


def test_symmetries():
    """E_ij(q, c, q') = E_ji(q', c, q); tanh is odd: E_ij = 0 where i + j is odd."""
    q, other, c = tensor(1.0, 2.0), tensor(0.5, 3.0), tensor(0.2, -0.7, 0.4, 1.1).reshape(2, 2)
    made = HermiteDual(activation("tanh"))
    table = made.pairs(q, c, other, (4, 4))
    torch.testing.assert_close(table, made.pairs(other, c.mT, q, (4, 4)).transpose(0, 1).mT)
    assert not table[::2, 1::2].any()
    assert not table[1::2, ::2].any()
    signs = tensor(-1.0, 1.0, -1.0, 1.0)[:, None, None]
    torch.testing.assert_close(made.pairs(q, -c, other, (4, 4)), table * signs)


def test_many_points_are_those_of_one_at_a_time():
    q, other = torch.rand(9).double() + 0.1, torch.rand(7).double() + 0.1
    c = (2 * torch.rand(9, 7).double() - 1) * (q[:, None] * other).sqrt()
    table = HermiteDual(activation("tanh")).pairs(q, c, other, (3, 2))
    assert table.shape == (3, 2, 9, 7)
    alone = one("tanh", (3, 2), float(q[4]), float(c[4, 5]), float(other[5]))
    torch.testing.assert_close(table[:, :, 4, 5], alone, rtol=1e-12, atol=1e-14)


REFUSED = [
    (lambda u: torch.relu(1.0 * u), 1.0, "or it is not smooth"),
    (lambda u: (u - 0.3).abs(), 1.0, "or it is not smooth"),
    ("tanh", 1e4, r"derivatives up to order 1, .* of variance 1e\+04"),
]


@pytest.mark.parametrize(("like", "q", "message"), REFUSED)
def test_what_is_not_smooth_or_beyond_the_range_is_named(like, q: float, message: str):
    with pytest.raises(ValueError, match=message):
        one(like, (2, 2), q, q, q)


@pytest.mark.parametrize(("q", "orders"), [(100.0, 2), (40.0, 6), (16.0, 14)])
def test_range_is_what_the_documentation_says(q: float, orders: int):
    phi = activation("tanh")
    table = HermiteDual(phi).own(tensor(q), orders)[:, :, 0]
    z = torch.arange(-11.0, 11.0, 0.01, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) * (0.01 / math.sqrt(2 * math.pi))
    expected = phi.derivatives(math.sqrt(q) * z, orders).square() @ weight
    torch.testing.assert_close(table.diagonal(), expected, rtol=1e-11, atol=0)
