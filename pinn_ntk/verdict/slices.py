"""The points of a term that takes a few rows of a call: ``u[:1] - 1``, ``u_x[wall]``.

A row of the call counts where the residual has a slope by its output or by its coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pinn_ntk.looks.networks import NetworkCall

SEED = 0x5EED


def rows_taken(residual: Tensor, call: NetworkCall, n: int) -> Tensor | None:
    """Rows, ascending, of the ``n`` points of a call that a residual is made of.

    None where their number does not divide that of the rows of the residual, or where all are.

    >>> from torch import nn
    >>> x = torch.linspace(0, 1, 5)[:, None]
    >>> u = nn.Linear(1, 1)(x)
    >>> rows_taken(u[-2:] - 1, NetworkCall("", (x,), u, leaf=False), 5).tolist()
    [3, 4]
    """
    r = residual.flatten()
    if r.is_complex() or not len(r):
        return None
    sources = [t for t in (call.output, *call.inputs) if t.requires_grad and t.numel() % n == 0]
    weights = torch.rand(len(r), generator=torch.Generator().manual_seed(SEED)).to(r) + 0.5
    slopes = torch.autograd.grad(r, sources, weights, retain_graph=True, allow_unused=True)
    taken = torch.zeros(n, dtype=torch.bool)
    for slope in slopes:
        if slope is not None:
            taken |= (slope.detach().reshape(n, -1) != 0).any(1).cpu()
    rows = taken.nonzero().flatten()
    fits = 0 < len(rows) < n and len(r) % len(rows) == 0
    return rows if fits else None
