"""Whether the terms found in a loss make up its gradient: sum_a J_a^T s_a = dL/dtheta.

The notation is that of `pinn_ntk.graph.terms.find`; leaves are parameters and others alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import Parameter

from pinn_ntk.errors import GradientError, IncompleteTermsError
from pinn_ntk.graph.nodes import leaf, origin
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.subclasses import dense, plain, plain_functions
from pinn_ntk.graph.terms.not_finite import cause
from pinn_ntk.graph.terms.paths import nodes_below, trace
from pinn_ntk.graph.terms.term import Term

LOW_PRECISION = 1e-2  # tolerance above which some tensor of the graph is in half precision
HEADROOM = 16.0  # how far below 1 the largest slope is brought there: sums over rows are larger


def completeness_error(loss: Tensor, terms: Mapping[str, Term] | Iterable[Term]) -> float:
    """Relative error of sum_a J_a^T s_a against dL/dtheta; that of rounding if no term is missing.

    The gradient of penalties and other paths that meet no residual is accounted for. The error is
    relative to the norm of dL/dtheta, or of the largest J_a^T s_a where the terms nearly cancel. It
    is NaN where a gradient is not finite.

    >>> from pinn_ntk import find_terms
    >>> theta = torch.tensor(2.0, requires_grad=True)
    >>> x = torch.tensor([3.0, 4.0])
    >>> loss = (theta * x).square().sum() + (theta * x - 1).square().sum()
    >>> first, second = find_terms(loss).values()
    >>> round(completeness_error(loss, [first]), 3)  # 86 of 186
    0.462
    """
    with plain_functions():
        return _compare(loss, list(terms.values() if isinstance(terms, Mapping) else terms))[0]


def check_complete(loss: Tensor, terms: Sequence[Term]) -> None:
    """Refuse terms whose error is above the square root of the rounding unit."""
    error, tolerance = _compare(loss, terms)
    if math.isnan(error) and bool(loss.isfinite()):
        said = cause(loss, terms, _leaves(nodes_below([origin(loss)[0]])))
        if said:
            raise GradientError(said)
    if not error <= tolerance:
        raise IncompleteTermsError(
            f"the terms {[term.name for term in terms]} make up the gradient of the loss only to "
            f"a relative {error:.1e}; expected {tolerance:.1e} or less. Likely a hook changes "
            "gradients at a head, a checkpoint draws other numbers when it runs again "
            "(preserve_rng_state=False), or the loss is not finite (nan). Mend that, or pass the "
            "residuals yourself: pinn_ntk.empirical_ntk({'pde': r, ...}, model.parameters()). "
            "check=False returns the terms as they are."
        )


def _compare(loss: Tensor, terms: Sequence[Term]) -> tuple[float, float]:
    """Relative error, and the error that rounding may make."""
    root, _ = origin(loss := checked(loss))
    found = trace(root)
    residuals = [head.residual for head in found.heads] + [term.residual for term in terms]
    graph = nodes_below([origin(r)[0] for r in residuals] or [root])
    leaves = _leaves(graph)
    tolerance = _rounding(graph, residuals)
    share = _share(terms) if tolerance > LOW_PRECISION else 1.0
    expected = _gradient([loss], leaves, [torch.full_like(loss, share)])
    if kept := _finite(leaves, expected):
        leaves, expected = [leaves[i] for i in kept], tuple(expected[i] for i in kept)
    gap = _minus(expected, _pulled_back(terms, leaves, share))
    if any(leaf(node) is not None and node in graph for node in nodes_below(found.asides)):
        with cut([*(head.node for head in found.heads), *found.opaque]):
            gap = _minus(gap, _gradient([loss], leaves, [torch.full_like(loss, share)]))
    scale = _size(expected)
    if _size(gap) > tolerance * scale:
        scale = max([scale, *(_size(_pulled_back([term], leaves, share)) for term in terms)])
    return _size(gap) / scale if _size(gap) else 0.0, tolerance


def _leaves(graph: Iterable[Node]) -> list[Tensor]:
    return [tensor for node in graph if (tensor := leaf(node)) is not None]


def _finite(leaves: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[int]:
    """Leaves to compare if the gradient is finite but for points, which are not trained."""
    kept = [i for i, gradient in enumerate(gradients) if bool(gradient.isfinite().all())]
    points = all(i in kept or not isinstance(p, Parameter) for i, p in enumerate(leaves))
    return kept if points and len(kept) < len(leaves) else []


def _gradient(
    outputs: Sequence[Tensor], leaves: Sequence[Tensor], slopes: Sequence[Tensor] | None = None
) -> tuple[Tensor, ...]:
    found = torch.autograd.grad(outputs, leaves, slopes, retain_graph=True, allow_unused=True)
    pairs = zip(leaves, found, strict=True)
    return tuple(_nothing(tensor) if g is None else dense(g) for tensor, g in pairs)


def _nothing(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _pulled_back(
    terms: Sequence[Term], leaves: Sequence[Tensor], share: float
) -> tuple[Tensor, ...]:
    """sum_a J_a^T s_a times ``share``, a tensor a leaf."""
    if not terms:
        return tuple(map(_nothing, leaves))
    slopes = [term.slope if share == 1.0 else term.slope * share for term in terms]
    return _gradient([term.residual for term in terms], leaves, slopes)


def _share(terms: Sequence[Term]) -> float:
    """Brings gradients into the range of half precision, which a GradScaler may leave at first."""
    largest = max((float(t.slope.abs().max()) for t in terms if t.slope.numel()), default=0.0)
    return 1 / (HEADROOM * largest) if 0.0 < largest < math.inf else 1.0


def _minus(left: Sequence[Tensor], right: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(a - b for a, b in zip(left, right, strict=True))


def _size(gradient: Sequence[Tensor]) -> float:
    """2-norm of all entries together."""
    sizes = (torch.linalg.vector_norm(g.detach().abs().double()) for g in gradient)
    return math.hypot(*map(float, sizes))


def _rounding(graph: Iterable[Node], residuals: Iterable[Tensor]) -> float:
    """Square root of the rounding unit of the coarsest dtype that takes part."""
    dtypes = {residual.dtype for residual in residuals}
    dtypes |= {tensor.dtype for node in graph if (tensor := leaf(node)) is not None}
    if any(operation(node).name == "ToCopy" for node in graph):  # autocast, in whichever dtype
        dtypes.add(torch.bfloat16)
    return math.sqrt(max(torch.finfo(dtype).eps for dtype in dtypes))


@contextmanager
def cut(nodes: Iterable[Node]) -> Iterator[None]:
    """Let no gradient through ``nodes``; what reaches one from above can still be captured."""
    handles = [node.register_prehook(_zeros) for node in nodes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zeros(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(None if g is None else torch.zeros_like(g) for g in gradients)


def checked(loss: Tensor) -> Tensor:
    """``loss`` as a plain tensor, if it is one number with a graph."""
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"loss is a {type(loss).__name__}; expected a tensor. A number taken with .item() has "
            "no graph: pass the tensor that is differentiated."
        )
    loss = plain(loss)
    if loss.numel() != 1:
        raise ValueError(
            f"loss has shape {tuple(loss.shape)}; expected one number. Likely a loss made with "
            'reduction="none": pass its mean or sum, as it is differentiated.'
        )
    if loss.grad_fn is None:
        raise ValueError(
            "loss has no graph: expected the live result of operations on trained parameters. "
            "Likely it was detached, logged with .item(), or computed under torch.no_grad()."
        )
    return loss


@contextmanager
def explained() -> Iterator[None]:
    """Say what torch's errors about a graph that can no longer be read mean."""
    try:
        yield
    except RuntimeError as error:
        if "second time" in str(error):
            raise ValueError(
                "the graph of the loss is freed: expected one that can still be differentiated. "
                "Likely loss.backward() ran before. Find the terms before it, such as in "
                "on_before_backward, or keep the graph with retain_graph=True."
            ) from error
        if "inplace" in str(error):
            raise ValueError(
                "a tensor that the loss depends on was changed in place after use, so its graph "
                "cannot be differentiated. Likely an operation such as r += ... or r.clamp_(...) "
                "after r was squared; write it out of place."
            ) from error
        raise
