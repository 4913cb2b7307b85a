"""Kernels made of another one, and values that belong to their rows.

Some rows instead of all keep the cost of blocks and spectra bounded; factors apart from what the
optimizer overwrites let a kernel outlive its step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.ntk import NTK


def thinned(kernel: NTK, max_points: int) -> NTK:
    """The kernel of at most ``max_points`` rows a term: rows 0, k, 2k, ... of its residual.

    The same kernel where no term has more; else its factors are views of the given ones.

    >>> from pinn_ntk import empirical_ntk
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> thinned(empirical_ntk(w * torch.arange(5.0), [w]), 3)["residual"].diag().tolist()
    [0.0, 4.0, 16.0]
    """
    if all(kernel.rows(term) <= max_points for term in kernel.terms):
        return kernel
    strides = {term: strided_by(kernel.rows(term), max_points) for term in kernel.terms}
    return kernel_of_rows(kernel, {term: slice(None, None, k) for term, k in strides.items()})


def strided_by(rows: int, max_points: int) -> int:
    """k of the rows 0, k, 2k, ... of which at most ``max_points`` remain."""
    return max(1, math.ceil(rows / max_points))


def kernel_of_rows(kernel: NTK, rows: Mapping[str, Tensor | slice]) -> NTK:
    """The kernel of the rows named, term -> indices (R_kept,); a term that is absent keeps all.

    Nothing is differentiated again, and there is no certificate.

    >>> from pinn_ntk import empirical_ntk
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> kernel = empirical_ntk(w * torch.arange(5.0), [w])
    >>> kernel_of_rows(kernel, {"residual": torch.tensor([1, 3])})["residual"].tolist()
    [[1.0, 3.0], [3.0, 9.0]]
    """
    return NTK(
        {term: kernel.jacobian(term).take(rows.get(term, slice(None))) for term in kernel.terms}
    )


def stratified_rows(rows: int, max_points: int, seed: int) -> Tensor:
    """One row drawn from each of ``max_points`` neighbouring strata of equal size, in order.

    Batches are often joined of parts (initial line, two boundaries), or repeat points at a fixed
    distance. Strata keep every part represented as to its size, which a plain draw does not; the
    draw within them keeps from hitting a period, which every k-th row may. The generator is seeded
    by itself; the indices are int64 on the CPU.

    >>> stratified_rows(6, 3, seed=0).tolist()  # one of 0 1, one of 2 3, one of 4 5
    [1, 3, 4]
    >>> stratified_rows(2, 3, seed=0).tolist()
    [0, 1]
    """
    if max_points < 1:
        raise ValueError(f"max_points is {max_points}; expected 1 or more rows to keep.")
    if rows <= max_points:
        return torch.arange(rows)
    edges = torch.arange(max_points + 1) * rows // max_points
    sizes = edges.diff()
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(max_points, generator=generator, dtype=torch.float64)
    return edges[:-1] + (place * sizes).long()


def row_values(
    kernel: NTK,
    term: str,
    values: Tensor,
    what: str,
    *,
    expected: str = "those whose kernel this is",
    finite: bool = True,
) -> Tensor:
    """Values of one term, any shape with R_a entries, flattened and detached, (R_a,)."""
    jacobian = kernel.jacobian(term)
    vector = values.detach().to(jacobian.device, jacobian.dtype).reshape(-1)
    if len(vector) != jacobian.rows or (finite and not bool(vector.isfinite().all())):
        raise ValueError(
            f"the {what} of term {term!r} has shape {tuple(values.shape)}; expected "
            f"{jacobian.rows}{' finite' if finite else ''} entries, {expected}."
        )
    return vector


def kept_apart(kernel: NTK, tensors: Iterable[Tensor]) -> NTK:
    """The same kernel without memory in common with tensors that are about to change in place.

    Weights of a network may be factors of its Jacobians as they are: those are copied. Blocks are
    not kept.
    """
    changing = {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def own(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in changing else tensor

    def owned(factor: Factor) -> Factor:
        if isinstance(factor, Dense):
            return Dense(own(factor.gradients))
        return Outer(tuple(map(own, factor.left)), tuple(map(own, factor.right)))

    jacobians = {term: kernel.jacobian(term) for term in kernel.terms}
    return NTK({term: j.with_factors(owned, j.rows) for term, j in jacobians.items()})


def versions(kernel: NTK) -> list[int]:
    """How often the memory behind the factors of a kernel was written to in place.

    Counters of autograd, others once a factor is no more what it was: it may be a view of points
    that somebody overwrites. Tensors made in inference mode have none.
    """
    factors = [f for term in kernel.terms for f in kernel.jacobian(term).factors.values()]
    held = [(f.gradients,) if isinstance(f, Dense) else (*f.left, *f.right) for f in factors]
    return [x._version for tensors in held for x in tensors if not x.is_inference()]
