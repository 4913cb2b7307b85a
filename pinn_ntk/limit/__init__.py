"""Kernels of infinitely wide networks, and of the operators of a PINN applied to them.

Use it to know what the kernel of a plain multilayer perceptron tends to as its layers get wider,
without a network: `LimitKernel`; and to see how far one that is being trained is from there:
`distance_to_limit`. The limit is one of the NTK parametrisation: `NTKLinear`, `ntk_mlp`. Importing
this package imports no torch; the first use of a name does.

May import: nothing of this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinn_ntk.limit.distance import DistanceToLimit, distance_to_limit, limit_of
    from pinn_ntk.limit.kernel import LimitKernel
    from pinn_ntk.limit.layers import plain_mlp
    from pinn_ntk.limit.parametrization import NTKLinear, ntk_mlp, to_ntk_parametrization

__all__ = [
    "DistanceToLimit",
    "LimitKernel",
    "NTKLinear",
    "distance_to_limit",
    "limit_of",
    "ntk_mlp",
    "plain_mlp",
    "to_ntk_parametrization",
]

_MODULES = {
    "DistanceToLimit": "pinn_ntk.limit.distance",
    "LimitKernel": "pinn_ntk.limit.kernel",
    "NTKLinear": "pinn_ntk.limit.parametrization",
    "distance_to_limit": "pinn_ntk.limit.distance",
    "limit_of": "pinn_ntk.limit.distance",
    "ntk_mlp": "pinn_ntk.limit.parametrization",
    "plain_mlp": "pinn_ntk.limit.layers",
    "to_ntk_parametrization": "pinn_ntk.limit.parametrization",
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ lets every misspelt name pass

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
