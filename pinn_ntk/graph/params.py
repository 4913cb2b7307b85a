"""What a user may hand over as ``params``, brought into one form: named trainable leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

ParamsLike: TypeAlias = (
    nn.Module
    | torch.optim.Optimizer
    | Mapping[str, Tensor]
    | Iterable[Tensor]
    | Iterable[tuple[str, Tensor]]
)
"""A module, an optimizer, a mapping or pairs of names and tensors, or bare tensors."""


def named_leaves(params: ParamsLike) -> dict[str, Tensor]:
    """The trainable leaves of ``params`` by name, each tensor once, in the order given.

    Frozen tensors (``requires_grad=False``) are left out; they have no column in the Jacobian.
    Bare tensors, and those of an optimizer, are called ``param_0``, ``param_1``, ...
    """
    leaves: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in _pairs(params):
        if id(tensor) in seen or not tensor.requires_grad:
            continue
        _check_leaf(name, tensor, leaves)
        seen.add(id(tensor))
        leaves[name] = tensor
    if not leaves:
        raise ValueError(
            "params holds no trainable tensor: expected at least one with requires_grad=True. "
            "Likely an empty or exhausted iterator (model.parameters() can be read once), or "
            "everything is frozen. Pass the module itself."
        )
    return leaves


def _pairs(params: ParamsLike) -> list[tuple[str, Tensor]]:
    if isinstance(params, nn.Module):
        return list(params.named_parameters())
    if isinstance(params, torch.optim.Optimizer):
        params = [p for group in params.param_groups for p in group["params"]]
    if isinstance(params, Tensor):
        params = [params]
    entries = params.items() if isinstance(params, Mapping) else params
    return [_pair(index, entry) for index, entry in enumerate(entries)]


def _pair(index: int, entry: Tensor | tuple[str, Tensor]) -> tuple[str, Tensor]:
    if isinstance(entry, Tensor):
        return f"param_{index}", entry
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], Tensor):
        return str(entry[0]), entry[1]
    raise TypeError(
        f"params[{index}] is a {type(entry).__name__}; expected a tensor or a (name, tensor) "
        "pair. Pass model, model.parameters(), model.named_parameters() or an optimizer."
    )


def _check_leaf(name: str, tensor: Tensor, leaves: dict[str, Tensor]) -> None:
    if name in leaves:
        raise ValueError(f"two different tensors in params are called {name!r}; rename one.")
    if not tensor.is_leaf:
        raise ValueError(
            f"params[{name!r}] is not a leaf (made by {tensor.grad_fn}); the kernel is taken with "
            "respect to the tensors an optimizer would train. Pass the tensor it is computed from."
        )
    if tensor.layout != torch.strided:
        raise ValueError(
            f"params[{name!r}] is sparse ({tensor.layout}); the kernel is taken over dense ones. "
            "Train its values as a dense parameter, or leave it out, as with params='net.*'."
        )
    if tensor.is_complex():
        raise ValueError(
            f"params[{name!r}] is complex ({tensor.dtype}); the kernel is defined for real ones. "
            "Train torch.view_as_real(w) as the parameter, and call torch.view_as_complex on it."
        )
