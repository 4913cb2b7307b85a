"""Kernels that outlive their step: factors apart from what the optimizer overwrites."""

from __future__ import annotations

from collections.abc import Container, Iterable

from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.jacobian import FactoredJacobian
from pinn_ntk.kernel.ntk import NTK


def kept_apart(kernel: NTK, tensors: Iterable[Tensor]) -> NTK:
    """The same kernel without memory in common with tensors that are about to change in place.

    Args:
        kernel: The kernel; weights of a network may be factors of its Jacobians as they are.
        tensors: What changes, such as the parameters.

    Returns:
        A kernel whose factors are copies where they shared memory; blocks are not kept.
    """
    changing = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return NTK({term: _apart(kernel.jacobian(term), changing) for term in kernel.terms})


def _apart(jacobian: FactoredJacobian, changing: Container[int]) -> FactoredJacobian:
    def own(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in changing else tensor

    def owned(factor: Factor) -> Factor:
        if isinstance(factor, Dense):
            return Dense(own(factor.gradients))
        return Outer(tuple(map(own, factor.left)), tuple(map(own, factor.right)))

    return FactoredJacobian(
        {name: owned(factor) for name, factor in jacobian.factors.items()},
        jacobian.sizes,
        jacobian.rows,
        dtype=jacobian.dtype,
        device=jacobian.device,
        fallbacks=jacobian.fallbacks,
        memory_budget=jacobian.memory_budget,
    )


def versions(kernel: NTK) -> list[int]:
    """How often the memory behind the factors of a kernel was written to in place.

    Args:
        kernel: The kernel.

    Returns:
        Counters of autograd, others once a factor is no more what it was: it may be a view of
        points that somebody overwrites. Tensors made in inference mode have none.
    """
    factors = [f for term in kernel.terms for f in kernel.jacobian(term).factors.values()]
    tensors = [tensor for factor in factors for tensor in _tensors(factor)]
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def _tensors(factor: Factor) -> tuple[Tensor, ...]:
    return (factor.gradients,) if isinstance(factor, Dense) else (*factor.left, *factor.right)
