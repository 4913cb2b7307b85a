"""Subclasses of Tensor, such as points with labels: what is read of a graph is plain.

Their methods may need attributes that a tensor of the graph has lost, or refuse operations that
they do not know. So they are stripped where tensors come in, and what torch calls for each function
of theirs is left out while we compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

plain_functions: Any = torch._C.DisableTorchFunctionSubclass
"""Context within which functions of torch make plain tensors of subclasses."""
own_functions: Any = torch._C._EnableTorchFunction
"""Context within which they do again what their class says: for code of the user."""


def plain(tensor: Tensor) -> Tensor:
    """The same numbers with the same graph as a plain tensor; a plain one comes back as it is."""
    if type(tensor) is Tensor:
        return tensor
    with plain_functions(), torch.enable_grad():  # callers often hold no_grad
        return Tensor.as_subclass(tensor, Tensor)


def dense(tensor: Tensor) -> Tensor:
    """The same with all its entries, be it a sparse operand or the gradient of an embedding."""
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def copied(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    """A leaf of the same class, attributes and numbers, which shares no memory with the other."""
    with plain_functions():
        return dressed(plain(tensor).detach().clone().to(device or tensor.device), tensor)


def dressed(tensor: Tensor, like: Tensor) -> Tensor:
    """A plain leaf in the class of another tensor, with the attributes of that one."""
    with plain_functions():
        if type(like) not in {Tensor, Parameter}:
            tensor = Tensor.as_subclass(tensor, type(like))
            vars(tensor).update(vars(like))
        return Tensor.requires_grad_(tensor, like.requires_grad)


def on_gradient(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call a hook with the gradient of a tensor, whatever its class."""
    with plain_functions():
        handle: RemovableHandle = Tensor.register_hook(tensor, hook)  # type: ignore[no-untyped-call]
    return handle
