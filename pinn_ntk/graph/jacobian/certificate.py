"""The certificate: J^T v from the factors against one ordinary backward pass, for a random v.

Both are random in the rows, v (R,), and, for large weights W, sketched along the columns: the
gradient G = d (v^T r) / d W, (m, n), is compared through G Z with a random Z (n, SKETCH) (Freivalds
1977), which costs R S (m + n) instead of R S m n and misses a wrong factor with probability zero.

In half precision the error is measured against the sum that rounding acts on, not against what is
left of it: v may all but cancel the rows of a parameter of low rank (a bias, a coefficient), and
the sites of a row may cancel each other (u_tt - u_xx). Rounding then makes 2 eps at most (seen over
networks, operators and training), so a use of a weight that was missed still shows once its share
in that sum is above the tolerance, some 5 per cent in bfloat16.
That sum, the magnitude, is the root of sum_i v_i^2 sum_s (norm of term s of row i)^2.

In other precisions the terms of a row may cancel by far more, as those of finite differences do.
How far rounding carries then is seen in a second backward pass, for v / 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pinn_ntk.graph.subclasses import dense
from pinn_ntk.kernel.factors import Dense, Outer
from pinn_ntk.kernel.parts import Parts, RowFactor
from pinn_ntk.kernel.scaled import Scaled

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2}
"""Largest error of a certificate by the coarsest dtype in the graph."""
LOW_PRECISION_TOLERANCE = 5e-2
"""The same for bfloat16 and what is coarser still."""
ROUNDINGS = 64  # of the whole gradient, in units of rounding, that a parameter's error may have
ROUNDINGS_SEEN = 32  # the same in units of what rounding changes in a second pass; 13 seen
SMALL_PARAMETER = 1e-3  # share of the whole gradient below which a parameter's error counts less
SKETCH = 8  # columns of a sketch


@dataclass(frozen=True)
class Probe:
    """J^T v of one term for a random v: parameter name -> flattened gradient, sketched or whole.

    ``exact`` comes from an ordinary backward pass, ``factored`` from the factors. ``magnitudes``
    are the sizes of what adds up to it, empty where the result itself measures its error.
    """

    exact: Mapping[str, Tensor]
    factored: Mapping[str, Tensor]
    magnitudes: Mapping[str, float] = field(default_factory=dict)

    def error(self, other: Probe) -> float:
        """Relative error of v_a^T K_ab v_b against <J_a^T v_a, J_b^T v_b>."""
        truth = _dot(self.exact, other.exact)
        scale = (_dot(self.exact, self.exact) * _dot(other.exact, other.exact)) ** 0.5
        error = abs(_dot(self.factored, other.factored) - truth)
        return error / scale if scale else (0.0 if error == 0.0 else float("inf"))

    def failed(
        self, tolerance: float, rounding: float = 0.0, seen: float = 0.0
    ) -> dict[str, float]:
        """Parameter name -> relative error, for those above the tolerance.

        Errors below ``rounding`` times the whole gradient are those of the backward pass itself,
        where what moves a parameter cancels (v of g v / abs(v) with one entry); and so are errors
        below `ROUNDINGS_SEEN` times those ``seen`` between two passes, if these are no more than
        half precision would have.
        """
        size = _dot(self.exact, self.exact) ** 0.5
        whole = SMALL_PARAMETER * size
        most = LOW_PRECISION_TOLERANCE * size
        rounded = max(rounding * size, min(ROUNDINGS_SEEN * seen, most))
        errors = {}
        for name in {**self.exact, **self.factored}:
            exact, factored = self.exact.get(name), self.factored.get(name)
            norm = max(_distance(exact, None), self.magnitudes.get(name, 0.0))
            distance = _distance(exact, factored)
            error = distance / (norm + whole) if norm + whole else 0.0
            if not error <= tolerance and not distance <= rounded:
                errors[name] = error
        return errors


def errors(probes: Mapping[str, Probe]) -> dict[tuple[str, str], float]:
    """`Probe.error` of every pair of terms, by one product a parameter."""
    exact = _gram([probe.exact for probe in probes.values()])
    factored = _gram([probe.factored for probe in probes.values()])
    size = exact.diagonal().sqrt()
    scale, gap = size[:, None] * size, (factored - exact).abs()
    relative = torch.where(scale > 0, gap / scale, torch.where(gap == 0, 0.0, torch.inf)).tolist()
    return {
        (a, b): error
        for a, row in zip(probes, relative, strict=True)
        for b, error in zip(probes, row, strict=True)
    }


def tolerance(dtype: torch.dtype) -> float:
    """Largest certificate error that rounding in ``dtype`` explains."""
    return TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE)


def backward_probe(
    residual: Tensor, leaves: Mapping[str, Tensor], scale: float = 1.0
) -> dict[str, Tensor]:
    """J^T v by one backward pass, flattened (sketched), float64; absent where unused.

    The pass is for ``scale`` v, and divided by it.
    """
    probe = _probe_vector(residual).to(residual.dtype).view_as(residual) * scale
    gradients = torch.autograd.grad(
        residual, list(leaves.values()), probe, retain_graph=True, allow_unused=True
    )
    return {
        name: _sketched(dense(gradient.detach()), leaves[name]) / scale
        for name, gradient in zip(leaves, gradients, strict=True)
        if gradient is not None
    }


def rounding_seen(
    residual: Tensor, leaves: Mapping[str, Tensor], exact: Mapping[str, Tensor]
) -> float:
    """How much a second backward pass differs from the first, by rounding alone."""
    other = backward_probe(residual, leaves, scale=1 / 3)
    return math.hypot(*(_distance(exact[name], other.get(name)) for name in exact))


def factored_probe(
    residual: Tensor, leaves: Mapping[str, Tensor], factors: Mapping[str, RowFactor]
) -> dict[str, Tensor]:
    """J^T v from the factors; arguments and result as for `backward_probe`."""
    # the probe as the backward pass saw it, rounded to the residual's dtype
    probe = _probe_vector(residual).to(residual.dtype)
    return {name: _product(factor, probe, leaves[name]) for name, factor in factors.items()}


def magnitudes(
    residual: Tensor, leaves: Mapping[str, Tensor], factors: Mapping[str, RowFactor]
) -> dict[str, float]:
    """Size that a (sketched) J^T v would have were all the terms that it adds up independent."""
    squares = _probe_vector(residual).square()
    sizes = {}
    for name, factor in factors.items():
        size = float((squares * _row_squares(factor)).sum()) ** 0.5
        sizes[name] = size if _sketch(leaves[name]) is None else size * SKETCH**0.5
    return sizes


def _row_squares(factor: RowFactor) -> Tensor:
    """Sum of the squared norms of the terms that make up each row, (R,)."""
    if isinstance(factor, Parts):
        return factor.added_up(_row_squares)
    if isinstance(factor, Scaled):
        parts = [Scaled((site,), factor.shape) for site in factor.sites]
        return torch.stack([part.diagonal(torch.float64) for part in parts]).sum(0)
    if isinstance(factor, Dense):
        return factor.gradients.double().square().sum(1)
    sites = zip(factor.left, factor.right, strict=True)
    norms = [(a.double().square().sum(1), b.double().square().sum(1)) for a, b in sites]
    return torch.stack([left * right for left, right in norms]).sum(0)


def _product(factor: RowFactor, probe: Tensor, leaf: Tensor) -> Tensor:
    if isinstance(factor, Parts):
        products = [_product(p.factor, p.gathered(probe), leaf) for p in factor.parts]
        return torch.stack(products).sum(0)
    sketch = _sketch(leaf)
    if sketch is None or not isinstance(factor, Outer):
        return _sketched(factor.rmatvec(probe.to(factor.dtype)), leaf)
    total = torch.zeros(len(leaf), SKETCH, dtype=torch.float64, device=leaf.device)
    for left, right in zip(factor.left, factor.right, strict=True):
        narrow = (right @ sketch.to(right.dtype)) * probe.to(right.dtype)[:, None]  # (R, SKETCH)
        total += left.mT @ narrow
    return total.flatten()


def _sketched(gradient: Tensor, leaf: Tensor) -> Tensor:
    sketch = _sketch(leaf)
    gradient = gradient.double()
    return (gradient.flatten() if sketch is None else gradient.view_as(leaf) @ sketch).flatten()


def _sketch(leaf: Tensor) -> Tensor | None:
    """Z for a large weight; None where the gradient itself is no larger."""
    if leaf.ndim != 2 or min(leaf.shape) <= 2 * SKETCH:
        return None
    generator = torch.Generator().manual_seed(0x2545F491)
    sketch = torch.randn(leaf.shape[1], SKETCH, generator=generator, dtype=torch.float64)
    return sketch.to(leaf.device)


def _probe_vector(residual: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0x9E3779B9)
    probe = torch.randn(residual.numel(), generator=generator, dtype=torch.float64)
    return probe.to(residual.device)


def _dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return sum(float(a[name] @ b[name]) for name in a if name in b)


def _gram(gradients: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Products of all pairs, (T, T) float64 on the CPU; absent parameters are zero."""
    total = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for name in dict.fromkeys(name for of_term in gradients for name in of_term):
        having = [i for i, of_term in enumerate(gradients) if name in of_term]
        stacked = torch.stack([gradients[i][name] for i in having]).double()
        total[torch.tensor(having)[:, None], torch.tensor(having)] += (stacked @ stacked.mT).cpu()
    return total


def _distance(a: Tensor | None, b: Tensor | None) -> float:
    """Norm of the difference, where None stands for zeros."""
    if a is not None and b is not None:
        return float((a - b).norm())
    present = b if a is None else a
    return 0.0 if present is None else float(present.norm())
