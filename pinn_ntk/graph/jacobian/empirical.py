"""The kernel of live residuals: the way in to everything that reads graphs for their Jacobian."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pinn_ntk.graph.jacobian.capture import capture
from pinn_ntk.graph.jacobian.certificate import Probe
from pinn_ntk.graph.params import ParamsLike, named_leaves
from pinn_ntk.graph.residuals import named_residuals
from pinn_ntk.graph.subclasses import plain_functions
from pinn_ntk.kernel.jacobian import DEFAULT_BUDGET, FactoredJacobian
from pinn_ntk.kernel.ntk import NTK


def empirical_ntk(
    residuals: Tensor | Mapping[str, Tensor],
    params: ParamsLike,
    *,
    certify: bool = True,
    dtype: torch.dtype = torch.float64,
    memory_budget: int = DEFAULT_BUDGET,
) -> NTK:
    """Kernel of live residual tensors, read off the graph they carry; nothing is run again.

    Call it before the graph is freed, that is before ``loss.backward()``. The graph, the
    parameters' ``.grad`` and the random state stay as they are; hooks on tensors run, and tensors
    with ``retain_grad`` are filled, as with any ``torch.autograd.grad``.

    Args:
        residuals: One live tensor (called "residual") or name -> live tensor, of any shapes.
        params: What is trained: a module, an optimizer, named pairs, or tensors. Frozen and
            unused parameters are fine.
        certify: Check the factors of each term against one ordinary backward pass with a random
            probe, and compute what fails row by row. Costs one backward pass a term; switch it
            off only where a certified kernel of the same graph was seen.
        dtype: Dtype of contractions; the factors are captured in the model's dtype.
        memory_budget: Bytes that temporaries of one contraction may take.

    Returns:
        The kernel; blocks are formed when asked for.

    Raises:
        ResidualError: A residual requires no gradient, has no rows, holds NaN or inf, is not
            real, or its graph was freed.
        TypeError: ``residuals`` or ``params`` is of an unknown kind.
        ValueError: ``params`` holds nothing trainable.

    Example:
        >>> x = torch.tensor([0.0, 1.0, 2.0])
        >>> a = torch.tensor(2.0, requires_grad=True)
        >>> b = torch.tensor(1.0, requires_grad=True)
        >>> kernel = empirical_ntk({"data": a * x + b}, {"a": a, "b": b})
        >>> kernel
        NTK(data: 3 rows; 2 parameters)
        >>> kernel["data"]  # x x' + 1
        tensor([[1., 1., 1.],
                [1., 2., 3.],
                [1., 3., 5.]], dtype=torch.float64)
        >>> kernel.trace("data")
        8.0
    """
    named, leaves = named_residuals(residuals), named_leaves(params)
    jacobians: dict[str, FactoredJacobian] = {}
    probes: dict[str, Probe] = {}
    device = next(iter(named.values())).device.type
    with (
        torch.autocast(device, enabled=False),
        plain_functions(),
    ):  # it would narrow products of our own
        for name, residual in named.items():
            jacobians[name], probe = capture(
                name, residual, leaves, certify=certify, dtype=dtype, memory_budget=memory_budget
            )
            if probe is not None:
                probes[name] = probe
    return NTK(jacobians, {(a, b): probes[a].error(probes[b]) for a in probes for b in probes})
