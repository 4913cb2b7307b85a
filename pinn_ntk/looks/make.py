"""A look at a step of a training loop of one's own, without a Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from pinn_ntk.graph.params import ParamsLike, named_leaves
from pinn_ntk.graph.residuals import named_residuals
from pinn_ntk.graph.subclasses import plain
from pinn_ntk.graph.terms.find import find_terms
from pinn_ntk.graph.terms.term import Term
from pinn_ntk.kernel.bounds import MAX_POINTS, MEMORY_BUDGET, Bounds
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.progress import Progress
from pinn_ntk.looks.step_terms import StepTerms


def look(
    loss: Tensor | None,
    model: ParamsLike,
    *,
    names: Sequence[str] | Mapping[str, Tensor | float] | None = None,
    residuals: Mapping[str, Tensor] | None = None,
    weights: Mapping[str, float] | None = None,
    optimizer: Optimizer | None = None,
    progress: Progress | None = None,
    step: int = 0,
    certify: bool = True,
    max_points: int = MAX_POINTS,
    max_rows: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Look:
    """Look at a step before ``loss.backward()``: what diagnostics and weighting rules read.

    Nothing is computed but the terms of the loss; each quantity of the `Look` is when it is asked
    for.

    Args:
        loss: The live loss, one number; None to look at ``residuals`` alone.
        model: What is trained: a module, an optimizer, named pairs, or tensors.
        names: Names of the terms, as in `pinn_ntk.find_terms`.
        residuals: Name -> live residual, in place of those that are found in the loss; terms of
            the loss that are called the same weigh them.
        weights: Term -> weight put on its gradient besides those in the loss.
        optimizer: The optimizer, for its learning rate.
        progress: What was kept of the steps before, for `pinn_ntk.diagnose`.
        step: Step of the training.
        certify: Whether the kernel is checked against ordinary backward passes.
        max_points: Rows of a term above which blocks are formed of evenly strided rows only.
        max_rows: As in `pinn_ntk.empirical_ntk`, and so is ``memory_budget``; blocks and gradients
            count in it, too.
        memory_budget: Bytes that all that is read of this step may take.

    Returns:
        The look.

    Raises:
        ValueError: Neither loss nor residuals are given, or ``loss`` is not one number with a
            live graph.
        OpaqueLossError: The terms of the loss cannot be found, and no residuals are given.

    Example:
        >>> import torch
        >>> w = torch.tensor(2.0, requires_grad=True)
        >>> r, b = w * torch.tensor([1.0, 2.0]) - 1, w * torch.tensor([1.0]) - 3
        >>> step = look(r.square().mean() + b.square().mean(), [w], names=["pde", "bc"])
        >>> step.traces, step.effective_weights
        ({'pde': 5.0, 'bc': 1.0}, {'pde': 1.0, 'bc': 1.0})
        >>> step.gradients["bc"].tolist()
        [-2.0]
    """
    if loss is None and residuals is None:
        raise ValueError("look got neither a loss nor residuals; give the live loss of the step.")
    loss = plain(loss) if isinstance(loss, Tensor) else loss
    terms = {} if loss is None else _terms(loss, names, optional=residuals is not None)
    found = _found(terms, residuals)
    params = named_leaves(model)
    put: Mapping[str, float] = weights or {}
    if unknown := [name for name in put if name not in found.terms]:
        raise ValueError(f"weights has {unknown}; the terms of the loss are {list(found.terms)}.")
    return Look(
        step=step,
        total_step=step,
        found=found,
        params=params,
        trained=params,
        module=model if isinstance(model, nn.Module) else None,
        loss=loss,
        optimizers=() if optimizer is None else (optimizer,),
        progress=progress,
        balanced=lambda: {found.terms[name].head: weight for name, weight in put.items()},
        certify=certify,
        max_points=max_points,
        bounds=Bounds(memory_budget, max_rows),
    )


def _terms(
    loss: Tensor, names: Sequence[str] | Mapping[str, Tensor | float] | None, *, optional: bool
) -> dict[str, Term]:
    try:  # of a loss of NaN no completeness can be told; the look says which terms are undefined
        check = not optional and bool(loss.isfinite().all())
        return find_terms(loss, names=names, check=check)
    except ValueError:
        if optional:  # an opaque loss is what residuals are for
            return {}
        raise


def _found(terms: Mapping[str, Term], residuals: Mapping[str, Tensor] | None) -> StepTerms:
    if residuals is None:
        return StepTerms({n: t.residual for n, t in terms.items()}, terms, complete=True)
    given = named_residuals(residuals)
    named = {name: term for name, term in terms.items() if name in given}
    complete = len(named) == len(terms)
    same = all(term.residual is given[name] for name, term in named.items())
    return StepTerms(given, named, from_function=not same, complete=complete)
