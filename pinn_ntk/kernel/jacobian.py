"""The Jacobian of one residual, kept in factors and used as a linear operator.

J = d r / d theta, (R, P), of one residual r (R,) and the trained parameters theta (P,), flattened
one after another. It is never formed unless `dense` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pinn_ntk.kernel.cancellation import add_products, row_squares
from pinn_ntk.kernel.parts import RowFactor
from pinn_ntk.kernel.stacked import stacked

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from pinn_ntk.kernel.sample import Sample

DEFAULT_BUDGET = 2**27
"""Bytes that the temporaries of one contraction may take (128 MiB)."""

CHUNK = 2**12
"""Rows whose factors are converted to the dtype of contractions at a time, in products with J."""


class FactoredJacobian:
    """d r / d theta of one residual, as per-parameter factors.

    A weight used at S places of the graph is kept as S left (R, m) and S right (R, n) factors,
    which takes R S (m + n) numbers where the written-out Jacobian takes R m n.

    Attributes:
        factors: Parameter name -> factor; parameters that the residual does not depend on are
            absent and have zero columns.
        sizes: Parameter name -> number of entries, of all parameters, in column order.
        rows: R, of the rows that are held.
        sample: How these stand for all rows of the residual; None where they are all.
        fallbacks: Parameter name -> reason, for parameters whose rows were computed one by one.

    Example:
        >>> from pinn_ntk import empirical_ntk
        >>> x, w = torch.tensor([1.0, 2.0, 3.0]), torch.tensor(2.0, requires_grad=True)
        >>> jacobian = empirical_ntk(w * x, [w]).jacobian("residual")
        >>> jacobian.shape, jacobian.dense().flatten().tolist()
        ((3, 1), [1.0, 2.0, 3.0])
        >>> jacobian.rmatvec(torch.ones(3)).tolist()
        [6.0]
    """

    def __init__(
        self,
        factors: Mapping[str, RowFactor],
        sizes: Mapping[str, int],
        rows: int,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        fallbacks: Mapping[str, str] | None = None,
        memory_budget: int = DEFAULT_BUDGET,
        sample: Sample | None = None,
    ) -> None:
        self.factors = dict(factors)
        self.sizes = dict(sizes)
        self.rows = rows
        self.dtype = dtype
        self.device = torch.device(device)
        self.fallbacks = dict(fallbacks or {})
        self.memory_budget = memory_budget
        self.sample = sample

    @property
    def all_rows(self) -> int:
        """Rows of the residual, those that were not measured included."""
        return self.rows if self.sample is None else self.sample.total

    @property
    def shape(self) -> tuple[int, int]:
        """(R, P)."""
        return self.rows, sum(self.sizes.values())

    def diagonal(self) -> Tensor:
        """Diagonal of J J^T, the squared norm of each row gradient, (R,). Exact."""
        parts = map(self._squares, self.factors.values())
        return sum(parts, start=self._zeros(self.rows))

    def trace(self) -> float:
        """Trace of J J^T over all rows, no block is formed. Exact, or estimated from a sample."""
        return self.total(self.diagonal())

    def total(self, diagonal: Tensor) -> float:
        """Sum over all rows of the residual of numbers that are known of the rows held, (R,)."""
        return float(diagonal.sum()) if self.sample is None else self.sample.estimate(diagonal)

    def trace_error(self) -> float:
        """Standard error of `trace`; 0 where no row is left out."""
        return 0.0 if self.sample is None else self.sample.error(self.diagonal())

    def squared_norms(self) -> dict[str, float]:
        """Parameter name -> its share of the trace, the squared Frobenius norm of its columns."""
        norms = {name: self.total(self._squares(f)) for name, f in self.factors.items()}
        return dict.fromkeys(self.sizes, 0.0) | norms

    def take(self, rows: slice | Tensor) -> FactoredJacobian:
        """The Jacobian of some rows: a slice, which copies nothing, or indices (R_kept,)."""
        if isinstance(rows, Tensor):
            rows = rows.to(self.device)
        count = len(torch.arange(self.rows, device=self.device)[rows])
        return self.with_factors(lambda factor: factor.slice(rows), count)

    def with_factors(
        self,
        changed: Callable[[RowFactor], RowFactor],
        rows: int,
        sample: Sample | None = None,
    ) -> FactoredJacobian:
        """The Jacobian of ``rows`` rows with each factor changed, over the same parameters."""
        return FactoredJacobian(
            {name: changed(factor) for name, factor in self.factors.items()},
            self.sizes,
            rows,
            dtype=self.dtype,
            device=self.device,
            fallbacks=self.fallbacks,
            memory_budget=self.memory_budget,
            sample=sample,
        )

    def gram(self, other: FactoredJacobian | None = None) -> Tensor:
        """J J'^T, one block of the kernel, (R, R') in the contraction dtype.

        ``other`` is J', J itself when left out; ValueError where it is over other parameters.
        """
        other = self if other is None else other
        check_same_parameters([self, other])
        block = self._zeros(self.rows, other.rows)
        for name, factor in self.factors.items():
            if name in other.factors:
                budget, same = self.memory_budget, other is self
                add_products(block, factor, other.factors[name], self.dtype, budget, same=same)
        return block

    def matvec(self, vector: Tensor) -> Tensor:
        """J v, (P,) -> (R,) in the contraction dtype."""
        vector = self._vector(vector, self.shape[1])
        parts = dict(zip(self.sizes, vector.split(list(self.sizes.values())), strict=True))
        total = self._zeros(self.rows)
        for some, chunk in zip(total.split(self._chunk), self._chunks(), strict=True):
            for name, factor in chunk.factors.items():
                some.add_(factor.to(self.dtype).matvec(parts[name]))
        return total

    def rmatvec(self, vector: Tensor) -> Tensor:
        """J^T w, (R,) -> (P,) in the contraction dtype."""
        parts = self.rmatvec_by_parameter(vector)
        return torch.cat([parts.get(n, self._zeros(size)) for n, size in self.sizes.items()])

    def rmatvec_by_parameter(self, vector: Tensor) -> dict[str, Tensor]:
        """J^T w, parameter by parameter, flattened; absent where it is zero throughout."""
        vector = self._vector(vector, self.rows)
        total: dict[str, Tensor] = {}
        for some, chunk in zip(vector.split(self._chunk), self._chunks(), strict=True):
            for name, factor in chunk.factors.items():
                part = factor.to(self.dtype).rmatvec(some)
                total[name] = total[name] + part if name in total else part
        return total

    def dense(self) -> Tensor:
        """J written out, (R, P). Takes R * P numbers."""
        known = {name: factor.to(self.dtype).rows() for name, factor in self.factors.items()}
        columns = self.sizes.items()
        parts = [known[n] if n in known else self._zeros(self.rows, size) for n, size in columns]
        return torch.cat(parts, dim=1)

    def as_linear_operator(self) -> LinearOperator:
        """J as a `scipy.sparse.linalg.LinearOperator` on NumPy vectors."""
        from scipy.sparse.linalg import LinearOperator

        return LinearOperator(
            shape=self.shape,
            dtype=self._zeros(0).cpu().numpy().dtype,
            matvec=lambda v: self.matvec(torch.as_tensor(v.copy())).cpu().numpy(),
            rmatvec=lambda w: self.rmatvec(torch.as_tensor(w.copy())).cpu().numpy(),
        )

    def _squares(self, factor: RowFactor) -> Tensor:
        return row_squares(factor, self.dtype, self.memory_budget)

    def _chunks(self) -> Iterator[FactoredJacobian]:
        """At most `_chunk` rows at a time."""
        if self.rows <= self._chunk:
            yield self
            return
        for start in range(0, self.rows, self._chunk):
            yield self.take(slice(start, start + self._chunk))

    @property
    def _chunk(self) -> int:
        """Rows of the largest factor that are converted at a time."""
        row = max((factor.row for factor in self.factors.values()), default=1)
        item = torch.finfo(self.dtype).bits // 8
        return max(1, min(CHUNK, self.memory_budget // max(1, row * item)))

    def _vector(self, vector: Tensor, length: int) -> Tensor:
        vector = vector.detach().to(self.device, self.dtype).reshape(-1)
        if vector.numel() != length:
            raise ValueError(
                f"expected a vector of {length} entries for a Jacobian of shape {self.shape}, "
                f"got {vector.numel()}; matvec takes (P,), rmatvec takes (R,)."
            )
        return vector

    def _zeros(self, *size: int) -> Tensor:
        return torch.zeros(size, dtype=self.dtype, device=self.device)


def joined(jacobians: Sequence[FactoredJacobian]) -> FactoredJacobian:
    """The rows of several Jacobians below one another; the factors are copied."""
    check_same_parameters(jacobians)
    rows = [jacobian.rows for jacobian in jacobians]
    factors: dict[str, RowFactor] = {}
    for name in jacobians[0].sizes:
        parts = [jacobian.factors.get(name) for jacobian in jacobians]
        if any(part is not None for part in parts):
            factors[name] = stacked(parts, rows)
    return FactoredJacobian(
        factors,
        jacobians[0].sizes,
        sum(rows),
        dtype=jacobians[0].dtype,
        device=jacobians[0].device,
        memory_budget=jacobians[0].memory_budget,
    )


def check_same_parameters(jacobians: Sequence[FactoredJacobian]) -> None:
    """Refuse Jacobians that have no columns in common."""
    first = jacobians[0]
    for other in jacobians[1:]:
        if other.sizes != first.sizes:
            raise ValueError(
                f"expected Jacobians over the same parameters, got {list(first.sizes)} and "
                f"{list(other.sizes)}; take both kernels with the same params."
            )
