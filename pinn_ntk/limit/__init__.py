"""Kernels of infinitely wide networks, and of the operators of a PINN applied to them.

Use it to know what the kernel of a plain multilayer perceptron tends to as its layers get wider,
without a network: `LimitKernel`; and to see how far one that is being trained is from there:
`distance_to_limit`. The limit is one of the NTK parametrisation: `NTKLinear`, `ntk_mlp`. Importing
this package imports no torch; the first use of a name does.

May import: lazy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinn_ntk.lazy import publish

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

_MODULES = publish(
    globals(),
    {
        "limit.distance": "DistanceToLimit distance_to_limit limit_of",
        "limit.kernel": "LimitKernel",
        "limit.layers": "plain_mlp",
        "limit.parametrization": "NTKLinear ntk_mlp to_ntk_parametrization",
    },
)
