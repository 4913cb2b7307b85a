"""Points that a step makes itself: tensors that begin to require a gradient while it runs.

Nothing else holds ``x = torch.linspace(0, 1, 50)[:, None].requires_grad_()`` of a step. Here it is
seen, and another one put in its place before anything is computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode

SMALLEST = 3
"""Numbers of a tensor from which it is noticed."""


class MadePoints(TorchFunctionMode):
    """Within, tensors that begin to require a gradient are ``made.0``, ``made.1``, ... in ``seen``.

    Those ``known``, which batch and module hold, are left out. What was put in the place of a
    tensor that was not made within, a global one, is taken back when the block ends.

    >>> import torch
    >>> seen: dict[str, Tensor] = {}
    >>> with MadePoints(lambda _, x: x + 1, seen, known=()):
    ...     x = torch.linspace(0, 1, 3).requires_grad_()
    ...     y = (2 * x).tolist()
    >>> list(seen), y
    (['made.0'], [2.0, 3.0, 4.0])
    """

    def __init__(
        self,
        put: Callable[[str, Tensor], Tensor] | None,
        seen: dict[str, Tensor],
        known: Iterable[Tensor],
    ) -> None:
        super().__init__()
        self._put, self._seen = put, seen
        self._known = {id(tensor) for tensor in known}
        self._before: list[tuple[Tensor, Tensor]] = []
        self._made: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self._count = 0

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for tensor, data in self._before:
            tensor.data = data
        self._before.clear()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = function(*args, **(kwargs or {}))
        if isinstance(given, Tensor) and function is not Tensor.requires_grad_:
            self._made[id(given)] = given
        asked = (kwargs or {}).get("requires_grad") or _begins(function)
        if asked and (tensor := given if given is not None else args[0]) is not None:
            self._notice(tensor)
        return given

    def _notice(self, tensor: Any) -> None:
        if not isinstance(tensor, Tensor) or isinstance(tensor, nn.Parameter):
            return
        plain = tensor.is_leaf and tensor.is_floating_point() and tensor.requires_grad
        if not plain or is_functorch_wrapped_tensor(tensor) or tensor.numel() < SMALLEST:
            return
        if id(tensor) in self._known:
            return
        name = f"made.{self._count}"
        self._count += 1
        self._known.add(id(tensor))
        self._seen[name] = tensor
        if self._put is not None:
            new = self._put(name, tensor.detach())
            if self._made.get(id(tensor)) is not tensor:
                self._before.append((tensor, tensor.data))
            tensor.data = new.detach().clone()


def _begins(function: Callable[..., Any]) -> bool:
    return function is Tensor.requires_grad_ or function == Tensor.requires_grad.__set__  # type: ignore[attr-defined]
