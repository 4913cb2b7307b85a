"""Residual -> factored Jacobian with its certificate; what the fast path cannot do goes row by row.

The certificate: for a random probe v, J^T v from the factors must equal the ordinary backward
pass, parameter by parameter. A use of a parameter that was missed, rows that interact, a wrong
rule: each shows in it at once. v differs from every cotangent used to find the factors.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.errors import NTKWarning, ResidualError
from pinn_ntk.factors import Dense, Factor
from pinn_ntk.graph.generic import is_freed, row_gradients
from pinn_ntk.graph.sites import site_factors
from pinn_ntk.jacobian import FactoredJacobian

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest certificate error by dtype: the coarsest in the graph, or that of the contraction."""
LOW_PRECISION_TOLERANCE = 5e-2
"""The same for half precision."""
SMALL_PARAMETER = 1e-3
"""Share of the whole gradient below which a parameter's own error counts less."""


@dataclass(frozen=True)
class Probe:
    """J^T v of one term for a random v, by an ordinary backward pass and from the factors.

    Attributes:
        exact: Parameter name -> flattened gradient by backward, absent where unused.
        factored: Parameter name -> the same from the factors.
    """

    exact: Mapping[str, Tensor]
    factored: Mapping[str, Tensor]

    def error(self, other: Probe) -> float:
        """Relative error of v_a^T K_ab v_b against <J_a^T v_a, J_b^T v_b>."""
        truth = _dot(self.exact, other.exact)
        scale = (_dot(self.exact, self.exact) * _dot(other.exact, other.exact)) ** 0.5
        error = abs(_dot(self.factored, other.factored) - truth)
        return error / scale if scale else (0.0 if error == 0.0 else float("inf"))

    def failed(self, tolerance: float) -> dict[str, float]:
        """Parameter name -> relative error, for those above the tolerance."""
        whole = SMALL_PARAMETER * _dot(self.exact, self.exact) ** 0.5
        errors = {}
        for name in {**self.exact, **self.factored}:
            exact, factored = self.exact.get(name), self.factored.get(name)
            norm = 0.0 if exact is None else float(exact.norm())
            error = _distance(exact, factored) / (norm + whole) if norm + whole else 0.0
            if not error <= tolerance:
                errors[name] = error
        return errors


def capture(
    term: str,
    residual: Tensor,
    leaves: Mapping[str, Tensor],
    *,
    certify: bool,
    dtype: torch.dtype,
    memory_budget: int,
) -> tuple[FactoredJacobian, Probe | None]:
    """Factored Jacobian of one residual and, if asked for, the probe that certifies it.

    Args:
        term: Name of the residual, for messages.
        residual: Live tensor of any shape, R entries.
        leaves: Parameter name -> leaf.
        certify: Whether to check against an ordinary backward pass.
        dtype: Dtype of later contractions.
        memory_budget: Bytes that temporaries may take.

    Returns:
        The Jacobian, and the probe (None without ``certify``).

    Raises:
        ResidualError: The graph was freed by an earlier backward pass.
        RuntimeError: Autograd failed for another reason; passed on as it came.
    """
    try:
        factors, reasons, coarsest = site_factors(residual, leaves)
        exact = _backward_probe(residual, leaves) if certify else None
        jacobian = FactoredJacobian(
            factors,
            {name: leaf.numel() for name, leaf in leaves.items()},
            residual.numel(),
            dtype=dtype,
            device=residual.device,
            memory_budget=memory_budget,
        )
        if exact is not None:
            tolerance = max(TOLERANCE.get(d, LOW_PRECISION_TOLERANCE) for d in (coarsest, dtype))
            failures = Probe(exact, _factored_probe(residual, jacobian)).failed(tolerance)
            said = {n: f"the certificate is off by {e:.1e}" for n, e in failures.items()}
            reasons = said | reasons
        reasons = {name: reasons[name] for name in leaves if name in reasons}
        _fall_back(term, residual, leaves, jacobian, reasons)
    except RuntimeError as error:
        if not is_freed(error):
            raise
        raise ResidualError(
            f"the graph of residual {term!r} was already freed. Likely loss.backward() ran before; "
            "compute the kernel first, or call backward(retain_graph=True)."
        ) from error
    if exact is None:
        return jacobian, None
    return jacobian, Probe(exact, _factored_probe(residual, jacobian))


def _fall_back(
    term: str,
    residual: Tensor,
    leaves: Mapping[str, Tensor],
    jacobian: FactoredJacobian,
    reasons: Mapping[str, str],
) -> None:
    """Replace the factors of the parameters in ``reasons`` by rows computed one by one."""
    if not reasons:
        return
    for name in reasons:
        jacobian.factors.pop(name, None)
    failed = {name: leaves[name] for name in reasons}
    rows: dict[str, Factor] = {
        name: Dense(gradients)
        for name, gradients in row_gradients(residual, failed, jacobian.memory_budget).items()
    }
    jacobian.factors |= rows
    if jacobian.rows > 1:
        jacobian.fallbacks |= reasons
        numel = sum(leaf.numel() for leaf in failed.values())
        megabytes = jacobian.rows * numel * residual.element_size() / 2**20
        warnings.warn(
            f"term {term!r}: {_listed(reasons)}. Its exact rows were computed one by one instead: "
            f"{jacobian.rows} vector-Jacobian products, {megabytes:.1f} MiB.",
            NTKWarning,
            stacklevel=4,
        )


def _listed(reasons: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{reason} (parameter {', '.join(n)})" for reason, n in by_reason.items())


def _backward_probe(residual: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(
        residual,
        list(leaves.values()),
        _probe_vector(residual).view_as(residual),
        retain_graph=True,
        allow_unused=True,
    )
    return {
        name: gradient.detach().double().flatten()
        for name, gradient in zip(leaves, gradients, strict=True)
        if gradient is not None
    }


def _factored_probe(residual: Tensor, jacobian: FactoredJacobian) -> dict[str, Tensor]:
    products = jacobian.rmatvec_by_parameter(_probe_vector(residual).flatten())
    return {name: product.double() for name, product in products.items()}


def _probe_vector(residual: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0x9E3779B9)
    probe = torch.randn(residual.numel(), generator=generator, dtype=torch.float64)
    return probe.to(residual.device, residual.dtype)


def _dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return sum(float(a[name] @ b[name]) for name in a if name in b)


def _distance(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None:
        present = b if a is None else a
        return 0.0 if present is None else float(present.norm())
    return float((a - b).norm())
