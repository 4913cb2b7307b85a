"""What a user may hand over as residuals, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pinn_ntk.errors import ResidualError
from pinn_ntk.graph.subclasses import plain


def named_residuals(residuals: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Live residual tensors by name; one tensor alone is called "residual".

    Subclasses of Tensor are unwrapped, the graph stays attached. Raises ResidualError for a tensor
    that has no kernel.
    """
    if isinstance(residuals, Tensor):
        residuals = {"residual": residuals}
    if not isinstance(residuals, Mapping):
        raise TypeError(
            f"residuals is a {type(residuals).__name__}; expected a live tensor or a dict of them, "
            'such as {"pde": r, "bc": b}.'
        )
    if not residuals:
        raise ResidualError("residuals is empty; expected at least one live residual tensor.")
    return {str(name): _checked(str(name), tensor) for name, tensor in residuals.items()}


def _checked(name: str, residual: Tensor) -> Tensor:
    if not isinstance(residual, Tensor):
        raise TypeError(
            f"residual {name!r} is a {type(residual).__name__}; expected the live tensor that the "
            "loss squares (not .item(), not a NumPy array; of a found term, its .residual)."
        )
    residual = plain(residual)
    if not residual.requires_grad:
        raise ResidualError(
            f"residual {name!r} does not require grad, so no parameter can be seen behind it. "
            "Likely it was detached, made under torch.no_grad() or in inference mode. Pass the "
            "tensor that the loss is computed from."
        )
    if residual.numel() == 0:
        raise ResidualError(
            f"residual {name!r} has no rows (shape {tuple(residual.shape)}). Likely an empty mask "
            "or batch; leave the term out on such steps."
        )
    if not residual.is_floating_point():
        raise ResidualError(
            f"residual {name!r} has dtype {residual.dtype}; the kernel is defined for real "
            "residuals. Pass torch.view_as_real(r) for a complex one."
        )
    bad = int((~torch.isfinite(residual.detach())).sum())
    if bad:
        raise ResidualError(
            f"residual {name!r} holds NaN or inf in {bad} of {residual.numel()} rows; its kernel "
            "is not defined. Likely training has diverged (lower the learning rate) or the points "
            "include a singularity."
        )
    with torch.enable_grad():  # callers often hold no_grad
        return residual if residual.ndim else residual.reshape(1)
