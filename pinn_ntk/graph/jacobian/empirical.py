"""The kernel of live residuals: the way in to everything that reads graphs for their Jacobian."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pinn_ntk.errors import warn
from pinn_ntk.graph.jacobian.certificate import errors
from pinn_ntk.graph.jacobian.cost import Say
from pinn_ntk.graph.jacobian.slow_rows import Allow, captured
from pinn_ntk.graph.params import ParamsLike, named_leaves
from pinn_ntk.graph.residuals import named_residuals
from pinn_ntk.graph.subclasses import plain_functions
from pinn_ntk.kernel.bounds import MEMORY_BUDGET, Bounds
from pinn_ntk.kernel.ntk import NTK

PACKAGE = str(Path(__file__).parents[2])


def empirical_ntk(
    residuals: Tensor | Mapping[str, Tensor],
    params: ParamsLike,
    *,
    certify: bool = True,
    dtype: torch.dtype = torch.float64,
    max_rows: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
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
            off only where a certified kernel of the same graph was seen: hooks on parameters, and
            couplings of rows by less than a billionth, are not seen without.
        dtype: Dtype of contractions; the factors are captured in the model's dtype.
        max_rows: Rows of all terms together that may be taken one by one, where the fast path
            cannot serve a parameter; at least some of each term. Above it such a term is measured
            on rows drawn from equal strata: its traces are estimates with a standard error
            (``kernel.trace_error``), its blocks are of these rows (``kernel.sampled``). None: all.
        memory_budget: Bytes that the measurement may take beyond what training holds. Half of them
            are for factors and rows: where those of all rows do not fit, rows are drawn likewise,
            after a warning. Blocks that you ask for take 8 R_a R_b bytes each besides.

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
    bounds = Bounds(memory_budget, max_rows)
    return kernel_within(residuals, params, bounds, certify=certify, dtype=dtype)


def kernel_within(
    residuals: Tensor | Mapping[str, Tensor],
    params: ParamsLike,
    bounds: Bounds,
    *,
    certify: bool,
    dtype: torch.dtype = torch.float64,
    say: Say | None = None,
    allow: Allow = lambda _: None,
) -> NTK:
    """The same for callbacks, which say things once a fit, and wait until time allows."""
    named, leaves = named_residuals(residuals), named_leaves(params)
    device = next(iter(named.values())).device.type
    with torch.autocast(device, enabled=False), plain_functions():  # our own products stay wide
        captures = captured(
            named, leaves, bounds, certify=certify, dtype=dtype, say=say or warned, allow=allow
        )
    probes = {term: c.probe for term, c in captures.items() if c.probe is not None}
    jacobians = {term: capture.jacobian for term, capture in captures.items()}
    return NTK(jacobians, errors(probes) if probes else {})


def warned(_about: str, message: str) -> None:
    """Give a message as a warning that points to the caller of this package."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        depth, frame = depth + 1, frame.f_back
    warn(message, stacklevel=depth)
