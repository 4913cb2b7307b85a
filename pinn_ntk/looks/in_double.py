"""A computation in float64 throughout, whatever dtype it was written for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LOW = (torch.float32, torch.float16, torch.bfloat16)
CASTS = ("float", "half", "bfloat16", "to", "type", "type_as")
DRAWS = {
    *("uniform_", "normal_", "exponential_", "log_normal_", "cauchy_", "random_", "bernoulli_"),
    *("rand_like", "randn_like"),
}
"""Functions that draw numbers into a tensor, or of its shape: of another dtype they are others."""


class InDouble(TorchFunctionMode):
    """Within, tensors that are made are of float64; numbers drawn are those of the dtype before.

    >>> with InDouble():
    ...     made = torch.full((1,), 0.1)
    >>> made.dtype, float(made)
    (torch.float64, 0.10000000149011612)
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(function, "__name__", "") in DRAWS and args[0].dtype == torch.float64:
            return _drawn(function, args, kwargs or {})
        if _mixes(function, args):
            args = [_double(a) for a in args]
        made = function(*args, **(kwargs or {}))
        if not isinstance(made, Tensor) or made.dtype not in LOW:
            return made
        given = next((a for a in args if isinstance(a, Tensor)), None)
        if given is None:
            return made.detach().double().requires_grad_(made.requires_grad)
        if getattr(function, "__name__", "") in CASTS:
            source = given if given.requires_grad and given.dtype == torch.float64 else made
            return source.to(made.device, torch.float64)
        return made


def _mixes(function: Callable[..., Any], args: Sequence[Any]) -> bool:
    """Whether an operation is given float64 beside less: a tensor that no module holds."""
    name = getattr(function, "__name__", "")
    if function is torch.autograd.grad or name.endswith("_"):
        return False
    dtypes = {a.dtype for a in _tensors(args)}
    return torch.float64 in dtypes and not dtypes.isdisjoint(LOW)


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, list | tuple):
            yield from _tensors(a)


def _double(a: Any) -> Any:
    if type(a) in {list, tuple}:
        return type(a)(map(_double, a))
    return a.double() if isinstance(a, Tensor) and a.dtype in LOW else a


def _drawn(function: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The random numbers that a tensor of the default dtype would get."""
    if function.__name__.endswith("_like"):
        drawn: Tensor = function(args[0].to(torch.get_default_dtype()), *args[1:], **options)
        return drawn.detach().double().requires_grad_(drawn.requires_grad)
    drawn = torch.empty_like(args[0], dtype=torch.get_default_dtype(), requires_grad=False)
    return args[0].copy_(function(drawn, *args[1:], **options))
