"""Kernels that outlive their step: factors apart from what the optimizer overwrites."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from pinn_ntk.kernel.ntk import NTK


def kept_apart(kernel: NTK, tensors: Iterable[Tensor]) -> NTK:
    """The same kernel without memory in common with tensors that are about to change in place.

    Weights of a network may be factors of its Jacobians as they are: those are copied. Blocks are
    not kept.
    """
    changing = {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def own(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in changing else tensor

    jacobians = {term: kernel.jacobian(term) for term in kernel.terms}
    kept = {
        term: jacobian.with_factors(lambda f: f.mapped(own), jacobian.rows, jacobian.sample)
        for term, jacobian in jacobians.items()
    }
    return NTK(kept)


def versions(kernel: NTK) -> list[int]:
    """How often the memory behind the factors of a kernel was written to in place.

    Counters of autograd, others once a factor is no more what it was: it may be a view of points
    that somebody overwrites. Tensors made in inference mode have none.
    """
    factors = [f for term in kernel.terms for f in kernel.jacobian(term).factors.values()]
    return [x._version for factor in factors for x in factor.tensors if not x.is_inference()]
