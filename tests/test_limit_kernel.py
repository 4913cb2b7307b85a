"""Limit kernels and their operators: closed forms, properties, and finite networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import LimitKernel, empirical_ntk, ntk_mlp
from pinn_ntk.limit.activations import activation
from pinn_ntk.limit.operators import biharmonic, identity, laplacian
from tests.kernels import MPMATH
from tests.operators import grad, points

Scalar = Callable[[Tensor, Tensor, Tensor], Tensor]
"""E_00 or E_11 of (q, c, q')."""

ODD: Scalar = lambda q, c, p: torch.exp(-(q + p) / 2) * torch.sinh(c)  # noqa: E731
EVEN: Scalar = lambda q, c, p: torch.exp(-(q + p) / 2) * torch.cosh(c)  # noqa: E731
CLOSED: dict[str, tuple[Scalar, Scalar]] = {
    "erf": (
        lambda q, c, p: 2 / math.pi * torch.asin(2 * c / ((1 + 2 * q) * (1 + 2 * p)).sqrt()),
        lambda q, c, p: 4 / math.pi * ((1 + 2 * q) * (1 + 2 * p) - 4 * c**2).rsqrt(),
    ),
    "sin": (ODD, EVEN),
    "cos": (EVEN, ODD),
}
LINE = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
WEIGHT, BIAS = [1.3, 0.9, 1.1, 0.8], [0.4, 0.2, 0.5, 0.3]


def theta(name: str, hidden: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sigma and Theta for points x, y (M, n0), row by row, by the closed forms as printed."""
    value, slope = CLOSED[name]

    def first(a: Tensor, b: Tensor) -> Tensor:
        return WEIGHT[0] ** 2 * (a * b).sum(-1) / x.shape[1] + BIAS[0] ** 2

    q, c, p = first(x, x), first(x, y), first(y, y)
    kernel = c
    for w, b in zip(WEIGHT[1 : hidden + 1], BIAS[1 : hidden + 1], strict=True):
        rise = w**2 * slope(q, c, p)
        # Of a point with itself: c = q.
        q, c, p = (w**2 * value(*three) + b**2 for three in ((q, q, q), (q, c, p), (p, p, p)))
        kernel = c + kernel * rise
    return c, kernel


def of_r(kernel: LimitKernel, x: Tensor, operator: Any, kind: str = "ntk") -> Tensor:
    """The block of one term."""
    return kernel.blocks({"r": (x, operator)}, kind)["r", "r"]


def limit(like: Any, hidden: int) -> LimitKernel:
    return LimitKernel(hidden, like, WEIGHT[: hidden + 1], BIAS[: hidden + 1])


def grid(n: int, dim: int, seed: int = 3) -> Tensor:
    return points(n, dim, seed).detach()


def derivative(values: Tensor, x: Tensor, index: tuple[int, ...]) -> Tensor:
    """A mixed derivative by nested autograd; row i of the values depends on row i of x alone."""
    for place, order in enumerate(index):
        for _ in range(order):
            values = grad(values, x)[:, place]
    return values


def differentiated(kernel: Any, x: Tensor, y: Tensor, a: Any, b: Any) -> Tensor:
    """L_a L'_b of a kernel for all pairs, by nested autograd."""
    left = x.repeat_interleave(len(y), 0).requires_grad_()
    right = y.repeat(len(x), 1).requires_grad_()
    total = torch.zeros(len(left), dtype=torch.float64)
    for index, weight in a.items():
        for other, factor in b.items():
            rows = derivative(kernel(left, right), left, index)
            total = total + weight * factor * derivative(rows, right, other).detach()
    return total.reshape(len(x), len(y))


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("hidden", [0, 1, 3])
@pytest.mark.parametrize("name", CLOSED)
def test_kernels_are_the_closed_forms(name: str, hidden: int, dim: int):
    x, y = grid(4, dim), grid(3, dim, seed=4)
    left, right = x.repeat_interleave(3, 0), y.repeat(4, 1)
    sigma, kernel = (block.reshape(4, 3) for block in theta(name, hidden, left, right))
    torch.testing.assert_close(limit(name, hidden).nngp(x, y), sigma, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(limit(name, hidden).ntk(x, y), kernel, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_rectifiers_are_the_arc_cosine_kernels(slope: float):
    """One hidden layer without bias, weights N(0, 1), unit vectors (Cho and Saul 2009)."""
    angles = torch.tensor([0.0, 0.3, 1.0, math.pi / 2, 2.5, math.pi], dtype=torch.float64)
    x = torch.stack([angles.cos(), angles.sin()], 1)
    kernel = LimitKernel(1, nn.LeakyReLU(slope), bias_std=0.0)
    rho = angles.cos()
    bent = (angles.sin() + (math.pi - angles) * rho) / (2 * math.pi)
    step = (math.pi - angles) / (2 * math.pi)
    # max(u, 0) + slope min(u, 0), and E[max(u, 0) min(v, 0)] = rho / 2 - bent
    sigma = (1 + slope**2) * bent + 2 * slope * (rho / 2 - bent)
    rise = (1 + slope**2) * step + 2 * slope * (0.5 - step)
    torch.testing.assert_close(kernel.nngp(x[:1], x)[0], sigma / 2, rtol=1e-12, atol=1e-15)
    expected = sigma / 2 + rho / 2 * rise
    torch.testing.assert_close(kernel.ntk(x[:1], x)[0], expected, rtol=1e-12, atol=1e-15)


def test_linear_networks_have_linear_kernels():
    x = grid(4, 3)
    kernel = LimitKernel(0, weight_std=1.5, bias_std=0.5)
    torch.testing.assert_close(kernel.ntk(x), 2.25 * x @ x.mT / 3 + 0.25)
    assert torch.equal(kernel.ntk(x), kernel.nngp(x))
    # Without bias and with weights of variance 1, Sigma = c, so Theta = (hidden + 1) x.x'.
    x = grid(4, 1)
    kernel = LimitKernel(3, "identity", bias_std=0.0)
    torch.testing.assert_close(kernel.ntk(x), 4 * x @ x.mT)


def test_a_generic_activation_has_the_kernel_of_the_known_one():
    x = grid(5, 2)
    kernel = LimitKernel(2, lambda u: 1.0 * torch.tanh(u), 1.2, 0.3).ntk(x)
    torch.testing.assert_close(kernel, LimitKernel(2, "tanh", 1.2, 0.3).ntk(x), rtol=1e-12, atol=0)


PAIRS: dict[str, tuple[int, Any, Any]] = {
    "u, u": (1, {(0,): 1.0}, {(0,): 1.0}),
    "u_x, u": (1, {(1,): 1.0}, {(0,): 1.0}),
    "u_xx, u_xx": (1, {(2,): 1.0}, {(2,): 1.0}),
    "u_xx - 3 u, u_x": (1, {(2,): 1.0, (0,): -3.0}, {(1,): 1.0}),
    "u_xxx, u_xx": (1, {(3,): 1.0}, {(2,): 1.0}),
    "u_tt - 4 u_xx, u_t": (2, {(2, 0): 1.0, (0, 2): -4.0}, {(1, 0): 1.0}),
    "u_xy, u_xy": (2, {(1, 1): 1.0}, {(1, 1): 1.0}),
    "laplacian, laplacian": (2, laplacian(2), laplacian(2)),
    "biharmonic, u": (2, biharmonic(2), identity(2)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("name", "hidden"), [("erf", 1), ("sin", 1), ("cos", 2)])
def test_operators_are_derivatives_of_the_closed_form(name: str, hidden: int, pair: str):
    dim, a, b = PAIRS[pair]
    x, y = grid(3, dim), grid(2, dim, seed=4)
    for kind, place in (("nngp", 0), ("ntk", 1)):
        closed = lambda s, t, place=place: theta(name, hidden, s, t)[place]  # noqa: E731
        expected = differentiated(closed, x, y, a, b)
        got = limit(name, hidden).blocks({"a": (x, a), "b": (y, b)}, kind)["a", "b"]
        scale = float(expected.abs().max())
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11 * scale)


def test_fourth_order_on_both_sides():
    """sin, one layer, no bias, weights N(0, 1): Sigma = e^(-(x-y)^2/2)/2 - e^(-(x+y)^2/2)/2."""
    x, kernel = LINE, LimitKernel(1, "sin", bias_std=0.0)
    got = of_r(kernel, x, {(4,): 1.0}, "nngp")

    def eighth(z: Tensor) -> Tensor:  # of e^(-z^2/2): He_8
        return (z**8 - 28 * z**6 + 210 * z**4 - 420 * z**2 + 105) * torch.exp(-(z**2) / 2)

    expected = (eighth(x - x.mT) - eighth(x + x.mT)) / 2
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["erf", "sin"])
def test_closed_forms_and_series_agree_on_operators(name: str):
    """The closed forms and Mehler's formula have nothing in common but their arguments."""
    function = {"erf": lambda u: torch.erf(u) + 0 * u, "sin": lambda u: torch.sin(1.0 * u)}[name]
    x = grid(3, 2)
    closed, by_series = (of_r(limit(like, 2), x, laplacian(2)) for like in (name, function))
    torch.testing.assert_close(by_series, closed, rtol=1e-9, atol=1e-9 * float(closed.max()))


def test_coefficients_may_differ_from_point_to_point():
    x, y = grid(4, 1), grid(3, 1, seed=4)
    speed = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    kernel = LimitKernel(2, "tanh")
    plain = kernel.blocks({"r": (x, {(2,): 1.0}), "x": (x, {(1,): 1.0}), "u": (y, {(0,): 1.0})})
    mixed = kernel.blocks({"r": (x, {(2,): 1.0, (1,): speed}), "u": (y, {(0,): 2.0})})
    expected = 2 * (plain["r", "u"] + speed[:, None] * plain["x", "u"])
    torch.testing.assert_close(mixed["r", "u"], expected)
    both = plain["x", "r"] * speed[:, None]
    expected = plain["r", "r"] + both + both.mT + speed[:, None] * plain["x", "x"] * speed
    torch.testing.assert_close(mixed["r", "r"], expected)


@pytest.mark.parametrize("name", [name for name in MPMATH if name != "identity"])
def test_blocks_make_a_symmetric_positive_semidefinite_matrix(name: str):
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    terms = {"pde": (x, {(2,): 1.0}), "bc": (x[[0, -1]], {(0,): 1.0}), "flux": (x, {(1,): 1.0})}
    for kind in ("ntk", "nngp"):
        blocks = LimitKernel(2, name, 1.2, 0.3).blocks(terms, kind)
        assert blocks.keys() == {(a, b) for a in terms for b in terms}
        matrix = torch.cat([torch.cat([blocks[a, b] for b in terms], 1) for a in terms])
        assert matrix.shape == (14, 14)
        assert torch.equal(matrix, matrix.mT)
        eigenvalues = torch.linalg.eigvalsh(matrix)
        assert float(eigenvalues[0]) > -1e-12 * float(eigenvalues[-1])


def test_points_are_permuted_with_the_rows_and_coincide_exactly():
    x, order = LINE, torch.tensor([3, 0, 4, 1, 2])
    kernel = LimitKernel(2, "tanh")
    block = of_r(kernel, x, {(2,): 1.0})
    again = of_r(kernel, x[order], {(2,): 1.0})
    torch.testing.assert_close(again, block[order][:, order], rtol=1e-11, atol=1e-12)
    twice = of_r(kernel, x[[0, 0]], {(2,): 1.0})
    torch.testing.assert_close(twice, block[:1, :1].expand(2, 2), rtol=1e-11, atol=0)


def test_diagonal_of_the_second_derivative_of_tanh():
    """K(x, x) = E[(d^2/dx^2 tanh(w x + b))^2] for the NNGP of one layer: w^4 phi''^2, by hand."""
    x = torch.tensor([[0.7]], dtype=torch.float64)
    got = of_r(LimitKernel(1, "tanh"), x, {(2,): 1.0}, "nngp")
    z = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) * (24 / 1200) / math.sqrt(2 * math.pi)
    u = 0.7 * z[:, None] + z  # w = z_i, b = z_j
    second = -2 * torch.tanh(u) * (1 - torch.tanh(u) ** 2)
    expected = weight @ ((z**4)[:, None] * second**2) @ weight
    torch.testing.assert_close(got[0, 0], expected, rtol=1e-10, atol=0)


def test_single_precision_points_give_double_precision_kernels():
    x = grid(4, 2)
    kernel = LimitKernel(2, "tanh")
    assert kernel.ntk(x.float()).dtype == torch.float64
    torch.testing.assert_close(kernel.ntk(x.float()), kernel.ntk(x), rtol=1e-5, atol=0)
    assert not kernel.ntk(x.clone().requires_grad_()).requires_grad


@pytest.mark.gpu
def test_kernels_stay_on_the_device_of_the_points():
    x = grid(4, 2)
    block = of_r(LimitKernel(2, "tanh"), x.cuda(), laplacian(2))
    assert block.device.type == "cuda"
    expected = of_r(LimitKernel(2, "tanh"), x, laplacian(2))
    torch.testing.assert_close(block.cpu(), expected, rtol=1e-10, atol=1e-10)


# --- Accuracy away from [-1, 1]


def by_quadrature(name: str, x: float, y: float, order: int) -> float:
    """K of d^order u for one hidden layer, by the trapezoidal rule over its weight and bias."""
    z = torch.linspace(-10, 10, 501, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) * (20 / 500) / math.sqrt(2 * math.pi)
    w, b = torch.meshgrid(z, z, indexing="ij")

    def gradients(point: float) -> list[Tensor]:  # by the last weight, w and b
        values = activation(name).derivatives(w * point + b, order + 2)
        power, value, slope = w**order, values[order], values[order + 1]
        by_weight = order * w ** (order - 1) * value + power * point * slope
        return [power * value, by_weight, power * slope]

    pairs = zip(gradients(x), gradients(y), strict=True)
    return sum(float(weight @ (g * h) @ weight) for g, h in pairs)


GIVEN = [
    ("tanh", 1, 3.0, 1e-11),
    ("tanh", 2, -3.0, 1e-8),
    ("tanh", 4, 1.0, 1e-8),
    ("erf", 2, 5.0, 1e-7),
    ("erf", 4, 1.0, 1e-9),
    ("gelu", 2, 3.0, 1e-9),
    ("gelu", 3, -3.0, 1e-6),
    ("sin", 4, 10.0, 1e-7),
]


@pytest.mark.parametrize(("name", "order", "place", "error"), GIVEN)
def test_kernels_that_are_given_are_accurate(name: str, order: int, place: float, error: float):
    x = torch.tensor([[place]], dtype=torch.float64)
    block = of_r(LimitKernel(1, name), x, {(order,): 1.0})
    assert float(block) == pytest.approx(by_quadrature(name, place, place, order), rel=error)


@pytest.mark.parametrize(("order", "reach"), [(2, 3.0), (3, 2.0), (4, 1.0)])
@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_entries_off_the_diagonal_are_as_accurate(name: str, order: int, reach: float):
    x = torch.linspace(-reach, reach, 3, dtype=torch.float64)[:, None]
    block = of_r(LimitKernel(1, name), x, {(order,): 1.0})
    places = x.flatten().tolist()
    rows = [[by_quadrature(name, a, b, order) for b in places] for a in places]
    expected = torch.tensor(rows, dtype=torch.float64)
    size = expected.diagonal().sqrt()
    assert float(((block - expected) / (size[:, None] * size)).abs().max()) < 1e-7


@pytest.mark.parametrize(("name", "place"), [("tanh", 2.0), ("erf", 5.0), ("gelu", 5.0)])
def test_refusal_says_error_and_remedy(name: str, place: float):
    x = torch.tensor([[0.0], [place], [0.5]], dtype=torch.float64)
    message = rf"term 'r', of order 4 at points up to {place:g} .* error of about .*Scale the"
    with pytest.raises(ValueError, match=message):
        LimitKernel(1, name).blocks({"u": (x, {(0,): 1.0}), "r": (x, {(4,): 1.0})})


def test_scaled_inputs_are_the_remedy():
    """u(x) = v(x / 5) has u_xxxx = 5^-4 v_zzzz; the weights of the first layer stay N(0, 1)."""
    x = torch.linspace(-5, 5, 4, dtype=torch.float64)[:, None]
    kernel = LimitKernel(1, "silu")
    with pytest.raises(ValueError, match="Scale the inputs"):
        of_r(kernel, x, {(4,): 1.0})
    block = of_r(kernel, x / 5, {(4,): 5.0**-4})
    assert float(torch.linalg.eigvalsh(block)[0]) > 0


def test_residuals_that_vanish_are_no_error():
    """u_xx is 0 at 0 for an odd activation without bias, everywhere for a linear network."""
    x = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)
    block = of_r(LimitKernel(2, "tanh", bias_std=0.0), x, {(2,): 1.0})
    assert not block[0].any()
    assert bool((block.diagonal()[1:] > 0).all())
    assert not of_r(LimitKernel(2, "identity"), x, {(2,): 1.0}).any()
    silent = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    assert not of_r(LimitKernel(1, "gelu"), x, {(2,): silent})[1].any()


def test_estimate_draws_no_random_numbers_and_repeats():
    x, state = grid(20, 1), torch.get_rng_state()
    first, again = (of_r(LimitKernel(1), x, {(2,): 1.0}) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def residuals(network: nn.Module, terms: dict[str, Any]) -> dict[str, Tensor]:
    """The terms of a real network, by nested autograd."""
    rows = {}
    for name, (places, operator) in terms.items():
        live = places.clone().requires_grad_()
        u = network(live)[:, 0]
        rows[name] = sum(c * derivative(u, live, index) for index, c in operator.items())
    return rows


def finite(width: int, seed: int, hidden: int, terms: dict[str, Any]) -> dict[Any, Tensor]:
    torch.manual_seed(seed)
    dim = next(iter(terms.values()))[0].shape[1]
    network = ntk_mlp([dim, *[width] * hidden, 1], nn.Tanh, 1.2, 0.5).double()
    kernel = empirical_ntk(residuals(network, terms), network, certify=False)
    return {(a, b): kernel[a, b] for a in terms for b in terms}


PROBLEMS: dict[str, dict[str, Any]] = {
    "u_xx": {"pde": (LINE, {(2,): 1.0}), "bc": (LINE[[0, -1]], {(0,): 1.0})},
    "u_xxxx": {"pde": (LINE, {(4,): 1.0}), "bc": (LINE[[0, -1]], {(0,): 1.0})},
    "wave": {"pde": (grid(5, 2), {(2, 0): 1.0, (0, 2): -4.0}), "bc": (grid(3, 2), {(1, 0): 1.0})},
    "biharmonic": {"pde": (grid(4, 2), biharmonic(2)), "bc": (grid(3, 2), {(0, 0): 1.0})},
}


def errors(problem: str, hidden: int, widths: list[int], seeds: int) -> list[tuple[Tensor, Tensor]]:
    """Of each block the relative errors of all networks (widths, seeds) and of their mean."""
    terms = PROBLEMS[problem]
    networks = [[finite(n, seed, hidden, terms) for seed in range(seeds)] for n in widths]
    found = []
    for pair, block in LimitKernel(hidden, "tanh", 1.2, 0.5).blocks(terms).items():
        sample = torch.stack([torch.stack([one[pair] for one in row]) for row in networks])
        both = sample - block, sample.mean(1) - block
        found.append(tuple(torch.linalg.matrix_norm(change) / block.norm() for change in both))
    return found


def slope(widths: list[int], values: Tensor) -> float:
    return float(np.polyfit(np.log(widths), values.log().numpy(), 1)[0])


def test_networks_tend_to_the_limit():
    widths = [32, 512]
    for sizes, mean in errors("u_xx", 2, widths, seeds=8):
        one = sizes.square().mean(1).sqrt()
        assert one[1] < 0.25
        assert mean[1] < 0.7 * one[1]
        assert -0.7 < slope(widths, one) < -0.3


WIDTHS = [512, 1024, 2048, 4096]


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "hidden"), [("u_xx", 2), ("wave", 2), ("u_xxxx", 1)])
def test_error_falls_like_one_over_the_root_of_the_width(problem: str, hidden: int):
    for sizes, mean in errors(problem, hidden, WIDTHS, seeds=40):
        one = sizes.square().mean(1).sqrt()
        assert slope(WIDTHS, one) == pytest.approx(-0.5, abs=0.15)
        assert bool((mean < one).all())


@pytest.mark.slow
def test_error_of_the_biharmonic_kernel_falls_like_one_over_the_root_of_the_width():
    """By the median: a rare network has a kernel many times too large and rules a mean square."""
    for sizes, mean in errors("biharmonic", 2, WIDTHS, seeds=20):
        assert slope(WIDTHS, sizes.quantile(0.5, dim=1)) == pytest.approx(-0.5, abs=0.15)
        assert mean[-1] < 0.5 * mean[0]


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: LimitKernel(-1), "number of hidden layers, got -1"),
    (lambda: LimitKernel(1.5), "whole number from 0 on .*, got 1.5"),  # type: ignore[arg-type]
    (lambda: LimitKernel("2"), "number of hidden layers, got '2'"),  # type: ignore[arg-type]
    (lambda: LimitKernel(1, "thanh"), "no activation is called 'thanh'"),
    (lambda: LimitKernel(1, nn.ELU()), "not a smooth elementwise"),
    (lambda: LimitKernel(2, weight_std=[1.0, 1.0]), "weight_std has 2 entries.* for 3 linear"),
    (lambda: LimitKernel(2, bias_std=-0.1), "bias_std >= 0"),
    (lambda: LimitKernel(1).ntk(LINE[:, 0]), r"shape \(5,\), expected \(N, inputs\); give x\["),
    (lambda: LimitKernel(1).ntk(LINE[:0]), r"the points have shape \(0, 1\)"),
    (lambda: LimitKernel(1).ntk(LINE, LINE[0, 0]), "the second points have shape"),
    (lambda: LimitKernel(1).ntk(LINE, grid(3, 2)), r"same coordinates, got \(5, 1\) and \(3, 2\)"),
    (lambda: LimitKernel(1).ntk(LINE * math.nan), "the points hold NaN or inf"),
    (lambda: LimitKernel(1, "tanh", 100.0).ntk(LINE), "Hermite polynomials leave .* of tanh"),
    (lambda: LimitKernel(1).blocks({}), "at least one term"),
    (lambda: of_r(LimitKernel(1), LINE, {(0,): 1.0}, "NTK"), "kind 'ntk' or 'nngp'"),
    (lambda: of_r(LimitKernel(1), LINE[:, 0], {(0,): 1.0}), "of term 'r' have shape"),
    (lambda: LimitKernel(1).blocks({"r": LINE}), r"'r' is a Tensor; expected points and operator"),
    (lambda: LimitKernel(1).blocks({"r": LINE[:2]}), r"'r' is a Tensor; expected points and oper"),
    (lambda: of_r(LimitKernel(1), LINE, LINE), r"'r' is a tuple; .*\(x, \{\(2,\): 1.0\}\)"),
    (lambda: of_r(LimitKernel(1), LINE, {}), "operator of term 'r' is empty"),
    (lambda: of_r(LimitKernel(1), LINE, {(2, 0): 1.0}), r"\(2, 0\).* with 1 coordinates"),
    (lambda: of_r(LimitKernel(1), LINE, {(-1,): 1.0}), r"\(-1,\).* no multi-index"),
    (lambda: of_r(LimitKernel(1), LINE, {2: 1.0}), "2 in the operator.* no multi-index"),
    (lambda: of_r(LimitKernel(1), LINE, {(1.5,): 1.0}), "no multi-index"),
    (lambda: of_r(LimitKernel(1), LINE, {(5,): 1.0}), "has order 5; .* up to order 4"),
    (lambda: of_r(LimitKernel(1), LINE, {(2,): torch.ones(3)}), r"\(3,\); expected one"),
    (lambda: of_r(LimitKernel(1), LINE, {(2,): math.nan}), "holds NaN or inf"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:25] for _, message in WRONG])
def test_wrong_arguments_are_named(call: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("like", [nn.ReLU(), nn.LeakyReLU(0.1)])
def test_rectifiers_have_no_kernel_of_derivatives(like: nn.Module, order: int):
    kernel = LimitKernel(2, like)
    kernel.blocks({"u": (LINE, {(0,): 2.0})})
    with pytest.raises(ValueError, match=f"order {order}, and relu is not smooth"):
        kernel.blocks({"u": (LINE, {(0,): 2.0}), "r": (LINE, {(order,): 1.0})})


def test_kernel_of_u_x_of_relu_networks_is_not_the_derivative_of_the_limit():
    """Why order 1 is refused, too: at x = y, d/dx d/dy Theta is infinite, the networks' is not."""
    kernel, x = LimitKernel(1, "relu"), torch.tensor([[0.5]], dtype=torch.float64)

    def mixed(step: float) -> float:
        same, apart = (kernel.ntk(x + step, x + sign * step) for sign in (1, -1))
        other = kernel.ntk(x - step, x - step)
        return float((same + other - 2 * apart) / (4 * step**2))

    coarse, fine = mixed(1e-2), mixed(1e-3)
    assert fine > 9 * coarse > 90
    network = ntk_mlp([1, 4096, 1], nn.ReLU).double()
    u_x = residuals(network, {"u_x": (x, {(1,): 1.0})})["u_x"]
    assert float(empirical_ntk(u_x, network, certify=False)["residual"]) < 2.0


def test_standard_deviations_may_be_tensors():
    kernel = LimitKernel(1, "tanh", torch.tensor(1.5), torch.tensor([0.5, 0.25]))
    assert kernel.weight_std == (1.5, 1.5)
    assert kernel.bias_std == (0.5, 0.25)
    assert torch.equal(kernel.ntk(LINE), LimitKernel(1, "tanh", 1.5, [0.5, 0.25]).ntk(LINE))
    shown = "LimitKernel(hidden=1, activation='gelu', weight_std=(1.0, 1.0), bias_std=(0.1, 0.2))"
    assert repr(LimitKernel(1, nn.GELU(), bias_std=[0.1, 0.2])) == shown
