"""The kernel gradient: how a step of training moves the network's values, at any points.

| symbol | meaning | shape |
| --- | --- | --- |
| r_a | residual of term ``a``, flattened: component c of point n is row n C + c | (R_a,) |
| L | the loss, a differentiable function of all r_a | () |
| g_a | dL/dr_a, its slope; holds the 1/N of a mean and all weights | (R_a,) |
| d_a | N g_a, functional derivative under <f, h> = 1/N sum_i f(x_i)^T h(x_i) | (R_a,) |
| K_ab | J_a J_b^T, one block of the kernel | (R_a, R_b) |

The kernel gradient of Jacot, Gabriel, Hongler 2018 (section 3) is the function
1/N sum_j K(x, x_j) d(x_j) of x, which is sum_b K(x, b) g_b. Gradient flow on the parameters moves
the network's values against it, df/dt = -sum_b K(x, b) g_b, and one step of gradient descent
changes them by -lr times as much, up to lr^2. The points x may be any, those not trained on, too:
they are one more residual of the kernel, for which there is no slope. Residuals with derivatives
move by the same rule, each with its own rows of J.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from pinn_ntk.analysis.row_values import sampled_rows
from pinn_ntk.graph.residuals import named_residuals
from pinn_ntk.graph.terms.completeness import checked, cut, explained
from pinn_ntk.kernel.ntk import NTK


def loss_gradients(loss: Tensor, residuals: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Slopes g_a = dL/dr_a of any differentiable loss, each with the other residuals held fixed.

    The graph stays as it is and nothing is accumulated; hooks on tensors run, as with any
    ``torch.autograd.grad``; it starts at the loss, which DDP with ``static_graph=True`` does not
    stand. Paths from the loss to the parameters that meet no residual, such as penalties, are not
    seen. For a loss whose residuals are not at hand, `pinn_ntk.find_terms` gives residuals and
    slopes together.

    Args:
        loss: One number with a live graph.
        residuals: One live tensor (called "residual") or name -> live tensor, those that the loss
            was computed from, of any shapes.

    Returns:
        Name -> dL/dr_a, shape and dtype of r_a.

    Raises:
        ResidualError: A residual has no graph, no rows, or holds NaN or inf.
        TypeError: An argument is of an unknown kind.
        ValueError: The loss is not one number or has no graph, does not depend on a residual, or
            two names stand for one tensor.

    Example:
        >>> w = torch.tensor(2.0, requires_grad=True)
        >>> r, b = w * torch.tensor([1.0, 2.0]), w - torch.ones(1)
        >>> loss_gradients(r.square().mean() + 3 * b.abs().sum(), {"pde": r, "bc": b})
        {'pde': tensor([2., 4.]), 'bc': tensor([3.])}
    """
    loss = checked(loss)
    named_residuals(residuals)  # refuses what has no kernel
    named = {"residual": residuals} if isinstance(residuals, Tensor) else dict(residuals)
    edges = {name: get_gradient_edge(residual) for name, residual in named.items()}
    _refuse_twins(edges)
    inner = {edge.node for name, edge in edges.items() if not named[name].is_leaf}
    with explained(), cut(inner):  # a residual may be computed from another one
        wanted = list(edges.values())
        slopes = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    return {name: _seen(name, slope) for name, slope in zip(named, slopes, strict=True)}


@overload
def kernel_gradient(kernel: NTK, slopes: Mapping[str, Tensor], at: str) -> Tensor: ...


@overload
def kernel_gradient(
    kernel: NTK, slopes: Mapping[str, Tensor], at: None = None
) -> dict[str, Tensor]: ...


def kernel_gradient(
    kernel: NTK, slopes: Mapping[str, Tensor], at: str | None = None
) -> Tensor | dict[str, Tensor]:
    """Kernel gradient sum_b K(at, b) g_b, by products with J and its transpose; no block is formed.

    Gradient descent with learning rate lr turns the values f at these points into
    f - lr * kernel_gradient, up to an error of order lr^2.

    Args:
        kernel: Kernel of the trained residuals, and of those at other points.
        slopes: Term -> g_b = dL/dr_b, R_b entries in any shape, such as ``Term.slope`` of
            `pinn_ntk.find_terms`, or `loss_gradients`. Terms of the kernel that are absent have
            no part in the loss: unseen points.
        at: Term whose rows to evaluate at; all terms when left out.

    Returns:
        (R_at,) in the contraction dtype, in the unit of r_at over learning rate; or term -> that.

    Raises:
        KeyError: No such term ``at``.
        ValueError: No slopes, slopes of a term that the kernel lacks, or of the wrong length.

    Example:
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor(2.0, requires_grad=True)
        >>> x, unseen = torch.tensor([1.0, 3.0]), torch.tensor([10.0])
        >>> kernel = empirical_ntk({"data": w * x - 1, "unseen": w * unseen}, [w])
        >>> slopes = {"data": torch.tensor([1.0, 5.0])}  # of a mean of squares, 2 r / N
        >>> kernel_gradient(kernel, slopes, at="unseen")  # 10 * 1 * 1 + 10 * 3 * 5
        tensor([160.], dtype=torch.float64)
    """
    jacobians = {term: kernel.jacobian(term) for term in ([at] if at is not None else kernel.terms)}
    whole = torch.stack(list(term_gradients(kernel, slopes).values())).sum(0)  # (P,), dL/dtheta
    moved = {term: jacobian.matvec(whole) for term, jacobian in jacobians.items()}
    return moved if at is None else moved[at]


def term_gradients(kernel: NTK, slopes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Term -> J_a^T g_a (P,), gradient of each part of the loss with a slope, in kernel order.

    >>> from pinn_ntk import empirical_ntk
    >>> w = torch.tensor([2.0, 1.0], requires_grad=True)
    >>> kernel = empirical_ntk({"pde": 3 * w[:1], "bc": w.sum()}, [w])
    >>> term_gradients(kernel, {"pde": torch.tensor([2.0]), "bc": torch.tensor(-1.0)})["bc"]
    tensor([-1., -1.], dtype=torch.float64)
    """
    if not slopes:
        raise ValueError(
            f"slopes is empty; expected term -> dL/dr for at least one of {list(kernel.terms)}, "
            "such as from loss_gradients(loss, residuals)."
        )
    for term, slope in slopes.items():
        _check_slope(kernel, term, slope)
    return {
        term: kernel.jacobian(term).rmatvec(slopes[term]) for term in kernel.terms if term in slopes
    }


def backward_gradient(residual: Tensor, params: Mapping[str, Tensor], slope: Tensor) -> Tensor:
    """J^T g of one live residual by an ordinary backward pass, (P,) float64; the graph stays.

    >>> w = torch.tensor([2.0, 1.0], requires_grad=True)
    >>> backward_gradient(3 * w[:1], {"w": w}, torch.tensor([2.0])).tolist()
    [6.0, 0.0]
    """
    wanted, shaped = list(params.values()), slope.to(residual).view_as(residual)
    options = {"retain_graph": True, "materialize_grads": True}
    gradients = torch.autograd.grad(residual, wanted, shaped, **options)
    return torch.cat([g.detach().double().flatten() for g in gradients])


def _check_slope(kernel: NTK, term: str, slope: Tensor) -> None:
    if term not in kernel.terms:
        raise ValueError(
            f"slopes are given for term {term!r}, which this kernel lacks; it has "
            f"{list(kernel.terms)}. Give residuals and slopes the same names."
        )
    if not isinstance(slope, Tensor):
        raise TypeError(
            f"the slope of term {term!r} is a {type(slope).__name__}; expected a tensor dL/dr of "
            f"{kernel.rows(term)} entries."
        )
    if slope.numel() != kernel.rows(term):
        likely = sampled_rows(kernel, term) or (
            "Likely it is of other points, or of a mean over components."
        )
        raise ValueError(
            f"the slope of term {term!r} has shape {tuple(slope.shape)}, {slope.numel()} entries; "
            f"expected {kernel.rows(term)}, one a row of its residual. {likely}"
        )


def _refuse_twins(edges: Mapping[str, torch.autograd.graph.GradientEdge]) -> None:
    """Two names of one tensor share one slope, which cannot be divided among them."""
    names: dict[tuple[object, int], str] = {}
    for name, edge in edges.items():
        other = names.setdefault((edge.node, edge.output_nr), name)
        if other != name:
            raise ValueError(
                f"residuals {other!r} and {name!r} are one tensor, and dL/dr is that of both uses "
                "together. Give it once, or take pinn_ntk.find_terms(loss), which tells them apart."
            )


def _seen(name: str, slope: Tensor | None) -> Tensor:
    if slope is None:
        raise ValueError(
            f"the loss does not depend on residual {name!r}. Likely it was computed anew beside "
            "the one in the loss: pass that tensor itself. Points that the loss does not see "
            "have no slope: leave them out."
        )
    return slope.detach()
