"""Which parameters the kernel is taken over, their names, and the groups they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from pinn_ntk.kernel.ntk import NTK

Patterns = str | Sequence[str] | None
"""One shell pattern or several, such as "net.*"; None for everything."""


def matches(name: str, patterns: Patterns) -> bool:
    """Whether a name matches one of the patterns.

    Args:
        name: The name.
        patterns: The patterns.

    Returns:
        Whether there is one that it matches, or no pattern at all.

    Example:
        >>> matches("net.0.weight", ["net.*", "k"]), matches("k", "net.*"), matches("k", None)
        (True, False, True)
    """
    if patterns is None:
        return True
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatchcase(name, pattern) for pattern in listed)


def trained_parameters(
    trainer: pl.Trainer, module: pl.LightningModule, patterns: Patterns = None
) -> dict[str, Tensor]:
    """What the trainer's optimizers train, each tensor once, under its name in the module.

    Frozen tensors (``requires_grad=False``) are left out.

    Args:
        trainer: Owner of the optimizers.
        module: Owner of the names.
        patterns: Names to keep.

    Returns:
        Name -> parameter, in the order of the optimizers. A tensor that the module does not own is
        called ``optimizer_<i>.param_<j>``.

    Raises:
        ValueError: No name matches the patterns.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found: dict[int, tuple[str, Tensor]] = {}
    for i, optimizer in enumerate(trainer.optimizers):
        tensors = [p for group in optimizer.param_groups for p in group["params"]]
        for j, tensor in enumerate(tensors):
            if not tensor.requires_grad:
                continue  # frozen
            name = names.get(id(tensor), f"optimizer_{i}.param_{j}")
            found.setdefault(id(tensor), (name, tensor))
    named = dict(found.values())
    kept = {name: tensor for name, tensor in named.items() if matches(name, patterns)}
    if named and not kept:
        raise ValueError(
            f"params={patterns!r} matches none of the trained parameters {list(named)}; expected a "
            "shell pattern such as 'net.*', or a list of them."
        )
    return kept


def learning_rate(
    trainer: pl.Trainer, params: Mapping[str, Tensor], kernel: NTK | None
) -> float | None:
    """Learning rate of the optimizer whose step the running one is.

    Args:
        trainer: Owner of the optimizers.
        params: Name -> trained parameter.
        kernel: Kernel over these parameters; None if there is none.

    Returns:
        The learning rate of the optimizer that trains what the residuals depend on, the largest of
        its groups; None where several do, or where it has none.
    """
    used = set(params)
    if kernel is not None:
        used = set().union(*(kernel.jacobian(term).factors for term in kernel.terms))
    reached = {id(params[name]) for name in used}
    found = [o.param_groups for o in trainer.optimizers if _holds(o, reached)]
    rates = [_as_number(group.get("lr")) for groups in found[:1] for group in groups]
    known = [rate for rate in rates if rate is not None]
    return max(known) if len(found) == 1 and known else None


def _as_number(rate: Any) -> float | None:
    try:
        return float(rate)
    except (TypeError, ValueError, RuntimeError):  # None, or several numbers in a tensor
        return None


def _holds(optimizer: Optimizer, reached: set[int]) -> bool:
    return any(id(p) in reached for group in optimizer.param_groups for p in group["params"])


def parameter_groups(
    module: pl.LightningModule,
    params: Mapping[str, Tensor],
    kernel: NTK | None,
    loss: Tensor | None,
) -> dict[str, str]:
    """The group of each parameter: "network", "inverse" or "loss_weights".

    Args:
        module: Owner of the parameters.
        params: Name -> trained parameter.
        kernel: Kernel over these parameters.
        loss: The live loss.

    Returns:
        Name -> "loss_weights" for what the loss depends on but no residual; else "inverse" for
        what the LightningModule owns itself (or nobody, or a ParameterDict or ParameterList);
        else "network".
    """
    inside = {
        f"{prefix}.{name}"
        for prefix, part in module.named_modules()
        if prefix and not isinstance(part, nn.ParameterDict | nn.ParameterList)
        for name, _ in part.named_parameters(recurse=False)
    }
    weights = _weights_only(params, kernel, loss)
    return {
        name: "loss_weights" if name in weights else "network" if name in inside else "inverse"
        for name in params
    }


def _weights_only(
    params: Mapping[str, Tensor], kernel: NTK | None, loss: Tensor | None
) -> set[str]:
    """Names of what enters the gradient of the loss but no residual of the kernel."""
    if kernel is None or loss is None:
        return set()
    used: set[str] = set().union(*(kernel.jacobian(term).factors for term in kernel.terms))
    rest = [name for name, tensor in params.items() if name not in used and tensor.requires_grad]
    return set(_reached(loss, rest, params)) if rest else set()


def _reached(loss: Tensor, names: Iterable[str], params: Mapping[str, Tensor]) -> list[str]:
    listed = list(names)
    gradients = torch.autograd.grad(
        loss, [params[name] for name in listed], retain_graph=True, allow_unused=True
    )
    return [name for name, g in zip(listed, gradients, strict=True) if g is not None]
