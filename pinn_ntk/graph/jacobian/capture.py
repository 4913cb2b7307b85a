"""Residual -> factored Jacobian with its certificate; what the fast path cannot do goes row by row.

The certificate (`certificate.py` here): for a random probe v, J^T v from the factors must equal the
ordinary backward pass, parameter by parameter. A use of a parameter that was missed, rows that
interact, a wrong rule: each shows in it at once. v differs from every cotangent used before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pinn_ntk.errors import ResidualError, warn
from pinn_ntk.graph.broadcast import spread_by_accident
from pinn_ntk.graph.jacobian.certificate import (
    ROUNDINGS,
    Probe,
    backward_probe,
    factored_probe,
    magnitudes,
    tolerance,
)
from pinn_ntk.graph.jacobian.generic import is_freed, row_gradients
from pinn_ntk.graph.jacobian.row_factors import row_factors
from pinn_ntk.kernel.factors import Dense
from pinn_ntk.kernel.jacobian import FactoredJacobian


def capture(
    term: str,
    residual: Tensor,
    leaves: Mapping[str, Tensor],
    *,
    certify: bool,
    dtype: torch.dtype,
    memory_budget: int,
) -> tuple[FactoredJacobian, Probe | None]:
    """Factored Jacobian of one residual and, with ``certify``, the probe that certifies it.

    Raises ResidualError where the graph was freed; other failures of autograd pass as they came.
    """
    accident = spread_by_accident(term, residual, leaves)
    if accident is not None:
        warn(accident, stacklevel=3)
    try:
        factors, reasons, mixed, coarsest = row_factors(residual, leaves)
        jacobian = FactoredJacobian(
            factors,
            {name: leaf.shape.numel() for name, leaf in leaves.items()},
            residual.numel(),
            dtype=dtype,
            device=residual.device,
            memory_budget=memory_budget,
        )
        exact = backward_probe(residual, leaves) if certify else None
        probe = None
        if exact is not None:
            low = torch.finfo(coarsest).bits < 32  # half precision
            sizes = magnitudes(residual, leaves, factors) if low else {}
            probe = Probe(exact, factored_probe(residual, leaves, factors), sizes)
            rounding = 0.0 if low else ROUNDINGS * torch.finfo(coarsest).eps
            failures = probe.failed(tolerance(coarsest), rounding)
            reasons = {n: _off_by(e, tolerance(coarsest)) for n, e in failures.items()} | reasons
        if reasons:
            _fall_back(residual, leaves, jacobian, reasons)
        if (reasons or mixed) and jacobian.rows > 1:
            _report(term, leaves, jacobian, mixed | reasons)
        if reasons and exact is not None:
            probe = Probe(exact, factored_probe(residual, leaves, jacobian.factors))
    except RuntimeError as error:
        if is_freed(error):
            raise ResidualError(
                f"the graph of residual {term!r} was already freed. Likely loss.backward() ran "
                "before; compute the kernel first, or call backward(retain_graph=True)."
            ) from error
        raise
    return jacobian, probe


def _off_by(error: float, most: float) -> str:
    """The reason in words without the error itself, so that every step gives the same warning."""
    return f"the certificate is off by {f'more than {most:.0e}' if error > most else error}"


def _fall_back(
    residual: Tensor, leaves: Mapping[str, Tensor], jacobian: FactoredJacobian, names: Iterable[str]
) -> None:
    """Replace the factors of the parameters ``names`` by rows computed one by one."""
    failed = {name: leaf for name, leaf in leaves.items() if name in set(names)}
    for name in failed:
        jacobian.factors.pop(name, None)
    rows = row_gradients(residual, failed, jacobian.memory_budget)
    jacobian.factors.update({name: Dense(gradients) for name, gradients in rows.items()})


def _report(
    term: str, leaves: Mapping[str, Tensor], jacobian: FactoredJacobian, reasons: Mapping[str, str]
) -> None:
    """Say which parameters took a backward pass a row, and at what cost."""
    reasons = {name: reasons[name] for name in leaves if name in reasons}
    jacobian.fallbacks |= reasons
    size = sum(leaves[name].shape.numel() * leaves[name].element_size() for name in reasons)
    warn(
        f"term {term!r}: {_listed(reasons)}. Its exact rows were computed one by one instead: "
        f"{jacobian.rows} vector-Jacobian products, {jacobian.rows * size / 2**20:.1f} MiB.",
        stacklevel=4,
    )


def _listed(reasons: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{reason} (parameter {', '.join(n)})" for reason, n in by_reason.items())
