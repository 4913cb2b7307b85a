"""Which rows blocks are formed of, where those of all rows would take too long or too much."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pinn_ntk.kernel.bounds import Bounds
from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.kernel.rows import kernel_of_rows, strided_by
from pinn_ntk.kernel.sample import shared_out

MANY = 8
"""Terms above which their blocks are formed together."""

Places = dict[str, slice | Tensor]
"""Term -> places of some of the rows of a kernel."""


def kept_places(
    kernel: NTK, max_points: int, bounds: Bounds, drawn: Mapping[str, Tensor]
) -> Places:
    """Rows to form blocks of: those ``drawn`` of a probe, else every k-th row of the kernel.

    They are ``max_points`` a term at most, and as many of all terms as `Bounds` allow.
    """
    usable = {t: r for t, r in drawn.items() if t in kernel.terms and t not in kernel.sampled_terms}
    rows = {t: len(usable[t]) if t in usable else kernel.rows(t) for t in kernel.terms}
    own = {t: n if t in usable else min(n, max_points) for t, n in rows.items()}
    most = shared_out(own, bounds.block_rows(max_points), least=1)
    strides = {t: slice(None, None, strided_by(n, most[t])) for t, n in rows.items()}
    return {t: usable[t][k] if t in usable else k for t, k in strides.items()}


def kernel_of_places(kernel: NTK, places: Places) -> NTK:
    """The kernel of these rows, the same one where they are all."""
    whole = all(isinstance(k, slice) and k.step == 1 for k in places.values())
    kept = kernel if whole else kernel_of_rows(kernel, places)
    kept.at_once = len(places) > MANY
    return kept


def places_in_residuals(kernel: NTK, places: Places) -> dict[str, Tensor]:
    """Term -> places of these rows in the flattened residual, (R_kept,)."""
    found = {}
    for term, place in places.items():
        sample = kernel.jacobian(term).sample
        every = torch.arange(kernel.rows(term)) if sample is None else sample.rows
        found[term] = every[place]
    return found
