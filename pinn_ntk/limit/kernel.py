"""Kernels of multilayer perceptrons whose hidden layers are infinitely wide.

For the residuals of a PINN the operators of the terms are applied to both arguments of Theta:
K_ab(x, x') = L_a L'_b Theta(x, x'). The recursion over the layers is run on truncated Taylor series
in x and x' (`pinn_ntk.limit.recursion`, which has the notation), so derivatives are those of the
series, also at x = x', but for the errors of E_ij that they amplify: `LimitKernel.blocks` says how
much, and refuses where it is too much.

Source: for residuals and one hidden layer Wang, Yu, Perdikaris 2022, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import Literal

import torch
from torch import Tensor

from pinn_ntk.limit.activations import Like
from pinn_ntk.limit.activations import activation as recognised
from pinn_ntk.limit.closed_forms import dual
from pinn_ntk.limit.duals import Dual, NoisyDual
from pinn_ntk.limit.jets import IndexSet, MultiIndex
from pinn_ntk.limit.operators import Operator, checked, coefficients, identity
from pinn_ntk.limit.parametrization import Stds, check_stds, one_per_layer
from pinn_ntk.limit.recursion import Points, Sets, last_layer

Kind = Literal["ntk", "nngp"]
Terms = dict[MultiIndex, Tensor]

LARGEST_ERROR = 1e-6
"""Estimated error, relative to sqrt(K(x, x) K(x', x')), above which a kernel is refused."""

PROBED = 16
"""Points at most that the error is estimated with."""


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
        self, hidden: int, activation: Like = "tanh", weight_std: Stds = 1.0, bias_std: Stds = 1.0
    ) -> None:
        if not isinstance(hidden, int) or isinstance(hidden, bool) or hidden < 0:
            raise ValueError(
                "expected a whole number from 0 on as the number of hidden layers, got "
                f"{hidden!r}; standard deviations are given as weight_std and bias_std."
            )
        self.hidden = hidden
        self.activation = recognised(activation)
        self.weight_std = one_per_layer(weight_std, hidden + 1, "weight_std")
        self.bias_std = one_per_layer(bias_std, hidden + 1, "bias_std")
        for pair in zip(self.weight_std, self.bias_std, strict=True):
            check_stds(*pair)
        self._dual = dual(self.activation)

    def __repr__(self) -> str:
        return (
            f"LimitKernel(hidden={self.hidden}, activation={self.activation.name!r}, "
            f"weight_std={self.weight_std}, bias_std={self.bias_std})"
        )

    def nngp(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Covariance of the outputs at the start, E[u(x) u(x')], (N, N') in float64.

        Args:
            x: Points (N, n0).
            other: Points (N', n0); ``x`` when left out.

        Raises:
            ValueError: Points of another shape, or with NaN or inf; pre-activations too wide for
                the quadrature.
        """
        return self._plain(x, other, "nngp")

    def ntk(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Neural tangent kernel Theta(x, x'), (N, N') in float64; the rest as for `nngp`."""
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
        points = {a: _points(x, f"the points of term {a!r}") for a, (x, _) in terms.items()}
        operators = {a: checked(operator, points[a], a) for a, (_, operator) in terms.items()}
        self._check_smooth({index for operator in operators.values() for index in operator})
        blocks: dict[tuple[str, str], Tensor] = {}
        for a, b in combinations_with_replacement(terms, 2):
            block = self._block((points[a], points[b]), (operators[a], operators[b]), kind)
            if a == b:
                block = (block + block.mT) / 2
                self._check_accuracy(a, block, points[a], operators[a], kind)
            blocks[a, b], blocks[b, a] = block, block.mT
        return blocks

    def _block(
        self, points: Points, operators: tuple[Terms, Terms], kind: Kind, noisy: Dual | None = None
    ) -> Tensor:
        sets = IndexSet(operators[0]), IndexSet(operators[1])
        left, right = map(coefficients, operators, sets)
        return torch.einsum("an,abnp,bp->np", left, self._series(points, sets, kind, noisy), right)

    def _check_accuracy(
        self, name: str, block: Tensor, x: Tensor, operator: Terms, kind: Kind
    ) -> None:
        """Refuse a diagonal block that errors of the expectations change too much."""
        order = max(map(sum, operator))
        if not order:
            return  # nothing cancels without derivatives
        places = _probed(x)
        part = {index: values[places] for index, values in operator.items()}
        change = self._block((x[places], x[places]), (part, part), kind, NoisyDual(self._dual))
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
        kernel = self._series((x, partner), (value, value), kind)[0, 0]
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

    def _series(self, points: Points, sets: Sets, kind: Kind, noisy: Dual | None = None) -> Tensor:
        """Theta or Sigma of the last layer as a series, (A, B, N, N')."""
        one, other = (tuple(x.shape) for x in points)
        if one[1] != other[1]:
            raise ValueError(f"expected points with the same coordinates, got {one} and {other}.")
        stds = list(zip(self.weight_std, self.bias_std, strict=True))
        layer = last_layer(points, sets, stds, noisy or self._dual)
        return layer.theta if kind == "ntk" else layer.c


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
