"""What a step takes derivatives of: u itself, where networks are only parts of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import postorder


class Derived(TorchFunctionMode):
    """Within, ``fields`` gathers the tensors that `torch.autograd.grad` is asked to derive.

    Of ``u.sum()`` that is u. What holds derivatives already, u_x or a flux D u_x, is left out.

    >>> x = torch.linspace(0, 1, 3).requires_grad_()
    >>> with Derived() as derived:
    ...     u = torch.sin(x) + x
    ...     u_x = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    ...     u_xx = torch.autograd.grad(u_x, x, torch.ones(3))[0]
    >>> [field is u for field in derived.fields]
    [True]
    """

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[Tensor] = []
        self._summed: dict[Node, Tensor] = {}  # node of a sum -> what is summed
        self._derivatives: set[Node] = set()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = function(*args, **(kwargs or {}))
        if function in {Tensor.sum, torch.sum} and given.grad_fn is not None:
            self._summed[given.grad_fn] = args[0] if args else (kwargs or {})["input"]
        if function is torch.autograd.grad:
            outputs = args[0] if args else (kwargs or {})["outputs"]
            for output in [outputs] if isinstance(outputs, Tensor) else outputs:
                self._note(output)
            self._derivatives |= {g.grad_fn for g in given if g is not None and g.grad_fn}
        return given

    def _note(self, output: Tensor) -> None:
        if is_functorch_wrapped_tensor(output) or output.grad_fn is None:
            return
        field = self._summed.get(output.grad_fn, output)
        if any(field is known for known in self.fields) or field.grad_fn is None:
            return
        if not self._derivatives & postorder(nodes.origin(field)[0]).keys():
            self.fields.append(field)
