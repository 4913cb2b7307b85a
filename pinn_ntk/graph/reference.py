"""The slow obvious kernel, row by row: the truth that every fast path is held against.

J_a = d r_a / d theta, (R_a, P), of the residual r_a (R_a,) of loss term ``a`` takes one
``autograd.grad`` call a row; K_ab = J_a J_b^T, (R_a, R_b), is one block of the kernel. theta are
the trained parameters in the order given, each flattened row-major, as residuals are, P in all.
The cost is one backward pass a row and the memory of every J_a: use it to check, not to measure.
It shares no code with the engine that it checks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pinn_ntk.graph.params import ParamsLike


def reference_ntk(
    residuals: Tensor | Mapping[str, Tensor], params: ParamsLike
) -> dict[tuple[str, str], Tensor]:
    """Empirical neural tangent kernel of live residuals, from explicit row-by-row Jacobians.

    The kernel of Jacot, Gabriel and Hongler (2018), taken of the residuals of a PINN in blocks
    K_ab = J_a J_b^T as in Wang, Yu and Perdikaris (2022), equations 3.4 and 3.5.

    Args:
        residuals: Live tensors by name, of any shape (R_a entries each); one bare tensor is named
            "residual".
        params: A module, an optimizer, named pairs, or tensors. Frozen parameters are left out,
            unused ones have zero columns, and one given twice counts once.

    Returns:
        {(a, b): K_ab (R_a, R_b), float64} for every ordered pair of names. The graph stays alive.

    Example:
        A linear model u = a x + b has the kernel x x' + 1.

        >>> a, b = (torch.tensor(v, requires_grad=True) for v in (2.0, -1.0))
        >>> x = torch.tensor([0.0, 1.0, 2.0])
        >>> kernel = reference_ntk({"data": a * x + b, "slope": 3 * a}, [a, b])
        >>> kernel["data", "data"]
        tensor([[1., 1., 1.],
                [1., 2., 3.],
                [1., 3., 5.]], dtype=torch.float64)
        >>> kernel["slope", "data"]
        tensor([[0., 3., 6.]], dtype=torch.float64)
    """
    if isinstance(residuals, Tensor):
        residuals = {"residual": residuals}
    theta = _trained(params)
    jacobians = {name: reference_jacobian(residual, theta) for name, residual in residuals.items()}
    return {(a, b): jacobians[a] @ jacobians[b].T for a in jacobians for b in jacobians}


def reference_jacobian(residual: Tensor, params: ParamsLike) -> Tensor:
    """Jacobian of one live residual of any shape, one backward pass a row, (R, P) float64.

    >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> reference_jacobian(torch.stack([w.prod(), w.square().sum()]), [w])
    tensor([[4., 3.],
            [6., 8.]], dtype=torch.float64)
    """
    if not residual.requires_grad:
        raise ValueError(
            f"expected a live residual, got shape {tuple(residual.shape)} without a graph: it was "
            "detached or made under torch.no_grad(). Pass the tensor the loss is computed from."
        )
    theta = _trained(params)
    rows = [_gradient(entry, theta) for entry in residual.reshape(-1)]
    width = sum(parameter.numel() for parameter in theta)
    return torch.stack(rows) if rows else torch.zeros(0, width, dtype=torch.float64)


def _gradient(entry: Tensor, theta: list[Tensor]) -> Tensor:
    """Gradient (P,) of one residual entry, float64."""
    gradients = torch.autograd.grad(entry, theta, retain_graph=True, materialize_grads=True)
    return torch.cat([g.detach().double().flatten() for g in gradients])


def _trained(params: ParamsLike) -> list[Tensor]:
    """The tensors of ``params`` that require a gradient, each once, in the order given."""
    if isinstance(params, nn.Module):
        params = list(params.parameters())
    elif isinstance(params, torch.optim.Optimizer):
        params = [p for group in params.param_groups for p in group["params"]]
    elif isinstance(params, Tensor):
        params = [params]
    entries = params.items() if isinstance(params, Mapping) else params
    tensors = [entry if isinstance(entry, Tensor) else entry[1] for entry in entries]
    trained = list({id(p): p for p in tensors if p.requires_grad}.values())
    if not trained:
        raise ValueError(
            f"expected a parameter with requires_grad=True, got {len(tensors)} tensors without: "
            "everything is frozen, or an iterator was read before. Pass the module itself."
        )
    return trained
