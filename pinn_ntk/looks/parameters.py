"""Which parameters the kernel is taken over, their names, and the groups they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from pinn_ntk.errors import ArgumentError
from pinn_ntk.kernel.ntk import NTK

Patterns = str | Sequence[str] | None
"""One shell pattern or several, such as "net.*"; None for everything."""


def matches(name: str, patterns: Patterns) -> bool:
    """Whether a name matches one of the patterns.

    >>> matches("net.0.weight", ["net.*", "k"]), matches("k", "net.*"), matches("k", None)
    (True, False, True)
    """
    if patterns is None:
        return True
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatchcase(name, pattern) for pattern in listed)


def trained_parameters(
    optimizers: Sequence[Optimizer], module: nn.Module, patterns: Patterns = None
) -> dict[str, Tensor]:
    """What optimizers train and patterns keep: name in the module -> tensor, each once.

    Frozen tensors (``requires_grad=False``) are left out. A tensor that the module does not own is
    called ``optimizer_<i>.param_<j>``. Patterns that no name matches are an error.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found: dict[int, tuple[str, Tensor]] = {}
    for i, optimizer in enumerate(optimizers):
        tensors = [p for group in optimizer.param_groups for p in group["params"]]
        for j, tensor in enumerate(tensors):
            if tensor.requires_grad:
                name = names.get(id(tensor), f"optimizer_{i}.param_{j}")
                found.setdefault(id(tensor), (name, tensor))
    named = dict(found.values())
    kept = {name: tensor for name, tensor in named.items() if matches(name, patterns)}
    if named and not kept:
        raise ValueError(_no_match(patterns, list(named)))
    return kept


def check_patterns(optimizers: Sequence[Optimizer], module: nn.Module, patterns: Patterns) -> None:
    """ArgumentError where patterns match no parameter, frozen ones included, which may thaw."""
    names = [*trained_parameters(optimizers, module), *dict(module.named_parameters())]
    if names and not any(matches(name, patterns) for name in names):
        raise ArgumentError(_no_match(patterns, list(dict.fromkeys(names))))


def _no_match(patterns: Patterns, names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (
        f"params={patterns!r} matches none of the trained parameters {list(names[:most])}{more}; "
        "expected a shell pattern such as 'net.*', or a list of them."
    )


def learning_rate(
    optimizers: Sequence[Optimizer], params: Mapping[str, Tensor], kernel: NTK
) -> float | None:
    """Learning rate of the optimizer that trains what the residuals of a kernel depend on.

    It is the largest of the optimizer's groups; None where several train it, or where it has none.
    A kernel without terms stands for all parameters.
    """
    used = used_names(kernel) if kernel.terms else set(params)
    reached = {id(params[name]) for name in used}
    found = [o.param_groups for o in optimizers if _holds(o, reached)]
    rates = [_as_number(group.get("lr")) for groups in found[:1] for group in groups]
    known = [rate for rate in rates if rate is not None]
    return max(known) if len(found) == 1 and known else None


def group_scales(optimizers: Sequence[Optimizer], params: Mapping[str, Tensor]) -> dict[str, float]:
    """Parameter -> its learning rate over the largest of its optimizer's groups.

    It is 1 where that is unknown, and where several optimizers train the parameters.

    >>> a, b = (torch.zeros(1, requires_grad=True) for _ in range(2))
    >>> groups = [{"params": [a]}, {"params": [b], "lr": 0.05}]
    >>> group_scales([torch.optim.SGD(groups, lr=0.1)], {"a": a, "b": b})
    {'a': 1.0, 'b': 0.5}
    """
    scales: dict[int, float] = {}
    holders = [o for o in optimizers if _holds(o, {id(tensor) for tensor in params.values()})]
    for optimizer in holders if len(holders) == 1 else ():
        rates = [_as_number(group.get("lr")) for group in optimizer.param_groups]
        known = [rate for rate in rates if rate is not None]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            scale = 1.0 if rate is None or not max(known) > 0 else rate / max(known)
            scales |= {id(parameter): scale for parameter in group["params"]}
    return {name: scales.get(id(tensor), 1.0) for name, tensor in params.items()}


def largest_rate(optimizers: Sequence[Optimizer]) -> float | None:
    """The largest learning rate of all groups; None where none is a number."""
    rates = [_as_number(group.get("lr")) for o in optimizers for group in o.param_groups]
    return max((rate for rate in rates if rate is not None), default=None)


def may_descend_plainly(optimizer: Optimizer) -> bool:
    """Whether it may descend by plain gradients: what its settings do not tell, its steps will."""
    momentum = [group.get("momentum") for group in optimizer.param_groups]
    return isinstance(optimizer, SGD) and not any(momentum)


def used_names(kernel: NTK) -> set[str]:
    """Names of the parameters that residuals of a kernel depend on."""
    return set().union(*(kernel.jacobian(term).factors for term in kernel.terms))


def _as_number(rate: Any) -> float | None:
    try:
        return float(rate)
    except (TypeError, ValueError, RuntimeError):  # None, or several numbers in a tensor
        return None


def _holds(optimizer: Optimizer, reached: set[int]) -> bool:
    return any(id(p) in reached for group in optimizer.param_groups for p in group["params"])


def parameter_groups(
    module: nn.Module | None, params: Mapping[str, Tensor], kernel: NTK, loss: Tensor | None
) -> dict[str, str]:
    """The group of each parameter that a kernel is taken over.

    It is "loss_weights" for what the loss depends on but no residual; else "inverse" for what the
    outermost module owns itself (or nobody, or a ParameterDict or ParameterList); else "network".
    Without a module, or with a plain network, there is no such owner, and no group.
    """
    if module is None:
        return {}
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


def _weights_only(params: Mapping[str, Tensor], kernel: NTK, loss: Tensor | None) -> set[str]:
    """Names of what enters the gradient of the loss but no residual of the kernel."""
    if not kernel.terms or loss is None:
        return set()
    used = used_names(kernel)
    rest = {name: p for name, p in params.items() if name not in used and p.requires_grad}
    if not rest:
        return set()
    wanted = list(rest.values())
    gradients = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    return {name for name, g in zip(rest, gradients, strict=True) if g is not None}
