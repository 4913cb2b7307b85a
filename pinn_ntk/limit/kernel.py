"""Kernels of multilayer perceptrons whose hidden layers are infinitely wide.

| symbol | meaning |
| --- | --- |
| sigma_w, sigma_b | standard deviations of the NTK parametrisation, one pair a layer |
| Sigma^l(x, x') | covariance of the pre-activations of layer l, the NNGP kernel of its output |
| Theta^l(x, x') | neural tangent kernel of the network that ends with layer l |
| E_ij | E[phi^(i)(u) phi^(j)(v)] for (u, v) of covariance Sigma^l; see `pinn_ntk.limit.duals` |

Sigma^1 = sigma_w^2 x.x' / n_0 + sigma_b^2, Theta^1 = Sigma^1, and for every further layer
Sigma^(l+1) = sigma_w^2 E_00 + sigma_b^2, Theta^(l+1) = Sigma^(l+1) + sigma_w^2 Theta^l E_11.

For the residuals of a PINN the operators of the terms are applied to both arguments of Theta:
K_ab(x, x') = L_a L'_b Theta(x, x'). The recursion is run on truncated Taylor series in x and x'
(`pinn_ntk.limit.jets`), so derivatives are those of the series, also at x = x', but for the errors
of E_ij that they amplify: `LimitKernel.blocks` says how much, and refuses where it is too much.

Source: Jacot, Gabriel, Hongler 2018, proposition 1 and theorem 1; for residuals and one hidden
layer Wang, Yu, Perdikaris 2022, section 4.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pinn_ntk.limit.activations import Like, activation
from pinn_ntk.limit.closed_forms import dual
from pinn_ntk.limit.duals import NoisyDual
from pinn_ntk.limit.jets import IndexSet, MultiIndex, compose, compose_own, multiply
from pinn_ntk.limit.operators import Operator, checked, coefficients, identity
from pinn_ntk.limit.parametrization import Stds, check_stds, one_per_layer

Kind = Literal["ntk", "nngp"]

LARGEST_ERROR = 1e-6
"""Estimated error, relative to sqrt(K(x, x) K(x', x')), above which a kernel is refused."""

PROBED = 16
"""Points at most that the error is estimated with."""


@dataclass
class _Series:
    """Series of q (A, N), q' (B, N'), c and Theta (A, B, N, N') at one layer."""

    q: Tensor
    other: Tensor
    c: Tensor
    theta: Tensor


class LimitKernel:
    """The kernels of a multilayer perceptron of infinite width, in float64.

    They hold for one output; different outputs of a network do not interact. The widths of all
    hidden layers go to infinity, the weights start Gaussian, and what Theta says of training holds
    for the NTK parametrisation (`pinn_ntk.limit.parametrization.NTKLinear`).

    Args:
        hidden: Number of hidden layers, a whole number, each followed by the activation.
        activation: A name, a module or its class, or a function; see
            `pinn_ntk.limit.activations.activation`.
        weight_std: sigma_w, one number or one a layer (``hidden + 1``).
        bias_std: sigma_b, likewise.

    Raises:
        ValueError: ``hidden`` is not a whole number from 0 on, the activation has no limit kernel
            here, or a standard deviation is negative or missing.

    Example:
        >>> kernel = LimitKernel(1, "erf", bias_std=0.0)
        >>> x = torch.tensor([[1.0]])
        >>> round(float(kernel.nngp(x)), 6)  # 2 / pi asin(2 / 3)
        0.464559
        >>> residual = {"pde": (x, {(2,): 1.0}), "bc": (x, {(0,): 1.0})}
        >>> blocks = kernel.blocks(residual)
        >>> blocks["pde", "bc"].shape, round(float(blocks["pde", "pde"]), 6)
        (torch.Size([1, 1]), 0.983941)
    """

    def __init__(
        self,
        hidden: int,
        activation: Like = "tanh",
        weight_std: Stds = 1.0,
        bias_std: Stds = 1.0,
    ) -> None:
        if not isinstance(hidden, int) or isinstance(hidden, bool) or hidden < 0:
            raise ValueError(
                "expected a whole number from 0 on as the number of hidden layers, got "
                f"{hidden!r}; standard deviations are given as weight_std and bias_std."
            )
        self.hidden = hidden
        self.activation = _recognised(activation)
        self.weight_std = one_per_layer(weight_std, hidden + 1, "weight_std")
        self.bias_std = one_per_layer(bias_std, hidden + 1, "bias_std")
        for pair in zip(self.weight_std, self.bias_std, strict=True):
            check_stds(*pair)
        self._dual = dual(self.activation)

    def __repr__(self) -> str:
        """The settings."""
        return (
            f"LimitKernel(hidden={self.hidden}, activation={self.activation.name!r}, "
            f"weight_std={self.weight_std}, bias_std={self.bias_std})"
        )

    def nngp(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Covariance of the outputs at the start, E[u(x) u(x')].

        Args:
            x: Points (N, n0).
            other: Points (N', n0); ``x`` when left out.

        Returns:
            (N, N') in float64.

        Raises:
            ValueError: Points of another shape, or with NaN or inf; pre-activations too wide for
                the quadrature.
        """
        return self._plain(x, other, "nngp")

    def ntk(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Neural tangent kernel Theta(x, x').

        Args:
            x: Points (N, n0).
            other: Points (N', n0); ``x`` when left out.

        Returns:
            (N, N') in float64.

        Raises:
            ValueError: As for `nngp`.
        """
        return self._plain(x, other, "ntk")

    def blocks(
        self, terms: Mapping[str, tuple[Tensor, Operator]], kind: Kind = "ntk"
    ) -> dict[tuple[str, str], Tensor]:
        """Kernel blocks K_ab = L_a L'_b Theta(x_a, x_b) of linear residuals.

        Args:
            terms: Name -> points (N, n0) and operator. An operator maps multi-indices over the
                input coordinates to a number or to one number a point (N,): with inputs (t, x),
                ``{(2, 0): 1.0, (0, 2): -c**2}`` is u_tt - c^2 u_xx.
            kind: "ntk" for Theta; "nngp" for the covariance of the residuals at the start.

        Returns:
            (a, b) -> (N_a, N_b) in float64, for all pairs of terms; K_ba = K_ab^T.

        Note:
            Rounding and quadrature leave about 1e-15 to 1e-12 in each E_ij, relatively, and terms
            that grow with the order and with ``weight_std * |x|`` cancel. Relative error of K(x, x)
            for one hidden layer and one input with standard deviations 1, measured against a
            quadrature over weight and bias:

            | residual | activation | x = 1 | x = 2 | x = 3 | x = 5 | x = 10 |
            | --- | --- | --- | --- | --- | --- | --- |
            | u_xx | tanh | 4e-13 | 5e-11 | 8e-10 | 1e-7 | refused |
            | u_xx | erf | 3e-14 | 3e-13 | 1e-10 | 3e-9 | refused |
            | u_xx | gelu | 5e-14 | 8e-13 | 3e-11 | 2e-9 | refused |
            | u_xx | sin | 1e-14 | 1e-14 | 1e-14 | 7e-14 | 1e-12 |
            | u_xxx | tanh | 3e-11 | 2e-8 | refused | refused | refused |
            | u_xxx | gelu | 6e-13 | 5e-10 | 4e-8 | refused | refused |
            | u_xxxx | tanh | 9e-10 | refused | refused | refused | refused |
            | u_xxxx | erf | 2e-11 | refused | refused | refused | refused |
            | u_xxxx | gelu | 8e-12 | 1e-8 | refused | refused | refused |
            | u_xxxx | sin | 1e-14 | 1e-14 | 2e-13 | 3e-11 | 1e-9 |

            The error is estimated for each term, from `PROBED` of its points, the farthest from 0
            among them; above `LARGEST_ERROR` the kernel is refused. The quadrature of smooth
            activations without a closed form has a range of its own: with standard deviations 1
            that of tanh, the steepest, ends at about |x| = 10 for u, 9 for u_x and before 5 for
            u_xxxx; those of gelu, silu, sigmoid and softplus at 12 to 100 for u and 9 to 20 for
            u_x. So scale the inputs to [-1, 1].

        Raises:
            ValueError: No terms, points or operators that do not fit, an operator above order 4,
                one with derivatives for an activation that is not smooth, or an estimated error
                above `LARGEST_ERROR`.
        """
        if not terms or kind not in ("ntk", "nngp"):
            raise ValueError(
                f"expected at least one term and kind 'ntk' or 'nngp', got {list(terms)}, {kind!r}."
            )
        _check_pairs(terms)
        points = {
            name: _points(x, f"the points of term {name!r}") for name, (x, _) in terms.items()
        }
        operators = {
            name: checked(operator, points[name], name) for name, (_, operator) in terms.items()
        }
        self._check_smooth({index for operator in operators.values() for index in operator})
        blocks: dict[tuple[str, str], Tensor] = {}
        for place, a in enumerate(terms):
            for b in list(terms)[place:]:
                pair = (points[a], points[b]), (operators[a], operators[b])
                blocks[a, b] = self._block(*pair, kind)
                if a == b:
                    blocks[a, a] = (blocks[a, a] + blocks[a, a].mT) / 2
                    self._check_accuracy(a, blocks[a, a], points[a], operators[a], kind)
                blocks[b, a] = blocks[a, b].mT
        return blocks

    def _block(
        self,
        points: tuple[Tensor, Tensor],
        operators: tuple[dict[MultiIndex, Tensor], dict[MultiIndex, Tensor]],
        kind: Kind,
    ) -> Tensor:
        sets = IndexSet(operators[0]), IndexSet(operators[1])
        left, right = map(coefficients, operators, sets)
        return torch.einsum("an,abnp,bp->np", left, self._series(*points, sets, kind), right)

    def _check_accuracy(
        self, name: str, block: Tensor, x: Tensor, operator: dict[MultiIndex, Tensor], kind: Kind
    ) -> None:
        """Refuse a diagonal block that errors of the expectations change too much."""
        order = max(map(sum, operator))
        if not order:
            return  # nothing cancels without derivatives
        noisy = copy.copy(self)
        noisy._dual = NoisyDual(self._dual)
        places = _probed(x)
        part = {index: values[places] for index, values in operator.items()}
        change = noisy._block((x[places], x[places]), (part, part), kind)
        error = _relative_error(block, change - block[places][:, places], places)
        lowest = float(block.diagonal().min())
        if error <= LARGEST_ERROR and lowest >= -_floor(block):
            return
        raise ValueError(
            f"the kernel of term {name!r}, of order {order} at points up to "
            f"{float(x.abs().max()):g} in size, would have an error of about {error:.1e}, "
            f"relatively, and a smallest diagonal entry of {lowest:.3g}; expected an error up to "
            f"{LARGEST_ERROR:g}. Large terms cancel where derivatives of high order meet points, "
            "or weights, of large size. Scale the inputs to [-1, 1] and put the scale into the "
            "operator: for x = s z, u_xx is s^-2 u_zz."
        )

    def _plain(self, x: Tensor, other: Tensor | None, kind: Kind) -> Tensor:
        x = _points(x, "the points")
        partner = x if other is None else _points(other, "the second points")
        value = IndexSet(identity(x.shape[1]))
        kernel = self._series(x, partner, (value, value), kind)[0, 0]
        return (kernel + kernel.mT) / 2 if other is None else kernel

    def _check_smooth(self, indices: set[tuple[int, ...]]) -> None:
        highest = max(map(sum, indices))
        if highest and not self.activation.smooth:
            raise ValueError(
                f"the operators have order {highest}, and {self.activation.name} is not smooth. "
                "Its derivative jumps: at finite width u_xx is 0 wherever it exists and the "
                "gradient of u_x misses the jumps, so the kernel of the residuals does not tend to "
                "the derivative of the limit kernel. Use a smooth activation, such as tanh."
            )

    def _series(
        self, x: Tensor, other: Tensor, sets: tuple[IndexSet, IndexSet], kind: Kind
    ) -> Tensor:
        """Theta or Sigma of the last layer as a series, (A, B, N, N')."""
        if x.shape[1] != other.shape[1]:
            raise ValueError(
                f"expected points with the same coordinates, got {tuple(x.shape)} and "
                f"{tuple(other.shape)}."
            )
        layer = _first(x, other, sets, self.weight_std[0], self.bias_std[0])
        for weight_std, bias_std in zip(self.weight_std[1:], self.bias_std[1:], strict=True):
            layer = self._next(layer, sets, weight_std, bias_std)
        return layer.theta if kind == "ntk" else layer.c

    def _next(
        self, layer: _Series, sets: tuple[IndexSet, IndexSet], weight_std: float, bias_std: float
    ) -> _Series:
        a, b = sets[0].degree, sets[1].degree
        orders = 2 * a + b + 2, a + 2 * b + 2
        expectations = self._dual.pairs(layer.q[0], layer.c[0, 0], layer.other[0], orders)
        variances = layer.q, layer.other
        covariance, slopes = (
            weight_std**2 * compose(expectations, shift, variances, layer.c, sets)
            for shift in (0, 1)
        )
        covariance[0, 0] += bias_std**2
        q, other = (
            weight_std**2 * self._own(variance, kept)
            for variance, kept in zip(variances, sets, strict=True)
        )
        q[0] += bias_std**2
        other[0] += bias_std**2
        theta = covariance + multiply(layer.theta, slopes, *sets)
        return _Series(q, other, covariance, theta)

    def _own(self, variance: Tensor, indices: IndexSet) -> Tensor:
        """E[phi(u)^2] as a series: its k-th derivative in q is E[(phi^2)^(2k)] / 2^k."""
        table = self._dual.own(variance[0], 2 * indices.degree + 1)
        rows = [
            sum(math.comb(2 * k, j) * table[j, 2 * k - j] for j in range(2 * k + 1)) / 2**k
            for k in range(indices.degree + 1)
        ]
        change = variance.clone()
        change[0] = 0
        return compose_own(torch.stack(rows), change, indices)


_recognised = activation  # the argument of the constructor has the same name


def _check_pairs(terms: Mapping[str, object]) -> None:
    for name, pair in terms.items():
        parts = list(map(type, pair)) if isinstance(pair, (tuple, list)) else []
        if len(parts) != 2 or not (issubclass(parts[0], Tensor) and issubclass(parts[1], Mapping)):
            raise ValueError(
                f"term {name!r} is a {type(pair).__name__}; expected points and operator, such as "
                "(x, {(2,): 1.0}) for u_xx, or (x, {(0,): 1.0}) for u itself."
            )


def _points(x: Tensor, name: str) -> Tensor:
    if x.ndim != 2 or not x.numel():
        hint = "; give x[:, None] for points on a line" if x.ndim == 1 else ""
        raise ValueError(f"{name} have shape {tuple(x.shape)}, expected (N, inputs){hint}.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} hold NaN or inf.")
    return x.detach().double()


def _probed(x: Tensor) -> Tensor:
    """Places of points to estimate errors with, `PROBED`: half of them those of largest norm."""
    falling = x.norm(dim=1).argsort(descending=True)
    half = PROBED // 2
    spread = torch.linspace(0, len(x) - 1, PROBED - half, device=x.device).long()
    return torch.cat([falling[torch.arange(half, device=x.device) % len(x)], falling[spread]])


def _floor(block: Tensor) -> float:
    """What counts as zero beside the largest diagonal entry."""
    return 1e-14 * float(block.diagonal().max())


def _relative_error(block: Tensor, change: Tensor, places: Tensor) -> float:
    """Largest |change| / sqrt(K_ii K_jj) at the places, beyond the floor."""
    size = block.diagonal()[places].clamp(min=0).sqrt()
    excess = change.abs() - _floor(block)
    return float(torch.where(excess > 0, excess / (size[:, None] * size), 0.0).max())


def _first(
    x: Tensor,
    other: Tensor,
    sets: tuple[IndexSet, IndexSet],
    weight_std: float,
    bias_std: float,
) -> _Series:
    """Sigma^1 = sigma_w^2 (x + s).(x' + t) / n_0 + sigma_b^2, a polynomial in s and t."""
    scale, dim = weight_std**2 / x.shape[1], x.shape[1]
    c = x.new_zeros(len(sets[0]), len(sets[1]), len(x), len(other))
    c[0, 0] = scale * (x[:, None] * other).sum(-1) + bias_std**2
    for i in range(dim):
        unit = tuple(int(i == j) for j in range(dim))
        first, second = (kept.place(unit) if unit in kept else None for kept in sets)
        if first is not None:
            c[first, 0] = scale * other[:, i]
        if second is not None:
            c[0, second] = scale * x[:, i, None]
        if first is not None and second is not None:
            c[first, second] = scale
    q, partner = (
        _own_first(points, kept, scale, bias_std)
        for points, kept in zip((x, other), sets, strict=True)
    )
    return _Series(q, partner, c, c.clone())


def _own_first(x: Tensor, indices: IndexSet, scale: float, bias_std: float) -> Tensor:
    q = x.new_zeros(len(indices), len(x))
    q[0] = scale * (x * x).sum(-1) + bias_std**2
    for i in range(x.shape[1]):
        unit = tuple(int(i == j) for j in range(x.shape[1]))
        if unit in indices:
            q[indices.place(unit)] = 2 * scale * x[:, i]
        twice = tuple(2 * n for n in unit)
        if twice in indices:
            q[indices.place(twice)] = scale
    return q
